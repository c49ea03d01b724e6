"""The table of sessions, as wide as the terminal is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from actors.cli.display.format import ago, cut, dollars, folder_name
from actors.cli.display.terminal import Terminal
from actors.sessions.head import short_id


class Row(NamedTuple):
    """What the table has of a session."""

    session_id: str
    pod: str
    changed: float
    last_run: str
    task: str
    folder: str
    model: str
    cost: float | None


#: The columns of a table that is not cut, and those of a terminal with so many columns at least.
_ALL = ("SESSION", "POD", "CHANGED", "LAST RUN", "COST", "MODEL", "FOLDER", "TASK")
_AT_TERMINAL = (
    (90, _ALL),
    (60, ("SESSION", "POD", "CHANGED", "LAST RUN", "COST", "TASK")),
    # How the last run stands is what is looked for first: behind names of pods it would be cut off.
    (52, ("SESSION", "LAST RUN", "CHANGED", "TASK")),
)
#: The order says how long ago they changed; what they are about has to be read.
_NARROW = ("SESSION", "LAST RUN", "TASK")
#: The most that a terminal shows of what may be long, and of how a run stands where there is room for little.
_WIDEST = {"POD": 16, "MODEL": 20, "FOLDER": 20}
_WIDEST_RUN = 18


def print_sessions(rows: list[Row], terminal: Terminal) -> None:
    """Print the table; where it is piped on, nothing is shortened."""
    columns: tuple[str, ...] = _ALL
    if terminal.live:
        columns = next((names for width, names in _AT_TERMINAL if terminal.width >= width), _NARROW)
    now, home = time.time(), _home()
    cells = [_cells(row, now, home, shortened=terminal.live) for row in rows]
    if columns is _NARROW:  # else what a session is about has no room
        cells = [{**row, "LAST RUN": _run_words(row["LAST RUN"])} for row in cells]
    terminal.table([columns, *(tuple(row[name] for name in columns) for row in cells)])


def _cells(row: Row, now: float, home: str, *, shortened: bool) -> dict[str, str]:
    cells = {
        # For a person to type; what is piped on may be kept for long, and has the whole of it.
        "SESSION": short_id(row.session_id) if shortened else row.session_id,
        "POD": row.pod,
        "CHANGED": ago(row.changed, now),
        "LAST RUN": row.last_run,
        "COST": "" if row.cost is None and row.last_run.startswith("no") else dollars(row.cost),
        "MODEL": row.model,
        "FOLDER": row.folder,
        "TASK": row.task,
    }
    if shortened:
        cells |= {name: cut(cells[name], width) for name, width in _WIDEST.items() if name != "FOLDER"}
        cells["FOLDER"] = folder_name(row.folder, home, _WIDEST["FOLDER"])
    return cells


def _run_words(last_run: str) -> str:
    """How the last run stands, and not in which process."""
    return cut(last_run.partition(", in process")[0], _WIDEST_RUN)


def _home() -> str:
    try:
        return str(Path.home())
    except RuntimeError:  # nobody knows it
        return ""
