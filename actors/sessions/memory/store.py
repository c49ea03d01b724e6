"""``MemoryStore``: keeps sessions in the memory of the process; the simplest implementation of a session
store.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

from actors.sessions.store import (
    Claim,
    Holder,
    SessionInfo,
    SessionStore,
    check_follows,
    in_use,
    not_found,
    this_process,
)
from protocol.entries import Head, Parent, StoredEntry
from protocol.errors import HeadConflict


class _Session(Struct, gc=False):
    pod: str
    parent: Parent | None
    entries: list[StoredEntry]
    created_at: float
    updated_at: float
    #: The store's count of batches at this session's last one.
    written: int
    #: The pod that holds it; None if nobody does.
    claimed_for: str | None = None
    claimed_at: float = 0.0
    generation: int = 0

    @property
    def head(self) -> Head:
        last = self.entries[-1]
        return Head(last.seq, last.hash)

    def claim(self, pod: str, at: float) -> None:
        self.generation += 1
        self.claimed_for, self.claimed_at = pod, at

    @property
    def holder(self) -> Holder | None:
        if self.claimed_for is None:
            return None
        return this_process(self.claimed_for, self.claimed_at)


class MemoryStore(SessionStore):
    """Sessions in this process alone; they end with it."""

    url = "memory:"

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        #: What deleted sessions had been compacted from.
        self._gone: dict[str, str] = {}
        self._written = 0

    def create(
        self,
        session_id: str,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool = True,
    ) -> None:
        if session_id in self._sessions:
            raise HeadConflict(f"session {session_id} already exists")
        now = time.time()
        written = self._written = self._written + 1
        session = self._sessions[session_id] = _Session(pod, parent, list(batch), now, now, written)
        if claim:
            session.claim(pod, now)

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        session = self._sessions.get(session_id) or self._session(session_id)
        if session.claimed_for is None:
            session.claim("", time.time())
        if not batch:
            return
        entries = session.entries
        last, seq = entries[-1], after.seq
        if last.hash != after.hash or last.seq != seq or batch[0].seq != seq + 1:
            check_follows(session_id, session.head, after, batch)
        entries.extend(batch)
        session.updated_at = time.time()
        session.written = self._written = self._written + 1

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        entries = self._session(session_id).entries
        start = max(0, after - entries[0].seq + 1)
        return entries[start:] if limit is None else entries[start : start + limit]

    def info(self, session_id: str) -> SessionInfo:
        session = self._session(session_id)
        return SessionInfo(
            session_id, session.pod, session.created_at, session.updated_at, session.head, session.parent
        )

    def sessions(self, *, pod: str | None = None, limit: int | None = None) -> list[SessionInfo]:
        found = [(each.written, key) for key, each in self._sessions.items() if pod in {None, each.pod}]
        return [self.info(key) for _, key in sorted(found, reverse=True)[:limit]]

    def successors(self, session_id: str) -> list[SessionInfo]:
        line = [session_id]
        for earlier in line:  # the list grows meanwhile
            line += [gone for gone, parent in self._gone.items() if parent == earlier and gone not in line]
        return [
            self.info(key)
            for key, each in self._sessions.items()
            if each.parent is not None and each.parent.session_id in line
        ]

    def claim(self, session_id: str, pod: str) -> Claim:
        session = self._session(session_id)
        if (holder := session.holder) is not None and holder.pod:
            raise in_use(session_id, holder)
        session.claim(pod, time.time())
        return Claim(session_id, pod, session.generation)

    def release(self, session_id: str) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.claimed_for = None

    def holder(self, session_id: str) -> Holder | None:
        return self._session(session_id).holder

    def delete(self, session_id: str) -> None:
        session = self._session(session_id)
        if session.holder is not None:
            raise in_use(session_id, session.holder)
        if session.parent is not None and session.parent.kind == "compacted_from":
            self._gone[session_id] = session.parent.session_id
        del self._sessions[session_id]

    def close(self) -> None:
        for session in self._sessions.values():
            session.claimed_for = None

    def _session(self, session_id: str) -> _Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise not_found(session_id, self.url) from None
