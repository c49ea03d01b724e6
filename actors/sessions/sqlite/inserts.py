"""The SQL that adds rows of entries with compare-and-swap: a single statement that is a commit, or
many rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from actors.sessions.sqlite.jobs import Append, Held
from actors.sessions.sqlite.rows import FIRST_WITH_SHARED, LARGEST_ROW, Row, pack, pack_singly, together
from actors.sessions.sqlite.runs import FIRST_WITH_RUNS, LONGEST
from actors.sessions.sqlite.schema import data_version
from protocol.errors import HeadConflict

# A broken constraint rolls the whole transaction back, so SQLite need not be able to undo this statement
# alone.
_INSERT = "INSERT OR ROLLBACK INTO entries (session, n, hash, body, at) VALUES "
# The session's id becomes NULL, which the table refuses, if the writer does not hold the session any more. So
# the whole statement fails, with another error code than a lost compare-and-swap.
_ENTRY = "((SELECT id FROM sessions WHERE id = ? AND generation = ? AND holder IS ?), ?, ?, ?, ?)"
# The same happens if the files are not those that were opened; a statement that is a commit checks that
# itself.
_ALONE = _INSERT + _ENTRY.replace("IS ?)", "IS ? AND undisturbed())")
# In a file with runs the same happens if the session's last row is not the one with that id. If that row is
# gone there is none; if another of the session follows it directly, perhaps in no index, it is that other. A
# row that was added later than that begins a run, so the index has its number. (Numbered parameters, which
# would save repetitions, are a DeprecationWarning of sqlite3 in Python 3.12.)
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
    """The rows that each job adds to a file of that format."""
    if format_ >= FIRST_WITH_SHARED:
        return [(job, pack(job.batch, job.size)) for job in jobs if job.batch]
    return [(job, pack_singly(job.batch)) for job in jobs if job.batch]


def is_one_row(job: Append, format_: int) -> bool:
    """Whether a job adds one row to a file of that format."""
    entries = len(job.batch)
    return entries == 1 or (entries > 1 and job.size <= LARGEST_ROW and format_ >= FIRST_WITH_SHARED)


def insert_alone(db: sqlite3.Connection, job: Append, format_: int) -> None:
    """Add one row by a statement that is a commit. It continues the run of the session's last row, if no
    other row was added after that. Raises sqlite3.Error.
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
    """Add many rows, within a transaction; those of each session begin a run. ``opened`` is how often
    connections were opened.

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
    """Raise HeadConflict for a session whose last row is not the one that its writer knows. Nothing is read
    if nobody else has committed since the last look.
    """
    version = data_version(db)
    for held in sessions:
        if held.seen != (opened, version):
            found = db.execute(_LAST, (held.row, held.last, held.last)).fetchone()
            if found[0] != held.last:
                raise HeadConflict(f"session {held.session_id} was taken over")
            held.seen = opened, version


def in_parts(db: sqlite3.Connection, verb: str, row: str, close: str, values: Sequence[Any]) -> int:
    """Execute a statement for rows with these values, listed one row after the other, and return the id of
    the last row.

    Many rows at a time, since each statement releases the interpreter lock and has to get it back.
    """
    last, width = 0, row.count("?")
    for start in range(0, len(values), width * _ROWS_PER_STATEMENT):
        part = values[start : start + width * _ROWS_PER_STATEMENT]
        last = db.execute(verb + ", ".join([row] * (len(part) // width)) + close, part).lastrowid or 0
    return last
