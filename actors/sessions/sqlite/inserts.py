"""How rows of entries are put into a file, with compare-and-swap: one that is a commit by itself, or many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from actors.sessions.sqlite.jobs import Append, Held
from actors.sessions.sqlite.rows import FIRST_WITH_SHARED, LARGEST_ROW, Row, pack, pack_singly, together
from actors.sessions.sqlite.runs import FIRST_WITH_RUNS, LONGEST
from actors.sessions.sqlite.schema import data_version
from protocol.errors import HeadConflict

# A broken constraint rolls the whole transaction back, so SQLite keeps no way back from this statement alone.
_INSERT = "INSERT OR ROLLBACK INTO entries (session, n, hash, body, at) VALUES "
# The session's id comes out as NULL, which the table refuses, once the writer does not hold it any
# more: so the whole statement fails, and the error code is another than that of a lost compare-and-swap.
_ENTRY = "((SELECT id FROM sessions WHERE id = ? AND generation = ? AND holder IS ?), ?, ?, ?, ?)"
# So it does where the files are not those that were opened, which a statement that is a commit asks itself.
_ALONE = _INSERT + _ENTRY.replace("IS ?)", "IS ? AND undisturbed())")
# In a file with runs so it does, too, where the session's last row is not the one with that id: where that is
# gone there is none, and where another of the session is right behind it, which may be in no index, it is the
# other. What was added later than that begins a run, so the index has its number.
# (Numbered parameters, which would save repeating some, are a DeprecationWarning of sqlite3 in Python 3.12.)
_LAST = "SELECT max(id) FROM entries WHERE session = ? AND id BETWEEN ? AND ? + 1"
_ALONE_IN_RUNS = f"""INSERT OR ROLLBACK INTO entries (session, n, hash, body, at, follows) VALUES (
    (SELECT id FROM sessions WHERE id = ? AND generation = ? AND holder IS ? AND undisturbed()
        AND ({_LAST}) IS ?),
    ?, ?, ?, ?,
    ifnull((SELECT max(id) FROM entries) = ?, 0)
)
"""
_ROWS_PER_STATEMENT = 256

#: A job, and the rows that it adds to its session.
Added = tuple[Append, list[Row]]


def rows_of(jobs: Sequence[Append], format_: int) -> list[Added]:
    """What jobs add to a file of that format."""
    if format_ >= FIRST_WITH_SHARED:
        return [(job, pack(job.batch, job.size)) for job in jobs if job.batch]
    return [(job, pack_singly(job.batch)) for job in jobs if job.batch]


def is_one_row(job: Append, format_: int) -> bool:
    """Whether a job adds one row to a file of that format."""
    entries = len(job.batch)
    return entries == 1 or (entries > 1 and job.size <= LARGEST_ROW and format_ >= FIRST_WITH_SHARED)


def insert_alone(db: sqlite3.Connection, job: Append, format_: int) -> None:
    """Add one row by a statement that is a commit. It goes on with the run of the session's last row, if no
    other was added behind that. Raises sqlite3.Error.
    """
    held = job.held
    first, mark, body = together(job.batch)
    row, generation, writer, last = held.row, held.generation, held.writer, held.last
    if format_ < FIRST_WITH_RUNS:
        db.execute(_ALONE, (row, generation, writer, first, mark, body, job.at))
    else:
        joined = None if last is None or not (last + 1) % LONGEST else last
        values = (row, generation, writer, row, last, last, last, first, mark, body, job.at, joined)
        held.last = db.execute(_ALONE_IN_RUNS, values).lastrowid
        held.seen = None


def insert(db: sqlite3.Connection, added: Sequence[Added], format_: int, opened: int) -> None:
    """Add many rows, in a transaction; each begins a run. ``opened`` is how often connections were.

    Raises HeadConflict and sqlite3.Error.
    """
    values: list[Any] = []
    lasts: dict[Held, int] = {}
    for job, rows in added:
        held = job.held
        for row in rows:
            values += (held.row, held.generation, held.writer, *row, job.at)
        lasts[held] = len(values)
    old = [held for held in lasts if held.last is not None]
    if old and format_ >= FIRST_WITH_RUNS:
        _check_last(db, old, opened)
    end, width = in_parts(db, _INSERT, _ENTRY, "", values), _ENTRY.count("?")
    for held, place in lasts.items():
        held.last = end - (len(values) - place) // width


def _check_last(db: sqlite3.Connection, sessions: Iterable[Held], opened: int) -> None:
    """Raise HeadConflict for a session whose last row is not what its writer takes for it. Nobody looks where
    nothing was committed by others since it was.
    """
    version = data_version(db)
    for held in sessions:
        if held.seen != (opened, version):
            found = db.execute(_LAST, (held.row, held.last, held.last)).fetchone()
            if found[0] != held.last:
                raise HeadConflict(f"session {held.session_id} was taken over")
            held.seen = opened, version


def in_parts(db: sqlite3.Connection, verb: str, row: str, close: str, values: Sequence[Any]) -> int:
    """Execute a statement for rows of these values, which stand one behind the other; the id of the last row.

    For many at a time, since each statement lets go of the interpreter lock and has to get it back.
    """
    last, width = 0, row.count("?")
    for start in range(0, len(values), width * _ROWS_PER_STATEMENT):
        part = values[start : start + width * _ROWS_PER_STATEMENT]
        last = db.execute(verb + ", ".join([row] * (len(part) // width)) + close, part).lastrowid or 0
    return last
