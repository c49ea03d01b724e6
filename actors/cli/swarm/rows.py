"""What a list of agents shows: rows in three groups, at any width; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

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
#: Those of an agent that can be sent nothing before it is resumed.
ENDED: tuple[AgentStatus, ...] = ("done", "failed", "killed", "detached")
_SIGNS = {
    "pending": "● wait",
    "running": "● run",
    "waiting": "? ask",
    "idle": "● idle",
    "done": "✓ done",
    "failed": "✗ fail",
    "killed": "■ kill",
    "detached": "○ detach",
}
_TONES = {"waiting": "note", "idle": "answer", "failed": "error", "done": "tool", "running": "answer"}
#: Columns below which the age of an agent is left out, and that what it does has at least.
_NARROW, _LEAST = 60, 8
#: Columns of a status and of an age, with the space beside them.
_SIGN, _AGE = 10, 13


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
    #: How its last task ended, or how it stands where that goes on.
    result: AgentStatus = "pending"
    text: str = ""
    error: Failure | None = None
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    approvals: tuple[ApprovalRequested, ...] = ()


def lines_of(rows: Iterable[Row], now: float, width: int) -> list[Line]:
    """The list at ``width`` columns, the newest of each group first."""
    rows = list(rows)
    columns = Columns.of(rows, width)
    lines = list[Line]()
    for title, group in groups_of(rows):
        lines.append(Line("user", title))
        lines += [columns.line(row, now) for row in group]
    return lines


def groups_of(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The groups that have any, with what stands above each."""
    rows = list(rows)
    for title, statuses in GROUPS:
        group = [row for row in rows if row.status in statuses]
        if group:
            yield f"{title} ({len(group)})", group


class Columns(NamedTuple):
    """How a list is laid out: its width, that of ids, and whether there is room for ages."""

    width: int
    names: int
    aged: bool

    @classmethod
    def of(cls, rows: Iterable[Row], width: int) -> Self:
        """Columns in which all of ``rows`` can be shown."""
        longest = max((len(row.id) for row in rows), default=0)
        aged = width >= _NARROW
        room = max(width - _SIGN - (_AGE if aged else 0) - _LEAST - 3, _LEAST)
        return cls(width, min(longest, room), aged)

    def line(self, row: Row, now: float) -> Line:
        """An agent."""
        head = self._head(_SIGNS[row.status], cut(row.id, self.names), ago(row.created_at, now))
        return Line(_TONES.get(row.status, "quiet"), head + cut(_doing(row), self._rest(head)))

    def heading(self) -> Line:
        """What stands above the columns."""
        head = self._head("STATUS", cut("ID", self.names), "AGE")
        return Line("quiet", head + cut("ACTIVITY", self._rest(head)))

    def _head(self, sign: str, name: str, age: str) -> str:
        return f" {sign:<8} {name:<{self.names}}" + (f"  {age:>11}" if self.aged else "") + "  "

    def _rest(self, head: str) -> int:
        return max(self.width - len(head) - 1, 1)


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
