"""The actor behind the handle of a pod that lives in this process, and its end by its system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from actors.pod.elsewhere import Elsewhere
from actors.pod.handle import Pod

if TYPE_CHECKING:
    from actors.pod.pod import PodActor
    from actors.runtime.future import AsyncFuture
    from actors.runtime.ref import AsyncActorRef


class ShutDown(Struct, frozen=True):
    """To a pod whose system is left: end, with the run that goes on paused, so that it can be resumed."""


def actor_of(pod: Pod) -> PodActor:
    """The actor of a pod."""
    actor: PodActor = pod.ref.actor  # type: ignore[attr-defined] # it is an AsyncActorRef
    return actor


def lives_here(pod: Pod) -> bool:
    """Whether the pod has an actor in this process."""
    return pod._ref is not None  # noqa: SLF001 - its ``ref`` would raise


def elsewhere(pod: Pod | None) -> Elsewhere | None:
    """What asks a pod that has no actor in this process; None of any other."""
    return pod.address if pod is not None and isinstance(pod.address, Elsewhere) else None


def shut_down(pod: Pod) -> AsyncFuture[bool]:
    """End a pod with its run paused: a future of whether it was alive."""
    if (away := elsewhere(pod)) is not None:
        return away.shut_down()
    ref: AsyncActorRef[PodActor] = pod.ref  # type: ignore[assignment]
    return ref.stop_by(ShutDown())
