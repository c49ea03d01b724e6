"""The actor behind the handle of a pod that lives in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.pod.handle import Pod

if TYPE_CHECKING:
    from actors.pod.pod import PodActor, ShutDown
    from actors.runtime.future import AsyncFuture
    from actors.runtime.ref import AsyncActorRef


def actor_of(pod: Pod) -> PodActor:
    """The actor of a pod."""
    actor: PodActor = pod.ref.actor  # type: ignore[attr-defined] # it is an AsyncActorRef
    return actor


def stop_by(pod: Pod, message: ShutDown) -> AsyncFuture[bool]:
    """Have a pod end by that message: a future of whether it was alive."""
    ref: AsyncActorRef[PodActor] = pod.ref  # type: ignore[assignment]
    return ref.stop_by(message)
