"""Carries out the writes of a SQLite store in one transaction, with compare-and-swap on each
session's head.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

from actors.sessions.sqlite.inserts import in_parts, insert, insert_alone, is_one_row, rows_of
from actors.sessions.sqlite.jobs import Append, Create, Release
from actors.sessions.sqlite.runs import FIRST_WITH_RUNS
from actors.sessions.sqlite.runs import rows as rows_from
from actors.sessions.store import check_follows
from protocol.entries import Head

_CREATE = """
INSERT INTO sessions (id, uuid, pod, created_at, parent_kind, parent, parent_hash, parent_seq,
                      generation, holder, holder_pod, held_since)
VALUES """
_SESSION = "(" + ", ".join("?" * 12) + ")"
_RELEASE = """
UPDATE sessions SET holder = NULL, holder_pod = NULL, held_since = NULL
WHERE (id, generation) IN (VALUES """


class Files(Protocol):
    """The files that are written to: their format, and how often connections were opened."""

    format: int
    opened: int

    def begin(self, connection: sqlite3.Connection, /) -> bool:
        """Begin a transaction. False if the files were lost; raises sqlite3.Error."""

    def has_changed(self) -> bool:
        """Whether the files were lost."""


def carry_out(db: sqlite3.Connection, jobs: Sequence[Append], files: Files) -> bool:
    """Make all jobs durable in one transaction, or none and raise. False if the files were lost.

    Raises HeadConflict if a batch does not continue its session's head, otherwise sqlite3.Error.
    """
    try:
        if len(jobs) == 1 and type(jobs[0]) is Append and is_one_row(jobs[0], files.format):
            _append_alone(db, jobs[0], files.format)
            return True
        return _carry_out_together(db, jobs, files)
    except sqlite3.IntegrityError:
        if not files.has_changed():
            raise
    return False


def _append_alone(db: sqlite3.Connection, job: Append, format_: int) -> None:
    """Add the one row of a job. A single statement is a transaction, and checks by itself that the files are
    the right ones.
    """
    held, last = job.held, job.batch[-1]
    check_follows(held.session_id, held.head, job.after, job.batch)
    insert_alone(db, job, format_)
    held.head = Head(last.seq, last.hash)


def _carry_out_together(db: sqlite3.Connection, jobs: Sequence[Append], files: Files) -> bool:
    before = [(job.held, job.held.head, job.held.row, job.held.last) for job in jobs]
    done = False
    try:
        for job in jobs:
            if job.batch:
                check_follows(job.held.session_id, job.held.head, job.after, job.batch)
                last = job.batch[-1]
                job.held.head = Head(last.seq, last.hash)
        done = _execute(db, jobs, files)
    finally:
        if not done:
            for held, head, row, entries in reversed(before):
                held.head, held.row, held.last, held.seen = head, row, entries, None
    return done


def _execute(db: sqlite3.Connection, jobs: Sequence[Append], files: Files) -> bool:
    added = rows_of(jobs, files.format)
    if not files.begin(db):
        return False
    try:
        created = [job for job in jobs if isinstance(job, Create)]
        if created:
            _number(db, created, files.format)
            in_parts(db, _CREATE, _SESSION, "", [value for job in created for value in job.values()])
        insert(db, added, files.format, files.opened)
        released: list[Any] = []
        for job in jobs:
            if isinstance(job, Release):
                released += (job.held.row, job.held.generation)
        in_parts(db, _RELEASE, "(?, ?)", ")", released)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
            db.execute("ROLLBACK")
        raise
    return True


def _number(db: sqlite3.Connection, created: Sequence[Create], format_: int) -> None:
    """Number new sessions, above those whose rows somebody has deleted while their entries are
    still there.
    """
    begins = "WHERE follows = 0" if format_ >= FIRST_WITH_RUNS else ""
    last_used = f"SELECT session FROM entries {begins} ORDER BY session DESC LIMIT 1"
    (last,) = db.execute(
        f"SELECT max(ifnull((SELECT max(id) FROM sessions), 0), ifnull(({last_used}), 0))"
    ).fetchone()
    for row, job in enumerate(created, last + 1):
        job.held.row = row


def delete(db: sqlite3.Connection, row: int, format_: int) -> None:
    """Remove a session and its entries."""
    found = rows_from(runs=format_ >= FIRST_WITH_RUNS)
    # In a damaged session, rows of another may seem to follow.
    delete_ = f"DELETE FROM entries WHERE session = :row AND id IN (SELECT e.id {found})"
    db.execute(delete_, {"row": row, "first": 0})
    db.execute("DELETE FROM sessions WHERE id = ?", (row,))
