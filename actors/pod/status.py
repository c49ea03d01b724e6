"""``Status``: a pod's current state, with its one setter."""

from __future__ import annotations

import time

from actors.pod.session.journal import Journal
from protocol.errors import PodStopped
from protocol.events import StateChanged
from protocol.lifecycle import MOVES, PodState


class Status:
    """A pod's state, with its one setter. Once ``stopping``, it begins nothing more; ``restarts`` says that
    it failed and another pod takes its place.
    """

    __slots__ = ("_journal", "restarts", "state", "stopping")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.state = PodState.STARTING
        self.stopping = self.restarts = False

    def to(self, state: PodState) -> None:
        """Enter ``state``, and publish that."""
        old = self.state
        if old is state:
            return
        assert state in MOVES[old], f"{old} -> {state}"
        self.state = state
        journal = self._journal
        if not journal.bus.silent and journal.has_subscriber(StateChanged):
            log, head, run_id = journal.log, journal.head, journal.run_id
            log.publish_transient(
                StateChanged(log.pod, head.session_id, head.seq, time.time(), run_id, old=old, new=state)
            )

    def gone(self) -> PodStopped:
        """The error for commands to a pod that has stopped."""
        name = self._journal.log.pod
        if self.restarts:
            return PodStopped(f"pod {name!r} failed and is being restarted", hint="try again")
        return PodStopped(f"pod {name!r} has stopped", hint="spawn it again with resume=")
