"""``Supervisor``: who is notified of a pod's failure or end, and what the pod leaves to its successor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from protocol.events import RunOutcome

if TYPE_CHECKING:
    from actors.pod.runs.run_state import RunQueue
    from actors.runtime.future import AsyncFuture


class Waiting(NamedTuple):
    """What waits for a pod that failed: its queue, whether a run was ``interrupted``, and which end was asked
    for.
    """

    queue: RunQueue | None
    interrupted: bool
    ending: RunOutcome | None


class Supervisor(Protocol):
    """Restarts a pod when it fails; used on the pod's loop only."""

    #: What the pod that failed left for the one that takes its place.
    waiting: Waiting | None

    def decide(self, error: BaseException) -> bool:
        """Whether to restart the pod, which failed; counts the restart."""

    def on_failed(self, error: BaseException) -> None:
        """Restart the pod, which has failed, now that its session is free."""

    def note_stop(self) -> None:
        """Note that the pod has stopped, as it was asked to."""

    def take(self, message: Any, reply_to: AsyncFuture[Any] | None) -> bool:
        """Take a message that came to a pod that has ended, for the one that replaces it; returns whether
        there is one.
        """
