"""``PastTree``: reads past events of a pod and its sub-agents, ended ones included, in one order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from actors.pod.session.past_events import entries_after, gone, last_session, spans_of
from actors.pod.session.restore import tip
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from protocol.entries import SessionOpened, StoredEntry
from protocol.errors import SessionNotFound
from protocol.events import ChildEnded, ChildStarted, Lagged
from protocol.wire import decode_entry, decode_event, entry_time, event_kind

#: Entries of one log that are read at a time, and events that are given at a time.
_PAGE = 200


class _Next(NamedTuple):
    """An entry that was read and not returned yet, and when it was made."""

    at: float
    entry: StoredEntry


class _Log:
    """How far the log of one pod has been read."""

    __slots__ = ("_store", "hand", "open", "pod", "read", "session_id", "since", "through")

    def __init__(self, store: SessionStore, pod: str, session_id: str, through: int, since: int) -> None:
        self._store = store
        self.pod = pod
        self.session_id = session_id
        #: The last entry that counts, and the last that is not given.
        self.through = through
        self.since = since
        #: The number of the last entry that was read, and what was read and not given.
        self.read = 0
        self.hand: deque[_Next] = deque()
        #: The sub-agents whose logs are not at their ends, by the sessions that they began in.
        self.open: dict[str, _Log] = {}

    async def next(self) -> _Next | None:
        """The next entry, without taking it; None at the end."""
        while not self.hand and self.read < self.through:
            page = await entries_after(self._store, self.session_id, self.read, self.through, _PAGE)
            self.read = page[-1].seq if page else self.through
            self.hand.extend(_Next(entry_time(entry.body), entry) for entry in page)
        return self.hand[0] if self.hand else None


class PastTree:
    """What a subscription to a pod and its sub-agents replays first.

    Each log is read in its own order, a sub-agent's between its beginning and its end in the log of its
    parent, and parallel logs by the time of their entries. Sub-agents whose end was recorded at or before the
    requested number are left out; of the others, everything is replayed that is above their own number.
    """

    def __init__(
        self,
        store: SessionStore,
        pod: str,
        since: int | Mapping[str, int],
        started: Callable[[str], Awaitable[None]],
        living: Callable[[], dict[str, tuple[str, int]]],
    ) -> None:
        """``started`` waits for a pod that is being started; ``living`` gives the living pods of the tree,
        with their sessions and last durable entries.
        """
        self._store = store
        self._pod = pod
        self._since = {pod: since} if isinstance(since, int) else since
        self._started = started
        self._find_living = living
        self._living: dict[str, tuple[str, int]] = {}
        #: The logs that are being read, parents before their sub-agents.
        self._logs: list[_Log] = []
        self._begun = False

    async def begin(self) -> dict[str, int]:
        """The number up to which each pod's events will be replayed; "*" stands for pods that have ended,
        which are replayed entirely. Raises SessionNotFound, StoreError.
        """
        await self._started(self._pod)
        last = None if self._pod in self._find_living() else await last_session(self._store, self._pod)
        # In one moment for all, after the answers: what is published from here on is not among them.
        self._living = self._find_living()
        position = self._living.get(self._pod) or last or await last_session(self._store, self._pod)
        self._logs.append(self._log(self._pod, *position))
        through = {name: number for name, (_, number) in self._living.items()}
        return {"*": 1 << 62, self._pod: position[1], **through}

    def _log(self, pod: str, session_id: str, through: int) -> _Log:
        return _Log(self._store, pod, session_id, through, self._since.get(pod, 0))

    async def page(self) -> Iterable[StoredEntry | Lagged] | None:
        """The next entries, whether they are events or not; None if there are no more. Raises
        SessionError.
        """
        found: list[StoredEntry | Lagged] = []
        if not self._begun:
            self._begun = True
            found += await self._begin_log(self._logs[0])
        while len(found) < _PAGE and (log := await self._next_log()) is not None:
            entry = log.hand.popleft().entry
            if entry.seq > log.since:
                found.append(entry)
            if isinstance(event := _child_event(entry), ChildStarted):
                found += await self._open_child(log, event)
        return found or None

    async def _next_log(self) -> _Log | None:
        """The log whose next entry comes next; None if all are at their end."""
        best: _Log | None = None
        for log in reversed(self._logs):  # sub-agents before their parents, which may wait for them
            if (head := await log.next()) is None:
                self._close(log)
            elif not _is_held(log) and (best is None or head.at <= best.hand[0].at):
                best = log
        return best

    def _close(self, log: _Log) -> None:
        if log.open:  # its sub-agents have more to come
            return
        self._logs = [each for each in self._logs if each is not log]
        for other in self._logs:
            other.open = {session: each for session, each in other.open.items() if each is not log}

    # -- sub-agents --------------------------------------------------------------------------------

    async def _begin_log(self, log: _Log) -> list[Lagged]:
        """Skip what is not asked for, and begin with the sub-agents that were alive then. Returns what stands
        in for deleted entries.
        """
        found: list[Lagged] = []
        open_then: dict[str, ChildStarted] = {}
        _, missing = await spans_of(self._store, log.session_id, 0, log.through)
        if missing is not None:
            await log.next()
            open_then = {each.child_session: each for each in _taken_over(log.hand)}
            if missing.through > log.since:
                found.append(gone(log.pod, missing, log.since))
                log.since = missing.through
        while (head := await log.next()) is not None and head.entry.seq <= log.since:
            event = _child_event(log.hand.popleft().entry)
            if event is not None:
                open_then.pop(event.child_session, None)
            if isinstance(event, ChildStarted):
                open_then[event.child_session] = event
        for started in open_then.values():
            found += await self._open_child(log, started)
        return found

    async def _open_child(self, parent: _Log, started: ChildStarted) -> list[Lagged]:
        """Read the log of a sub-agent from here on; returns what stands in for it if it was deleted."""
        name, began = started.child, started.child_session
        living = self._living.get(name)
        try:
            if living is None or not await self._goes_on_from(living, began):
                session_id = await tip(self._store, began)
                living = session_id, (await settled(self._store.info(session_id))).head.seq
        except SessionNotFound:
            return [Lagged(name, began, 0, time.time(), missed=0, since=0, deleted=True)]
        if any(log.session_id == living[0] for log in self._logs):  # somebody has written a log within itself
            return []
        child = parent.open[began] = self._log(name, *living)
        place = self._logs.index(parent) + 1
        self._logs = [*self._logs[:place], child, *self._logs[place:]]
        return await self._begin_log(child)

    async def _goes_on_from(self, position: tuple[str, int], session_id: str) -> bool:
        """Whether a living pod has that session, or one that continues it."""
        if position[0] == session_id:
            return True
        spans, _ = await spans_of(self._store, position[0], 0, position[1])
        return any(span.session_id == session_id for span in spans)


def _child_event(entry: StoredEntry) -> ChildStarted | ChildEnded | None:
    """The beginning or the end of a sub-agent, where the entry is one."""
    if event_kind(entry.body) not in {ChildStarted, ChildEnded}:
        return None
    event = decode_event(entry.body)
    assert isinstance(event, ChildStarted | ChildEnded)
    return event


def _is_held(log: _Log) -> bool:
    """Whether the next entry is the end of a sub-agent that has more to come."""
    if not log.open:
        return False
    event = _child_event(log.hand[0].entry)
    return isinstance(event, ChildEnded) and event.child_session in log.open


def _taken_over(hand: Iterable[_Next]) -> tuple[ChildStarted, ...]:
    """The sub-agents that were alive where the oldest existing session began."""
    first = next((decode_entry(each.entry.body) for each in hand), None)
    return first.children.open if isinstance(first, SessionOpened) else ()
