"""Restores a history from a store, in slices that let the event loop run in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Literal

from actors.runtime.in_thread import in_thread
from actors.sessions.answers import settled
from actors.sessions.chain import head_of, verified
from actors.sessions.head import spellings
from actors.sessions.replay import Replayed
from actors.sessions.store import SessionInfo, SessionStore
from protocol.agents import spec_of
from protocol.entries import Head, SessionOpened, StoredEntry
from protocol.errors import (
    NewerVersion,
    SessionCorrupt,
    SessionError,
    SessionNotFound,
    UnknownEntry,
    WireError,
)
from protocol.events import Activity, RunEnd, RunOutcome, RunStart
from protocol.wire import decode_entry

#: Entries, or bytes of them, that are read, checked and folded before others get their turn; about 2 ms.
_SLICE = 500
_SLICE_BYTES = 400 << 10
#: Bytes of an entry that is read and hashed in a thread. It is decoded on the loop: a decoder keeps the
#: interpreter to itself to its end, in whatever thread.
_LARGE = 1 << 20
#: Entries read at a time to look for the last run's end, and what the bytes of those that have it contain.
_TAIL = 50
_OF_RUNS = (b'"RunEnd"', b'"RunStart"', b'"SessionOpened"')
#: Entries with which a branch begins at most, up to the one that says so, and what that one contains.
_BEGINNING, _OF_BRANCHES = 4, b'"type":"SessionForked"'
#: Entries of the first slice, before anything is known of their size.
_FIRST = 2


async def restore(store: SessionStore, session_id: str, until: bytes | None = None) -> tuple[Replayed, Head]:
    """The session's state and head, with its chain checked; ``until`` ends it at the entry with that hash.
    Raises SessionNotFound, SessionCorrupt, StoreError, UnknownEntry.
    """
    state, head, limit = Replayed(), None, _FIRST
    while True:
        after = 0 if head is None else head.seq
        answer = store.read_small(session_id, after=after, limit=limit, largest=_LARGE)
        page = await settled(answer)
        if page is None:  # the next entry is read and hashed beside the loop
            if isinstance(answer, Awaitable):
                page = await settled(store.read(session_id, after=after, limit=1))
            else:
                page = await settled(await in_thread(store.read, session_id, after=after, limit=1))
            await in_thread(verified, session_id, page, head)
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
        raise UnknownEntry(
            f"session {session_id} has no entry with hash {until.hex()}",
            hint=f"list its entries with polypod log {session_id}",
        )
    if head is None:
        raise SessionCorrupt(session_id, 1, "it has no entries")
    return state, head


def _place(page: Sequence[StoredEntry], wanted: bytes) -> int | None:
    """The position of the entry with that hash."""
    return next((index for index, entry in enumerate(page) if entry.hash == wanted), None)


async def tip(store: SessionStore, session_id: str) -> str:
    """The session in which another continues: the last in its line of compactions, and of the branches that
    its pods made when it was cut off under them.

    If somebody has written a store in which such a line leads back to itself, there is no last one, and the
    session itself is returned.
    """
    first, line = session_id, {session_id}
    while children := await settled(store.successors(session_id)):
        compacted = [each for each in children if each.parent and each.parent.kind == "compacted_from"]
        last = compacted[-1] if compacted else await _rescue(store, session_id, children)
        if last is None:
            break
        session_id = last.session_id
        if session_id in line:
            return first
        line.add(session_id)
    return session_id


async def _rescue(
    store: SessionStore, session_id: str, branches: Sequence[SessionInfo]
) -> SessionInfo | None:
    """The last branch in which a pod continued after it found its session shorter than it had left it."""
    try:
        end = (await settled(store.info(session_id))).head.seq
    except SessionError:  # it was deleted, or who reads it finds out what is wrong with it
        return None
    for branch in reversed(branches):
        if branch.parent is not None and branch.parent.at_seq > end:
            page = await settled(store.read(branch.session_id, limit=_BEGINNING))
            if any(_OF_BRANCHES in entry.body for entry in page):  # a fork is recorded in the other session
                return branch
    return None


async def last_run(store: SessionStore, info: SessionInfo) -> RunOutcome | Literal["open", "none"]:
    """How the last run of a session ended: ``open`` if it has no end, ``none`` if there was no run. Raises
    SessionCorrupt where damage may hide that, WireError.
    """
    session_id, through = info.session_id, info.head.seq
    begin = 0 if info.parent is None else info.parent.at_seq
    check_end(info, through)
    while through > begin:
        after = max(through - _TAIL, begin)
        before = None if after == begin else await _between(store, session_id, after - 1, after)
        page = await _between(store, session_id, after, through)
        if (found := last_run_in(session_id, page, head_of(before) if before else None)) is not None:
            return found
        through = after
    return "none"


async def _between(store: SessionStore, session_id: str, after: int, through: int) -> list[StoredEntry]:
    """The entries with numbers above ``after`` up to ``through``. Raises SessionCorrupt where they end
    before.
    """
    found: list[StoredEntry] = []
    while after < through:
        page = await settled(store.read(session_id, after=after, limit=_TAIL))
        if not page or page[0].seq > through:
            raise SessionCorrupt(session_id, through, "the entry is missing")
        found += [each for each in page if each.seq <= through]
        after = page[-1].seq
    return found


def check_end(info: SessionInfo, seq: int) -> None:
    """Raise SessionCorrupt where a session that was read to the entry ``seq`` does not end there, or its last
    row does not say where it ends.
    """
    if not info.head.seq or seq < info.head.seq:
        raise SessionCorrupt(info.session_id, seq + 1, "the entry cannot be read")


def last_run_in(
    session_id: str, page: Sequence[StoredEntry], before: Head | None = None
) -> RunOutcome | Literal["open"] | None:
    """How the last run ended of which these entries of a session speak, behind the entry ``before``; None
    where they speak of none. Raises SessionCorrupt where the chain is broken from there on, WireError.
    """
    at, found = len(page), None
    while at and found is None:
        at -= 1
        found = _run_word(page[at])
    verified(session_id, page[at:], head_of(page[:at]) if at else before)
    return found


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
    """Those of the most recently changed sessions whose last run can be resumed and that nobody holds."""
    found: list[SessionInfo] = []
    for info in await sessions_of(store, pod, limit):
        await asyncio.sleep(0)
        try:
            waits = await last_run(store, info) in {"open", "paused"}
            waits = waits and await settled(store.holder(info.session_id)) is None
            waits = waits and await tip(store, info.session_id) == info.session_id
            if waits and await _is_pod(store, info.session_id):
                found.append(info)
        except (SessionNotFound, SessionCorrupt, WireError):  # deleted or damaged: a resume would say so
            continue
    return found


async def sessions_of(store: SessionStore, pod: str | None, limit: int | None) -> list[SessionInfo]:
    """The sessions of a pod (None: of all), however its name is written, most recently changed first."""
    if pod is None or len(names := spellings(pod)) == 1:
        return await settled(store.sessions(pod=pod, limit=limit))
    found = [each for name in names for each in await settled(store.sessions(pod=name, limit=limit))]
    return sorted(found, key=lambda info: info.updated_at, reverse=True)[:limit]


async def _is_pod(store: SessionStore, session_id: str) -> bool:
    """Whether a session belongs to a pod rather than to an agent, which a swarm resumes."""
    page = await settled(store.read(session_id, limit=1))
    opened = decode_entry(page[0].body) if page else None
    return not isinstance(opened, SessionOpened) or spec_of(opened.manifest) is None


async def activities_left(store: SessionStore, session_id: str, state: Replayed) -> tuple[Activity, ...]:
    """What was started in a session that was read back, and ended nowhere.

    A compaction that succeeded has recorded its end in the session that it led to.
    """
    left = state.open
    if "compaction" in left and await tip(store, session_id) != session_id:
        left = tuple(each for each in left if each != "compaction")
    return left
