"""The report of agents that a model has started: its words, and which of them a pod's history has."""

from __future__ import annotations

from collections.abc import Iterable

from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from protocol.agents import AgentResult
from protocol.errors import SessionNotFound
from protocol.events import UserMessage
from protocol.wire import decode_entry

#: How a report begins.
_MARK = "[auto-swarm update]"
#: Entries read at a time.
_PAGE = 500


def report_of(ended: Iterable[tuple[str, str, AgentResult]]) -> str:
    """What each has answered, in the order of their start: of ids, tasks and how these ended."""
    return "\n\n".join([_MARK, *(_lines(*each) for each in ended)])


def _lines(agent_id: str, task: str, result: AgentResult) -> str:
    lines = [f"{agent_id}: {result.status}", f"task: {task}"]
    if result.error is not None:
        lines.append(f"error: {result.error}")
    if result.text:
        lines.append(f"answer: {result.text}")
    return "\n".join(lines)


async def sessions_of(store: SessionStore, session_id: str) -> list[str]:
    """A pod's session and those that it was compacted from, as far back as they are there. Raises StoreError,
    SessionCorrupt.
    """
    found, above = list[str](), [session_id]
    while above:
        try:
            info = await settled(store.info(above.pop()))
        except SessionNotFound:
            break
        found.append(info.session_id)
        if info.parent is not None and info.parent.kind == "compacted_from":
            above.append(info.parent.session_id)
    return found


async def reported_in(store: SessionStore, sessions: Iterable[str]) -> set[str]:
    """The ids of the agents whose report is in these sessions. Raises SessionError, WireError."""
    found, mark = set[str](), _MARK.encode()
    for session_id in sessions:
        after = 0
        while page := await settled(store.read(session_id, after=after, limit=_PAGE)):
            after = page[-1].seq
            for stored in page:
                if mark in stored.body:  # nearly all are spared the decoding
                    found |= _ids(decode_entry(stored.body))
    return found


def _ids(entry: object) -> set[str]:
    if not isinstance(entry, UserMessage) or entry.source != "notify":
        return set()
    first, *blocks = entry.item.text.split("\n\n")
    return {block.partition(": ")[0] for block in blocks} if first == _MARK else set()
