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


_ALL = ("SESSION", "POD", "CHANGED", "LAST RUN", "COST", "MODEL", "FOLDER", "TASK")
#: What a terminal leaves out, in this order, until it has so many characters for what a session is about; of
#: the last run that is in which process it is.
_LEFT_OUT, _ROOM = ("LAST RUN", "FOLDER", "MODEL", "POD", "COST", "CHANGED"), 20
#: The most that a terminal shows of what may be long.
_WIDEST = {"POD": 16, "MODEL": 20, "FOLDER": 20}
_WIDEST_RUN = 18


def print_sessions(rows: list[Row], terminal: Terminal) -> None:
    """Print the table; where it is piped on, nothing is shortened."""
    now, home = time.time(), _home()
    cells = [_cells(row, now, home, shortened=terminal.live) for row in rows]
    columns = _fitting(cells, terminal.width) if terminal.live else _ALL
    terminal.table([columns, *(tuple(row[name] for name in columns) for row in cells)])


def _fitting(cells: list[dict[str, str]], width: int) -> tuple[str, ...]:
    """The columns that a terminal of that width has room for; the cells are shortened for it."""
    columns = list(_ALL)
    for name in _LEFT_OUT:
        widths = [max(map(len, (each, *(row[each] for row in cells)))) for each in columns]
        if sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], _ROOM) <= width:
            break
        if name == "LAST RUN":
            for row in cells:
                row[name] = cut(row[name].partition(", in process")[0], _WIDEST_RUN)
        else:
            columns.remove(name)
    return tuple(columns)


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


def _home() -> str:
    try:
        return str(Path.home())
    except RuntimeError:  # nobody knows it
        return ""
