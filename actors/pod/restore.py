"""From a store back to a history, in slices that leave the loop its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from actors.sessions.chain import verified
from actors.sessions.replay import Replayed
from actors.sessions.store import SessionInfo, SessionStore
from protocol.entries import Head, SessionOpened, StoredEntry
from protocol.errors import NewerVersion, SessionCorrupt, SessionNotFound, UnknownEntry, WireError
from protocol.events import Activity, DurableEvent, RunEnd, RunOutcome, RunStart
from protocol.wire import decode_entry

#: Entries, or bytes of them, that are read, checked and folded before others get their turn; about 2 ms.
_SLICE = 500
_SLICE_BYTES = 400 << 10
#: Bytes of an entry that is read and hashed in a thread. It is decoded on the loop: a decoder keeps the
#: interpreter to itself to its end, in whatever thread.
_LARGE = 1 << 20
#: Entries read at a time where the last run's end is looked for, and what those that tell of it have in them.
_TAIL = 50
_OF_RUNS = (b'"RunEnd"', b'"RunStart"', b'"SessionOpened"')
#: Entries of the first slice, before anything is known of their size.
_FIRST = 2


class Span(NamedTuple):
    """A session, and its last entry that counts."""

    session_id: str
    through: int


class Missing(NamedTuple):
    """An ancestor that is there no more, and the last entry that it would have told."""

    session_id: str
    through: int


async def restore(store: SessionStore, session_id: str, until: bytes | None = None) -> tuple[Replayed, Head]:
    """The session's state and head, its chain checked; only ``until`` the entry with that hash.

    Raises SessionNotFound, SessionCorrupt, StoreError, UnknownEntry.
    """
    state, head, limit = Replayed(), None, _FIRST
    while True:
        after = 0 if head is None else head.seq
        page = store.read_small(session_id, after=after, limit=limit, largest=_LARGE)
        if page is None:
            page = await asyncio.to_thread(_read_large, store, session_id, after, head)
        elif page:
            verified(session_id, page, head)
        else:
            break
        size = sum([len(entry.body) for entry in page])
        limit = max(1, min(_SLICE, _SLICE_BYTES * len(page) // size))
        found = None if until is None else _place(page, until)
        page = page if found is None else page[: found + 1]
        try:
            state.read(page)
        except NewerVersion as error:
            raise error.of(session_id, state.seq) from error
        except WireError as error:
            raise SessionCorrupt(session_id, state.seq, str(error)) from error
        head = Head(page[-1].seq, page[-1].hash)
        if found is not None:
            return state, head
        await asyncio.sleep(0)
    if until is not None:
        raise UnknownEntry(f"session {session_id} has no entry with hash {until.hex()}", hint="see its log")
    if head is None:
        raise SessionCorrupt(session_id, 1, "it has no entries")
    return state, head


def _read_large(store: SessionStore, session_id: str, after: int, head: Head | None) -> list[StoredEntry]:
    """The next entry, checked: one that is read and hashed beside the loop."""
    page = store.read(session_id, after=after, limit=1)
    verified(session_id, page, head)
    return page


def _place(page: Sequence[StoredEntry], wanted: bytes) -> int | None:
    """Where the entry with that hash stands."""
    return next((index for index, entry in enumerate(page) if entry.hash == wanted), None)


def tip(store: SessionStore, session_id: str) -> str:
    """Where a session goes on after its compactions: the last successor in line."""
    while compacted := [
        each
        for each in store.successors(session_id)
        if each.parent is not None and each.parent.kind == "compacted_from"
    ]:
        session_id = compacted[-1].session_id
    return session_id


def spans_of(
    store: SessionStore, session_id: str, since: int, through: int
) -> tuple[list[Span], Missing | None]:
    """The sessions that hold the entries above ``since`` and up to ``through``, the oldest ancestor that is
    there first; and what of it is there no more. Raises SessionNotFound where the session itself is gone.
    """
    spans, parent = [Span(session_id, through)], store.info(session_id).parent
    while parent is not None and parent.at_seq > since:
        try:
            older = store.info(parent.session_id)
        except SessionNotFound:
            return spans[::-1], Missing(parent.session_id, parent.at_seq)
        spans.append(Span(parent.session_id, parent.at_seq))
        parent = older.parent
    return spans[::-1], None


def last_run(store: SessionStore, info: SessionInfo) -> RunOutcome | Literal["open", "none"]:
    """How the last run of a session ended: ``open`` if it has no end, ``none`` if there was no run."""
    through = info.head.seq
    while through > 0:
        after = max(through - _TAIL, 0)
        page = [each for each in store.read(info.session_id, after=after, limit=_TAIL) if each.seq <= through]
        for entry in reversed(page):
            if (found := _run_word(entry)) is not None:
                return found
        if not page or page[0].seq > after + 1:  # the session's first entry: a child's is not number 1
            break
        through = after
    return "none"


def _run_word(entry: StoredEntry) -> RunOutcome | Literal["open"] | None:
    if not any(word in entry.body for word in _OF_RUNS):
        return None  # nearly all entries, spared the decoding
    decoded = decode_entry(entry.body)
    if isinstance(decoded, RunEnd):
        return decoded.outcome
    if isinstance(decoded, RunStart) or (isinstance(decoded, SessionOpened) and decoded.run_id is not None):
        return "open"
    return None


async def interrupted(store: SessionStore, pod: str | None, limit: int) -> list[SessionInfo]:
    """Those of the last changed sessions whose last run can be resumed, and that nobody holds."""
    found: list[SessionInfo] = []
    for info in store.sessions(pod=pod, limit=limit):
        await asyncio.sleep(0)
        try:
            waits = last_run(store, info) in {"open", "paused"} and store.holder(info.session_id) is None
            if waits and tip(store, info.session_id) == info.session_id:
                found.append(info)
        except (SessionNotFound, WireError):  # deleted meanwhile, or damaged: a resume would say so
            continue
    return found


def activities_left(store: SessionStore, session_id: str, state: Replayed) -> tuple[Activity, ...]:
    """What was started in a session that was read back, and ended nowhere. A compaction that succeeded
    has told its end in the session that it led to.
    """
    left = state.open
    if "compaction" in left and tip(store, session_id) != session_id:
        left = tuple(each for each in left if each != "compaction")
    return left


def events_after(store: SessionStore, session_id: str, since: int, through: int) -> Iterator[DurableEvent]:
    """The durable events numbered above ``since`` and up to ``through``, those of parents first, as far
    back as there are any.
    """
    spans, missing = spans_of(store, session_id, since, through)
    since = since if missing is None else max(since, missing.through)
    for session, last in spans:
        yield from _events(store, session, since, last)


def _events(store: SessionStore, session_id: str, since: int, through: int) -> Iterator[DurableEvent]:
    after = since
    while page := store.read(session_id, after=after, limit=_SLICE):
        for entry in page:
            if entry.seq > through:
                return
            after = entry.seq
            event = _as_event(entry)
            if event is not None:
                yield event


def _as_event(entry: StoredEntry) -> DurableEvent | None:
    decoded = decode_entry(entry.body)
    return decoded if isinstance(decoded, DurableEvent) else None
