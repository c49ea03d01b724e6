"""``ProcessEvents``: publishes the events of a pod in another process, and derives its state from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from actors.pod.session.past_events import entries_after
from actors.pod.session.restore import tip
from actors.runtime.events.bus import Bus
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from protocol.entries import StoredEntry
from protocol.errors import Failure, PolypodError, WireError
from protocol.events import (
    ApprovalRequested,
    ApprovalResolved,
    Event,
    Lagged,
    PodEnded,
    PodFailed,
    PodStarted,
    RunStart,
    StateChanged,
)
from protocol.pod_process import PodBegun
from protocol.wire import decode_event, event_kind

_log = logging.getLogger("polypod.processes")
#: Entries of a dead pod's session that are read at a time.
_PAGE = 200


class ProcessEvents:
    """The events of one pod that is a process, and of its sub-agents, as they come from there."""

    def __init__(self, pod: str, bus: Bus, store: SessionStore, note_run: Callable[[str], None]) -> None:
        """``note_run`` gets the id of each run that has begun."""
        self._pod = pod
        self._bus = bus
        self._store = store
        self._note_run = note_run
        #: The pod's session, empty before it has any, and the number of its last entry that is published.
        self.session_id, self.seq = "", 0
        #: The defect that ended the pod.
        self.failure: Failure | None = None
        self._approvals: dict[str, ApprovalRequested] = {}
        self._asked_approvals: set[str] = set()
        self._sub_agents: set[str] = set()
        #: Those of them that have ended, and whose last event, a transient one, is still to come.
        self._ended: set[str] = set()

    @property
    def position(self) -> tuple[str, int]:
        """The pod's session, and its last durable entry."""
        return self.session_id, self.seq

    def open_approvals(self) -> Iterable[ApprovalRequested]:
        """Its calls that wait for a person's word."""
        return self._approvals.values()

    def has_asked(self, approval_id: str) -> bool:
        """Whether one of its calls waits, or waited, for an approval of that id."""
        return approval_id in self._asked_approvals

    def begin(self, begun: PodBegun) -> None:
        """Know where the pod stands as it begins."""
        self.session_id, self.seq = begun.session_id, max(self.seq, begun.seq)
        self._approvals = {each.approval_id: each for each in begun.approvals}
        self._asked_approvals.update(self._approvals)

    def take(self, body: bytes) -> None:
        """Publish an event that has come, with its bytes."""
        try:
            durable = event_kind(body) is not None
        except WireError:  # a transient one, or of a later version
            durable = False
        if not durable and self._bus.silent:
            return
        try:
            event = decode_event(body)
        except WireError as error:
            _log.warning("an event of pod %r is skipped: %s", self._pod, error)
            return
        if durable:
            self._note(event)
        elif isinstance(event, Lagged):  # only of what is transient
            event = replace(event, pod=self._pod, session_id=self.session_id, seq=self.seq, since=self.seq)
        entries = (StoredEntry(event.seq, b"", body),) if durable and self._bus.fed else ()
        self._bus.publish((event,), entries)
        if isinstance(event, PodEnded | PodFailed) and event.pod in self._sub_agents:
            self._ended.add(event.pod)
        if self._ended:
            self._forget_ended(event)

    def _forget_ended(self, event: Event) -> None:
        """Forget a sub-agent with its last event, and all that have ended where that may be left out."""
        missed = isinstance(event, Lagged) or self._bus.silent
        last = {event.pod} if isinstance(event, StateChanged) else set()
        for name in self._ended if missed else self._ended & last:
            self._sub_agents.discard(name)
            self._bus.disown(name)
        self._ended &= self._sub_agents

    def _note(self, event: Event) -> None:
        if event.pod != self._pod:
            if isinstance(event, PodStarted) and event.parent is not None:
                self._sub_agents.add(event.pod)
                self._ended.discard(event.pod)
                self._bus.adopt(event.pod, event.parent)
        else:
            self.session_id, self.seq = event.session_id, event.seq
            if isinstance(event, PodFailed):
                self.failure = event.error
        if isinstance(event, RunStart) and event.run_id is not None:
            self._note_run(event.run_id)
        elif isinstance(event, ApprovalRequested):
            self._approvals[event.approval_id] = event
            self._asked_approvals.add(event.approval_id)
        elif isinstance(event, ApprovalResolved):
            self._approvals.pop(event.approval_id, None)

    async def catch_up(self) -> None:
        """Publish what a process that is gone had committed and could no longer send."""
        if self.session_id:
            await self._publish_rest()
        for name in self._sub_agents:
            self._bus.disown(name)
        self._sub_agents.clear()
        self._ended.clear()

    async def _publish_rest(self) -> None:
        store = self._store
        try:
            session_id = await tip(store, self.session_id)
            through = (await settled(store.info(session_id))).head.seq
            while self.seq < through:
                page = await entries_after(store, session_id, self.seq, through, _PAGE)
                for entry in page:
                    if event_kind(entry.body) is not None:
                        self.take(entry.body)
                    self.seq = entry.seq
                if not page:
                    break
            self.session_id = session_id
        except PolypodError as error:
            _log.warning("the last events of pod %r cannot be read: %s", self._pod, error)
