"""Finds the calls of a session that wait for approval, whoever holds it, by reading its log backwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.pod.session.restore import tip
from actors.sessions.answers import settled
from actors.sessions.approvals import NO_APPROVALS, Approvals
from actors.sessions.store import SessionInfo, SessionStore
from protocol.entries import Entry, OtherEntry, SessionOpened
from protocol.events import ApprovalRequested, ApprovalResolved, PodStarted, RunEnd, RunStart
from protocol.wire import decode_entry

#: Entries of the first page, which most often has the end of the last run, and of each that follows.
_FIRST, _PAGE = 8, 100
#: What the bytes of entries of runs and approvals contain; the others are not decoded.
_MARKS = tuple(
    b'"%s"' % kind.__name__.encode()
    for kind in (ApprovalRequested, ApprovalResolved, PodStarted, RunEnd, RunStart, SessionOpened)
)


async def open_requests(store: SessionStore, info: SessionInfo) -> tuple[ApprovalRequested, ...]:
    """The calls of a session that wait for approval; none if another session continues it. Forms that were
    asked in an earlier life of its pod are not included. Raises SessionError, WireError.
    """
    found: list[ApprovalRequested | ApprovalResolved] = []
    state, started_again = NO_APPROVALS, False
    # Closed here, since the loop would be woken to close each that is not read to its end.
    async with aclosing(_backwards(store, info)) as entries:
        async for entry in entries:
            if isinstance(entry, ApprovalRequested) and entry.form is not None and started_again:
                continue  # whoever asked by a form is gone, with its process
            if isinstance(entry, ApprovalRequested | ApprovalResolved):
                found.append(entry)
            elif isinstance(entry, PodStarted):
                started_again = True
            elif isinstance(entry, RunEnd) and entry.outcome != "paused":
                return ()
            elif isinstance(entry, SessionOpened):
                state = Approvals(entry.waiting)
                break
            elif isinstance(entry, RunStart) and entry.reason != "resume":  # else older questions wait too
                break
    for event in reversed(found):
        state = state.after(event)
    return state.open if state.open and await tip(store, info.session_id) == info.session_id else ()


async def resolution(
    store: SessionStore, request: ApprovalRequested, info: SessionInfo
) -> ApprovalResolved | None:
    """How a call was answered after the point that ``info`` describes. Raises SessionError, WireError."""
    for stored in await settled(store.read(info.session_id, after=info.head.seq)):
        if _MARKS[1] in stored.body:
            entry = decode_entry(stored.body)
            if isinstance(entry, ApprovalResolved) and entry.approval_id == request.approval_id:
                return entry
    return None


async def _backwards(store: SessionStore, info: SessionInfo) -> AsyncGenerator[Entry | OtherEntry, None]:
    """The entries of a session that concern its last run, the last one first."""
    through, size = info.head.seq, _FIRST
    while through > 0:
        after = max(through - size, 0)
        page = [
            each
            for each in await settled(store.read(info.session_id, after=after, limit=size))
            if each.seq <= through
        ]
        for stored in reversed(page):
            if any(word in stored.body for word in _MARKS):
                yield decode_entry(stored.body)
        if not page or page[0].seq > after + 1:  # the session's first entry: a child's is not number 1
            return
        through, size = after, _PAGE
