"""Reaches the actor behind a pod's handle in this process, and shuts pods down for their system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from actors.pod.remote_pod import RemotePod
from actors.runtime.ref import stop_by
from protocol.errors import PodError

if TYPE_CHECKING:
    from actors.pod.handle import Pod
    from actors.pod.pod import PodActor
    from actors.runtime.future import AsyncFuture


class ShutDown(Struct, frozen=True):
    """Sent to a pod whose system is left: it ends, with its open run paused so that it can be resumed."""


def actor_of(pod: Pod) -> PodActor:
    """The actor of a pod. Raises PodError if that lives in another process."""
    actor = pod._actor  # noqa: SLF001 - put there by who made the pod
    if actor is None:
        raise PodError(f"pod {pod.name!r} runs in another process: it has no actor in this one")
    return actor


def lives_here(pod: Pod) -> bool:
    """Whether the pod has an actor in this process."""
    return pod._actor is not None  # noqa: SLF001 - put there by who made the pod


def remote_pod(pod: Pod | None) -> RemotePod | None:
    """The RemotePod of a pod that lives in another process; None for one that lives in this."""
    return pod.address if pod is not None and isinstance(pod.address, RemotePod) else None


def shut_down(pod: Pod) -> AsyncFuture[bool]:
    """End a pod with its run paused: a future of whether it was alive."""
    if (remote := remote_pod(pod)) is not None:
        return remote.shut_down()
    return stop_by(actor_of(pod), ShutDown())
