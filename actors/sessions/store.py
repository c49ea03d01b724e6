"""The contract of session stores, and the memory store as its plainest reading."""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from msgspec import Struct

from protocol.entries import Head, Parent, StoredEntry
from protocol.errors import HeadConflict, SessionNotFound

Durability = Literal["process", "power"]


class SessionInfo(Struct, frozen=True):
    """What a listing tells of a session; ``updated_at`` is seconds since the epoch, UTC."""

    session_id: str
    pod: str
    created_at: float
    updated_at: float
    head: Head
    parent: Parent | None = None


class SessionStore(abc.ABC):
    """Where session logs are kept.

    All methods are called on the event loop of one system and return at once (under 5 ms); a store
    that must wait for a disk answers ``create`` and ``append`` with a future. Entries come hashed and
    are kept as the bytes they are. Failures are StoreError (or its kin) and leave nothing half-written:
    a batch is kept whole or not at all.
    """

    #: What the store is called in a URL and in messages: ``memory:``, ``sqlite:pods.db``.
    url: str

    @abc.abstractmethod
    def create(
        self, session_id: str, pod: str, parent: Parent | None, batch: Sequence[StoredEntry]
    ) -> Future[None] | None:
        """Make a session with its first entries in one transaction.

        Returns None when it is durable, or a future that resolves when it is.
        """

    @abc.abstractmethod
    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        """Add entries behind ``after``, the head the caller knows: compare-and-swap.

        Returns None when they are durable, or a future that resolves when they are. Raises (or
        resolves with) HeadConflict where the session's head is another, SessionNotFound, StoreError.
        """

    @abc.abstractmethod
    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        """The entries with numbers above ``after``, in order, at most ``limit``.

        Raises SessionNotFound. The chain is not checked here: see ``chain.verified``.
        """

    @abc.abstractmethod
    def info(self, session_id: str) -> SessionInfo:
        """What is known of one session. Raises SessionNotFound."""

    @abc.abstractmethod
    def sessions(self, *, pod: str | None = None) -> list[SessionInfo]:
        """All sessions (of one pod), the last changed one first."""

    @abc.abstractmethod
    def successors(self, session_id: str) -> list[SessionInfo]:
        """The sessions whose parent this one is, oldest first."""

    def flush(self) -> None:
        """Wait until all that was given is durable; called off the loop, at exit."""

    def close(self) -> None:
        """Flush and let go of files; idempotent."""


class _Session:
    __slots__ = ("created_at", "entries", "parent", "pod", "updated_at")

    def __init__(self, pod: str, parent: Parent | None, at: float) -> None:
        self.pod = pod
        self.parent = parent
        self.created_at = at
        self.updated_at = at
        self.entries: list[StoredEntry] = []


class MemoryStore(SessionStore):
    """Sessions in this process alone; they end with it."""

    url = "memory:"

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    def create(self, session_id: str, pod: str, parent: Parent | None, batch: Sequence[StoredEntry]) -> None:
        if session_id in self._sessions:
            raise HeadConflict(f"session {session_id} exists already")
        session = _Session(pod, parent, time.time())
        session.entries.extend(batch)
        self._sessions[session_id] = session

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        session = self._session(session_id)
        last = session.entries[-1]
        if last.seq != after.seq or last.hash != after.hash:
            raise HeadConflict(f"session {session_id} has moved on to entry {last.seq}")
        session.entries.extend(batch)
        session.updated_at = time.time()

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        entries = self._session(session_id).entries
        start = max(0, after - entries[0].seq + 1)
        return entries[start:] if limit is None else entries[start : start + limit]

    def info(self, session_id: str) -> SessionInfo:
        session = self._session(session_id)
        last = session.entries[-1]
        return SessionInfo(
            session_id,
            session.pod,
            session.created_at,
            session.updated_at,
            Head(last.seq, last.hash),
            session.parent,
        )

    def sessions(self, *, pod: str | None = None) -> list[SessionInfo]:
        found = (self.info(key) for key, each in self._sessions.items() if pod in {None, each.pod})
        return sorted(found, key=lambda info: info.updated_at, reverse=True)

    def successors(self, session_id: str) -> list[SessionInfo]:
        return [
            self.info(key)
            for key, each in self._sessions.items()
            if each.parent is not None and each.parent.session_id == session_id
        ]

    def _session(self, session_id: str) -> _Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise SessionNotFound(
                f"no session {session_id} in {self.url}", hint="list the sessions there are"
            ) from None


def open_store(url: str) -> SessionStore:
    return MemoryStore()
