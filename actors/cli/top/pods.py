"""The pods of a store as rows beside agents, and what is recorded of one; read in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress

from actors.cli.approvals.answers import keep_answer, require_person
from actors.cli.sessions.inspect import Stand, last_words, stand_of
from actors.cli.sessions.store_reader import Reading
from actors.cli.swarm.rows import Row
from actors.sessions.store import SessionInfo
from protocol.agents import AgentStatus
from protocol.approval import ApprovalAnswer
from protocol.entries import Entry, OtherEntry
from protocol.errors import SessionCorrupt, SessionNotFound, WireError
from protocol.wire import decode_entry

#: Sessions that are listed, and seconds between two looks at what is new in one.
_LISTED, _LOOK = 10, 0.5
_STATUSES: dict[str, AgentStatus] = {
    "finished": "done",
    "failed": "failed",
    "cancelled": "killed",
    "limit_reached": "failed",
    "budget": "failed",
    "refused": "failed",
}


def rows_of_pods(store: str, agents: Collection[str]) -> list[Row]:
    """The pods that changed last, without ``agents`` and their children; blocks."""
    with Reading(store) as reading:
        sessions = reading.sessions(limit=_LISTED + 2 * len(agents))
        newest = {info.pod: info for info in reversed(sessions) if info.pod.partition(".")[0] not in agents}
        rows: list[Row] = []
        for info in list(reversed(newest.values()))[:_LISTED]:
            with suppress(SessionNotFound):  # deleted meanwhile
                rows.append(_row(info, reading))
        return rows


def _row(info: SessionInfo, reading: Reading) -> Row:
    stand, task = stand_of(info, reading), ""
    with suppress(SessionCorrupt, WireError):  # damaged: fsck says so
        task = reading.task(info.session_id)
    return Row(
        id=info.pod,
        status=_status(stand),
        activity=last_words(info, stand),
        task=task,
        runner="pod",
        cwd="",
        created_at=info.updated_at,
        session_id=info.session_id,
        approvals=tuple(reading.unanswered(info)) if stand.waiting else (),
    )


def _status(stand: Stand) -> AgentStatus:
    if stand.waiting:
        return "waiting"
    if stand.last_run == "open" and stand.holder is not None:
        return "running"
    return _STATUSES.get(stand.last_run, "detached" if stand.holder is None else "idle")


def answer_pod(store: str, row: Row, *, approved: bool, always: bool) -> None:
    """Answer the first call that the pod of ``row`` waits with; blocks. Raises PolypodError, UsageError."""
    require_person()
    request = row.approvals[0]
    answer = ApprovalAnswer(
        request.approval_id, row.session_id, approved=approved, always=always, at=time.time()
    )
    with Reading(store) as reading:
        keep_answer(reading, request, reading.info(row.session_id), answer)


async def entries_of_pod(store: str, session_id: str) -> AsyncGenerator[Entry | OtherEntry, None]:
    """All that is recorded of a pod, then what is added."""
    after = 0
    while True:
        for seq, entry in await asyncio.to_thread(_read, store, session_id, after):
            yield entry
            after = seq
        await asyncio.sleep(_LOOK)


def _read(store: str, session_id: str, after: int) -> list[tuple[int, Entry | OtherEntry]]:
    with Reading(store) as reading:
        return [(each.seq, decode_entry(each.body)) for each in reading.stored(session_id, after)]
