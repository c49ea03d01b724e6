"""``PastEvents``: reads past events from a store, page by page, for subscriptions with ``since``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from actors.pod.session.restore import sessions_of
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from protocol.entries import StoredEntry
from protocol.errors import SessionNotFound
from protocol.events import Lagged

#: Entries that are read at a time.
_PAGE = 200


class Span(NamedTuple):
    """A session, and the last of its entries that counts."""

    session_id: str
    through: int


class Missing(NamedTuple):
    """An ancestor that no longer exists, and the number of the last entry that it would have contributed."""

    session_id: str
    through: int


class _Log:
    """How far the log of one pod has been replayed."""

    __slots__ = ("begun", "pod", "session_id", "since", "through")

    def __init__(self, pod: str, session_id: str, since: int, through: int) -> None:
        self.pod = pod
        self.session_id = session_id
        self.since = since
        self.through = through
        self.begun = False


class PastEvents:
    """What a subscription replays first: everything durable of some pods above the numbers given."""

    def __init__(
        self,
        store: SessionStore,
        since: dict[str, int],
        started: Callable[[str], Awaitable[None]],
        position: Callable[[str], tuple[str, int] | None],
    ) -> None:
        """``started`` waits for a pod that is being started; ``position`` gives the session of a living pod,
        and its last durable entry.
        """
        self._store = store
        self._since = since
        self._started = started
        self._position = position
        self._logs: deque[_Log] = deque()

    async def begin(self) -> dict[str, int]:
        """The number up to which each pod's events will be replayed. Raises SessionNotFound, StoreError."""
        last: dict[str, tuple[str, int]] = {}
        for name in self._since:
            await self._started(name)
            if self._position(name) is None:
                last[name] = await last_session(self._store, name)
        # In one moment for all, after the answers: what is published from here on is not among them.
        for name, since in self._since.items():
            session_id, through = (
                self._position(name) or last.get(name) or await last_session(self._store, name)
            )
            self._logs.append(_Log(name, session_id, since, through))
        return {log.pod: log.through for log in self._logs}

    async def page(self) -> Iterable[StoredEntry | Lagged] | None:
        """The next entries, whether they are events or not; None if there are no more. Raises
        SessionError.
        """
        while self._logs:
            page = await self._next(self._logs[0])
            if page:
                return page
            self._logs.popleft()
        return None

    async def _next(self, log: _Log) -> Sequence[StoredEntry | Lagged]:
        if not log.begun:
            log.begun = True
            _, missing = await spans_of(self._store, log.session_id, log.since, log.through)
            if missing is not None:
                marker = gone(log.pod, missing, log.since)
                log.since = missing.through
                return [marker]
        if log.since >= log.through:
            return []
        page = await entries_after(self._store, log.session_id, log.since, log.through, _PAGE)
        if page:
            log.since = page[-1].seq
        return page


async def last_session(store: SessionStore, name: str) -> tuple[str, int]:
    """The last session of a pod that is not alive, and its last entry. Raises SessionNotFound."""
    sessions = await sessions_of(store, name, limit=1)
    if sessions:
        return sessions[0].session_id, sessions[0].head.seq
    raise SessionNotFound(f"no pod or session named {name!r}", hint="list the sessions with polypod ps")


def gone(pod: str, missing: Missing, since: int) -> Lagged:
    """What a replay shows in place of the events of a deleted session."""
    return Lagged(
        pod=pod,
        session_id=missing.session_id,
        seq=missing.through,
        at=time.time(),
        missed=missing.through - since,
        since=missing.through,
        deleted=True,
    )


async def spans_of(
    store: SessionStore, session_id: str, since: int, through: int
) -> tuple[list[Span], Missing | None]:
    """The sessions that hold the entries above ``since`` and up to ``through``, oldest existing ancestor
    first, and which of these entries no longer exist. Raises SessionNotFound if the session itself is gone.
    """
    spans, parent = [Span(session_id, through)], (await settled(store.info(session_id))).parent
    # A session begins behind its parent's entries: one that does not was written by somebody, and may be its
    # own ancestor.
    while parent is not None and since < parent.at_seq < spans[-1].through:
        try:
            older = await settled(store.info(parent.session_id))
        except SessionNotFound:
            return spans[::-1], Missing(parent.session_id, parent.at_seq)
        spans.append(Span(parent.session_id, parent.at_seq))
        parent = older.parent
    return spans[::-1], None


async def entries_after(
    store: SessionStore, session_id: str, since: int, through: int, limit: int
) -> list[StoredEntry]:
    """The entries numbered above ``since`` and up to ``through``, at most ``limit``; those of parents come
    first, as far back as there are any.
    """
    spans, missing = await spans_of(store, session_id, since, through)
    after, found = since if missing is None else max(since, missing.through), list[StoredEntry]()
    for session, last in spans:
        while after < last and len(found) < limit:
            page = await settled(store.read(session, after=after, limit=limit - len(found)))
            entries = [entry for entry in page if entry.seq <= last]
            found += entries
            after = entries[-1].seq if entries else last
    return found
