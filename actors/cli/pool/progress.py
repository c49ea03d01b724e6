"""``Progress``: a bar for a pool and one for each of its runners at a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from actors.cli.display.event_format import Line
from actors.cli.display.terminal import STYLES, Terminal
from actors.cli.display.views import put_json
from actors.cli.pool.rows import end_line
from protocol.jobs import JOB_ENDS, Execution, JobStatus
from protocol.routing import SystemStatus

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Counts = Mapping[tuple[JobStatus, str], int]
#: Columns below which only the bars and their numbers are shown.
_NARROW = 60
#: What the bar of all is called.
_ALL = "jobs"


class Progress(Protocol):
    """Shows how a pool gets on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show_end(self, execution: Execution) -> None:
        """Show a job that has ended."""

    def show_counts(self, counts: Counts, status: SystemStatus) -> None:
        """Show how many jobs there are."""


class JsonProgress:
    """An execution a line, for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show_end(self, execution: Execution) -> None:
        put_json(execution)

    def show_counts(self, counts: Counts, status: SystemStatus) -> None:
        pass


class LineProgress:
    """A line for each job that ends, where nobody looks on."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show_end(self, execution: Execution) -> None:
        self._terminal.line(end_line(execution, self._terminal.width))

    def show_counts(self, counts: Counts, status: SystemStatus) -> None:
        pass


class BarProgress:
    """Bars at the foot of a terminal, and above them a line for each job that ends."""

    def __init__(self, terminal: Terminal, limits: Mapping[str, int]) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal pays for rich

        self._terminal, self._limits = terminal, limits
        console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._console, self._bars = console, _bars(console)
        self._tasks: dict[str, Any] = {}
        self._before: Counts | None = None

    def __enter__(self) -> Self:
        for name in (_ALL, *self._limits):
            self._tasks[name] = self._bars.add_task(name, total=None, note="")
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show_end(self, execution: Execution) -> None:
        from rich.text import Text  # noqa: PLC0415

        line: Line = end_line(execution, self._console.width)
        self._console.print(Text(line.text, style=STYLES[line.tone], no_wrap=True, overflow="ellipsis"))

    def show_counts(self, counts: Counts, status: SystemStatus) -> None:
        # Only what this command was there for: a queue may have thousands that ended long ago.
        self._before = before = self._before if self._before is not None else _ended(counts)
        ended = {key: number - before.get(key, 0) for key, number in _ended(counts).items()}
        left = sum(number for (state, _), number in counts.items() if state not in JOB_ENDS)
        failed = sum(number for (state, _), number in ended.items() if state in {"failed", "lost"})
        done = sum(ended.values())
        note = f"{failed} failed" if failed else ""
        self._bars.update(self._tasks[_ALL], completed=done, total=max(done + left, 1), note=note)
        for name, limit in self._limits.items():
            running = counts.get(("running", name), 0)
            rests = "limited" if name in status.rate_limited else ""
            self._bars.update(self._tasks[name], completed=running, total=limit, note=rests)


def _ended(counts: Counts) -> dict[tuple[JobStatus, str], int]:
    return {key: number for key, number in counts.items() if key[0] in JOB_ENDS}


def _bars(console: Any) -> RichProgress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    name = TextColumn("{task.description}", table_column=Column(max_width=16, no_wrap=True), markup=False)
    columns: list[Any] = [name, BarColumn(bar_width=None), MofNCompleteColumn()]
    columns.append(TextColumn("{task.fields[note]}", style="yellow", markup=False))
    if console.width >= _NARROW:
        columns.append(TimeElapsedColumn())
    return Bars(*columns, console=console, expand=True, transient=True)


def progress_for(terminal: Terminal, limits: Mapping[str, int], *, as_json: bool) -> Progress:
    """The one that suits who looks on."""
    if as_json:
        return JsonProgress()
    return BarProgress(terminal, limits) if terminal.interactive else LineProgress(terminal)
