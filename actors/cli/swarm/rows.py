"""What a list of agents shows: rows in three groups, at any width; pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from actors.cli.display.event_format import Line
from actors.cli.display.format import ago, cut
from protocol.agents import AgentStatus
from protocol.errors import Failure
from protocol.events import ApprovalRequested
from protocol.usage import Usage

#: The groups in their order, with the statuses of each.
GROUPS: tuple[tuple[str, tuple[AgentStatus, ...]], ...] = (
    ("needs you", ("waiting", "idle", "detached")),
    ("working", ("running", "pending")),
    ("ended", ("done", "failed", "killed")),
)
_SIGNS = {
    "pending": "· wait",
    "running": "▸ run",
    "waiting": "? ask",
    "idle": "▸ idle",
    "done": "✓ done",
    "failed": "✗ fail",
    "killed": "✗ kill",
    "detached": "· lost",
}
_TONES = {"waiting": "note", "idle": "answer", "failed": "error", "done": "tool", "running": "answer"}
#: Columns below which the age of an agent is left out, and that what it does has at least.
_NARROW, _LEAST = 60, 8


class Row(Struct, frozen=True, kw_only=True):
    """One agent, as a program or a person is shown it."""

    id: str
    status: AgentStatus
    activity: str
    task: str
    runner: str
    cwd: str
    created_at: float
    session_id: str
    pid: int | None = None
    text: str = ""
    error: Failure | None = None
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    approvals: tuple[ApprovalRequested, ...] = ()


def lines_of(rows: Iterable[Row], now: float, width: int) -> list[Line]:
    """The list at ``width`` columns, the newest of each group first."""
    rows = list(rows)
    longest = max((len(row.id) for row in rows), default=0)
    lines = list[Line]()
    for title, statuses in GROUPS:
        group = [row for row in rows if row.status in statuses]
        if group:
            lines.append(Line("user", f"{title} ({len(group)})"))
            lines += [_line(row, now, width, longest) for row in group]
    return lines


def _line(row: Row, now: float, width: int, longest: int) -> Line:
    wide = width >= _NARROW
    age = f"  {ago(row.created_at, now):>11}" if wide else ""
    room = width - 9 - len(age) - _LEAST - 2
    name = row.id.ljust(longest) if longest <= room else cut(row.id, max(room, _LEAST))
    head = f" {_SIGNS[row.status]:<7} {name}{age}  "
    return Line(_TONES.get(row.status, "quiet"), head + cut(_doing(row), max(width - len(head) - 1, 1)))


def _doing(row: Row) -> str:
    """What it does, or how it ended, and what it is about."""
    if row.approvals:
        asked = row.approvals[0]
        return f"allow {asked.tool}? {asked.approval_id}"
    if row.status in {"failed", "killed"} and row.error is not None:
        return row.error.message
    if row.status in {"idle", "done"} and row.text:
        return row.text
    return row.task if row.activity in {row.status, "starting"} else f"{row.activity}: {row.task}"
