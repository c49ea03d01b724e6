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

#: The groups, in their order.
GROUPS = ("needs you", "working", "ended")
#: How an answer ends that is a question, and what may stand behind that: quotes, marks of Markdown.
_QUESTIONS, _BEHIND = ("?", "\uff1f"), "*_`\"')\u201d\u2019 \n"
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
    #: Whether its last task was interrupted, and goes on with the next words; and whether it was cut off, so
    #: that ``resume --all`` has it live again.
    is_paused: bool = False
    is_cut_off: bool = False
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
    for title in GROUPS:
        group = [row for row in rows if group_of(row) == title]
        if group:
            yield f"{title} ({len(group)})", group


def group_of(row: Row) -> str:
    """The group in which a person looks for it: an agent whose task has ended well needs nobody, also where
    it waits for the next.
    """
    if row.status in {"waiting", "detached"} or _is_failed(row) or _is_interrupted(row):
        return "needs you"
    if row.status in {"running", "pending"}:
        return "working"
    return "needs you" if _is_between_tasks(row) and _why_needed(row) else "ended"


def _is_failed(row: Row) -> bool:
    return row.status == "failed" and not _was_done(row)


def _was_done(row: Row) -> bool:
    """Whether it had done its task when its service died."""
    return row.status == "failed" and row.result == "done"


def status_shown(row: Row) -> AgentStatus:
    """How it stands, for a person: what became of its task, though its service was killed since."""
    return "done" if _was_done(row) else row.status


def _is_between_tasks(row: Row) -> bool:
    return row.status == "idle" or _was_done(row)


def _is_interrupted(row: Row) -> bool:
    """Whether it was ended in the middle of its task, and by no person."""
    return row.status == "killed" and row.is_cut_off


def _why_needed(row: Row) -> str:
    """What a person is to do about one that is idle; nothing where its task ended well, or they ended it."""
    if row.is_paused:
        return "interrupted; send a message to continue"
    if row.result == "failed":
        return "its task failed; send a message to continue" if row.error is None else row.error.message
    return row.text if row.text.rstrip(_BEHIND).endswith(_QUESTIONS) else ""


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
        status = status_shown(row)
        head = self._head(_SIGNS[status], _cut_id(row.id, self.names), ago(row.created_at, now))
        return Line(_TONES.get(status, "quiet"), head + cut(_doing(row), self._rest(head)))

    def heading(self) -> Line:
        """What stands above the columns."""
        head = self._head("STATUS", cut("ID", self.names), "AGE")
        return Line("quiet", head + cut("ACTIVITY", self._rest(head)))

    def _head(self, sign: str, name: str, age: str) -> str:
        return f" {sign:<8} {name:<{self.names}}" + (f"  {age:>11}" if self.aged else "") + "  "

    def _rest(self, head: str) -> int:
        return max(self.width - len(head) - 1, 1)


def _cut_id(agent_id: str, width: int) -> str:
    """An id at that width: its number stays, in which it differs from others that begin alike."""
    if len(agent_id) <= width:
        return agent_id
    name, _, number = agent_id.rpartition("-")
    return cut(name, max(width - len(number) - 1, 1)).rstrip("-") + f"-{number}"


def _doing(row: Row) -> str:
    """What it does, or how it ended, and what it is about."""
    if row.approvals:
        asked = row.approvals[0]
        return f"{asked.approval_id} allow {asked.tool}?"  # whose beginning is enough, where this is cut
    if (_is_failed(row) or row.status == "killed") and row.error is not None:
        return row.error.message
    if _is_interrupted(row):
        return f"interrupted, resume it to continue: {row.task}"
    if _is_between_tasks(row) and (why := _why_needed(row)):
        return why
    if (_is_between_tasks(row) or row.status == "done") and row.text:
        return row.text
    return row.task if row.activity in {row.status, "starting"} else f"{row.activity}: {row.task}"
