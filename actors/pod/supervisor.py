"""``Supervisor``: what a pod notifies of its failure and its end, and what it leaves to its successor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from protocol.events import RunOutcome

if TYPE_CHECKING:
    from actors.pod.runs.run_state import RunQueue
    from actors.runtime.future import AsyncFuture


class Waiting(NamedTuple):
    """What waits for a pod that failed: its queue, whether a run was ``interrupted``, and which end somebody
    had asked for.
    """

    queue: RunQueue | None
    interrupted: bool
    ending: RunOutcome | None


class Supervisor(Protocol):
    """Who starts a pod again when it fails; all on the pod's loop."""

    #: What the pod that failed left for the one that takes its place.
    waiting: Waiting | None

    def decide(self, error: BaseException) -> bool:
        """Whether the pod, which failed, is to be started again; counts it."""

    def on_failed(self, error: BaseException) -> None:
        """Take the place of the pod, which has failed, now that its session is free."""

    def note_stop(self) -> None:
        """Note that the pod has stopped, as it was asked to."""

    def take(self, message: Any, reply_to: AsyncFuture[Any] | None) -> bool:
        """Take a message that came to a pod that has ended, for the one that takes its place; returns whether
        there is one.
        """
