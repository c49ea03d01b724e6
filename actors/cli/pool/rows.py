"""What a list of jobs shows, and one job as a whole, at any width; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from actors.cli.display.event_format import Line
from actors.cli.display.format import ago, count, cut, seconds, tokens
from protocol.jobs import Changes, Execution, JobStatus

#: A sign that no colour is needed for, and the tone of each status.
_SIGNS: dict[JobStatus, tuple[str, str]] = {
    "queued": ("○ wait", "quiet"),
    "running": ("● run", "answer"),
    "done": ("✓ done", "tool"),
    "failed": ("✗ fail", "error"),
    "cancelled": ("■ stop", "quiet"),
    "lost": ("✗ lost", "error"),
}
#: Columns below which age and runner are left out, and that the words about a job have at least.
_NARROW, _LEAST = 60, 8
_SIGN, _AGE, _AGENT = 9, 12, 12
#: Files that are shown of what a job changed.
_FILES = 20


def lines_of(executions: Iterable[Execution], now: float, width: int) -> Iterator[Line]:
    """A line for each job."""
    executions = list(executions)
    longest = max((len(each.id) for each in executions), default=0)
    wide = width >= _NARROW
    room = max(width - _SIGN - (_AGE + _AGENT + 4 if wide else 0) - _LEAST - 3, _LEAST)
    names = min(longest, room)
    for each in executions:
        sign, tone = _SIGNS[each.status]
        head = f" {sign:<7} {cut(each.id, names):<{names}}"
        if wide:
            head += f"  {cut(each.agent or '-', _AGENT):<{_AGENT}} {ago(_since(each), now):>{_AGE}}"
        yield Line(tone, f"{head}  {cut(about(each), max(width - len(head) - 3, 1))}")


def _since(execution: Execution) -> float:
    return execution.ended_at or execution.started_at or execution.submitted_at


def about(execution: Execution) -> str:
    """How it ended, or what it is about."""
    if execution.error is not None and execution.status != "done":
        return execution.error.message
    return execution.summary or execution.job.instructions


def end_line(execution: Execution, width: int) -> Line:
    """A job that has ended just now."""
    sign, tone = _SIGNS[execution.status]
    by = f" by {execution.agent}" if execution.agent else ""
    took = "" if execution.seconds is None else f" in {seconds(execution.seconds)}"
    head = f"{sign} {execution.id}{by}{took}"
    return Line(tone, cut(f"{head}: {about(execution)}", width))


def fields_of(execution: Execution, now: float) -> Iterator[tuple[str, str]]:
    """What is known of a job, by name."""
    job = execution.job
    yield "status", execution.status
    yield "agent", execution.agent or "any"
    if execution.model:
        yield "model", execution.model
    if execution.reason:
        yield "chosen", execution.reason
    if job.priority:
        yield "priority", str(job.priority)
    yield "folder", f"{job.cwd or 'the folder of its pool'}{_apart(job.workspace)}"
    yield "since", ago(_since(execution), now)
    yield "attempts", str(execution.attempts)
    if execution.seconds is not None:
        yield "took", seconds(execution.seconds)
    if execution.usage is not None:
        yield "tokens", tokens(execution.usage)
    if execution.cost is not None:
        yield "cost", f"${execution.cost:.4f}"
    if execution.changes is not None:
        yield "changes", _changed(execution.changes)
    if execution.error is not None:
        yield "error", str(execution.error)


def _apart(workspace: str) -> str:
    return ", in its own working copy" if workspace == "worktree" else ""


def _changed(changes: Changes) -> str:
    if changes.branch is None:
        return "none"
    return f"{count(len(changes.files), 'file')} on branch {changes.branch}"


def files_of(changes: Changes) -> Iterator[str]:
    """The files that were changed, a line each."""
    letters = {"added": "A", "modified": "M", "deleted": "D"}
    for each in changes.files[:_FILES]:
        counts = "" if each.added is None else f"  +{each.added} -{each.removed}"
        yield f"  {letters[each.kind]} {each.path}{counts}"
    if len(changes.files) > _FILES:
        yield f"  and {len(changes.files) - _FILES} more"
