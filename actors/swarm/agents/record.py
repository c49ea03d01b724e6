"""``Record``: an agent's session: what is recorded in it is committed, and only then published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from actors.sessions.answers import Kept, durable, release_and_wait, settled
from actors.sessions.chain import verified
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from protocol.entries import GENESIS, Entry, Head, OtherEntry
from protocol.events import DurableEvent, Event, RunEnd, RunStart
from protocol.wire import decode_entry

E = TypeVar("E", bound=Event)
#: Entries that are read at a time.
_PAGE = 200


def unplaced(kind: type[E], run_id: str | None = None, **fields: Any) -> E:
    """An event of ``kind``, of now, that has no place in a session yet: ``Record`` gives it one."""
    return kind("", "", 0, time.time(), run_id, **fields)


class Record:
    """The one writer of an agent's session. Commits go one behind the other; one that is under way is awaited
    to its end, whoever is cancelled meanwhile.
    """

    def __init__(self, store: SessionStore, agent_id: str, publish: Callable[..., None]) -> None:
        self._store = store
        self._log = SessionLog(store, agent_id, SessionHead(new_session_id()), publish)
        self._lock = asyncio.Lock()

    @property
    def session_id(self) -> str:
        """The agent's session."""
        return self._log.head.session_id

    @property
    def durable_seq(self) -> int:
        """The number of its last entry that is kept."""
        return self._log.durable_seq

    async def create(self, opening: Raw) -> None:
        """Make the session, claimed for this process. Raises SessionError."""
        self._log.open(opening)
        await self._finish(self._log.create())

    async def claim(self, session_id: str) -> list[Entry | OtherEntry]:
        """Take a session that is there, and give what it says. Raises SessionError, WireError."""
        await settled(self._store.claim(session_id, self._log.pod))
        try:
            head, open_run, entries = Head(0, GENESIS), None, list[Entry | OtherEntry]()
            async for page, end in read_pages(self._store, session_id):
                entries, head = entries + page, end
            for entry in entries:
                open_run = _open_run(open_run, entry)
        except BaseException:
            await release_and_wait(self._store, session_id, 1.0)
            raise
        self._log.stand_at(session_id, head, [], None, open_run)
        return entries

    @property
    def open_run(self) -> str | None:
        """The run that has begun and not ended."""
        return self._log.head.open_run

    async def add(self, events: Iterable[DurableEvent]) -> list[DurableEvent]:
        """Record events, with their place in the session filled in: they are published once they are durable.
        Gives them as they were recorded. Raises SessionError: then none of them is.
        """
        async with self._lock:
            log, added = self._log, list[DurableEvent]()
            for event in events:
                placed = replace(event, pod=log.pod, session_id=self.session_id, seq=log.head.seq + 1)
                log.add(placed)
                added.append(placed)
            if added:
                await self._finish(log.commit())
            return added

    def publish(self, event: Event) -> Event:
        """Publish a transient event, with its place filled in."""
        log = self._log
        placed = replace(event, pod=log.pod, session_id=self.session_id, seq=log.durable_seq)
        log.publish_transient(placed)
        return placed

    async def _finish(self, kept: Kept) -> None:
        """Wait until what was given to the store is durable. Raises SessionError."""
        cancelled = False
        if kept is not None:
            pending = durable(kept)
            cancelled = await _wait_out(pending)
            try:
                pending.result()
            except BaseException:
                self._log.roll_back()
                raise
            self._log.confirm()
        self._log.drop_items()
        if cancelled:
            raise asyncio.CancelledError

    async def release(self) -> None:
        """Let another have the session."""
        await release_and_wait(self._store, self.session_id, 1.0)


async def read_pages(
    store: SessionStore, session_id: str, after: int = 0
) -> AsyncIterator[tuple[list[Entry | OtherEntry], Head]]:
    """A session's entries page by page, each with where it ends, its chain checked. Raises SessionError,
    WireError.
    """
    head: Head | None = None
    while page := await settled(
        store.read(session_id, after=after if head is None else head.seq, limit=_PAGE)
    ):
        if head is not None or after == 0:
            verified(session_id, page, head)
        head = Head(page[-1].seq, page[-1].hash)
        yield [decode_entry(each.body) for each in page], head
        await asyncio.sleep(0)


def _open_run(open_run: str | None, entry: Entry | OtherEntry) -> str | None:
    if isinstance(entry, RunStart):
        return entry.run_id
    if isinstance(entry, RunEnd) and entry.outcome != "paused":
        return None
    return open_run


async def _wait_out(pending: asyncio.Future[None]) -> bool:
    """Wait until a commit is over, and give whether who waits was cancelled meanwhile."""
    cancelled = False
    while not pending.done():
        try:
            await asyncio.wait((pending,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
