"""What is written to a SQLite store: batches of entries, all or nothing, with compare-and-swap."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from actors.sessions.committer import Job
from actors.sessions.store import check_follows
from protocol.entries import GENESIS, Head, Parent, StoredEntry

_CREATE = """
INSERT INTO sessions (uuid, pod, created_at, parent_kind, parent, parent_hash, parent_seq,
                      generation, holder, holder_pod, held_since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_RELEASE = """
UPDATE sessions SET holder = NULL, holder_pod = NULL, held_since = NULL
WHERE id = ? AND generation = ?
"""
_INSERT = "INSERT INTO entries (session, n, hash, body, at) VALUES "
# The session's id comes out as NULL, which the table refuses, once the writer does not hold it any
# more: so the whole statement fails, and the error code tells this from a lost compare-and-swap.
_ROW = "((SELECT id FROM sessions WHERE id = ? AND generation = ? AND holder IS ?), ?, ?, ?, ?)"
_VALUES_PER_ROW = 7
_ROWS_PER_STATEMENT = 256

#: What a commit adds to the write-ahead log besides its bytes, about: the pages it touches.
_PAGES = 6 << 10


class Held:
    """A session that this store may write to: its row, its claim and its durable head.

    ``writer`` is None for a session that is made for others; ``row`` until it is made.
    """

    __slots__ = ("generation", "head", "pod", "row", "session_id", "since", "writer")

    def __init__(self, session_id: str, pod: str, writer: str | None, since: float) -> None:
        self.session_id = session_id
        self.pod = pod
        self.writer = writer
        self.since = since
        self.generation = 1
        self.row: int | None = None
        self.head = Head(0, GENESIS)


class Append(Job):
    """Entries to add to a held session."""

    __slots__ = ("after", "at", "batch", "held")

    def __init__(self, held: Held, after: Head, batch: Sequence[StoredEntry]) -> None:
        super().__init__(_PAGES + sum([len(body) for _, _, body in batch]))
        self.held = held
        self.after = after
        self.batch = batch
        self.at = time.time()

    def begin(self, db: sqlite3.Connection) -> None:
        """What has to be written before the entries."""

    def end(self, db: sqlite3.Connection) -> None:
        """What has to be written behind the entries."""


class Create(Append):
    """A session to make, with its first entries."""

    __slots__ = ("parent", "pod")

    def __init__(self, held: Held, pod: str, parent: Parent | None, batch: Sequence[StoredEntry]) -> None:
        held.head = Head(batch[0].seq - 1, GENESIS)
        super().__init__(held, held.head, batch)
        self.pod = pod
        self.parent = parent

    def begin(self, db: sqlite3.Connection) -> None:
        held, parent = self.held, self.parent
        origin = (
            (None,) * 4 if parent is None else (parent.kind, parent.session_id, parent.at_hash, parent.at_seq)
        )
        claim = (None,) * 3 if held.writer is None else (held.writer, held.pod, held.since)
        values = (held.session_id, self.pod, self.at, *origin, held.generation, *claim)
        held.row = db.execute(_CREATE, values).lastrowid


class Release(Append):
    """The end of a claim."""

    __slots__ = ()

    def __init__(self, held: Held) -> None:
        super().__init__(held, held.head, ())

    def end(self, db: sqlite3.Connection) -> None:
        db.execute(_RELEASE, (self.held.row, self.held.generation))


def carry_out(db: sqlite3.Connection, jobs: Sequence[Append]) -> None:
    """Make all jobs durable in one transaction, or none and raise.

    Raises HeadConflict where a batch does not go on from its session's head, else sqlite3.Error.
    """
    before = [(job.held, job.held.head, job.held.row) for job in jobs]
    try:
        for job in jobs:
            if job.batch:
                check_follows(job.held.session_id, job.held.head, job.after, job.batch)
                last = job.batch[-1]
                job.held.head = Head(last.seq, last.hash)
        _execute(db, jobs)
    except BaseException:
        for held, head, row in reversed(before):
            held.head, held.row = head, row
        raise


def _execute(db: sqlite3.Connection, jobs: Sequence[Append]) -> None:
    rows = sum([len(job.batch) for job in jobs])
    if rows <= _ROWS_PER_STATEMENT and all(type(job) is Append for job in jobs):
        db.execute(_insert(rows), _values(jobs))  # a transaction by itself
        return
    with transaction(db):
        for job in jobs:
            job.begin(db)
        values = _values(jobs)
        step = _ROWS_PER_STATEMENT * _VALUES_PER_ROW
        for start in range(0, len(values), step):
            part = values[start : start + step]
            db.execute(_insert(len(part) // _VALUES_PER_ROW), part)
        for job in jobs:
            job.end(db)


def delete(db: sqlite3.Connection, row: int) -> None:
    """Remove a session and its entries."""
    db.execute("DELETE FROM entries WHERE session = ?", (row,))
    db.execute("DELETE FROM sessions WHERE id = ?", (row,))


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
            db.execute("ROLLBACK")
        raise


@cache
def _insert(rows: int) -> str:
    return _INSERT + ", ".join([_ROW] * rows)


def _values(jobs: Sequence[Append]) -> list[Any]:
    values: list[Any] = []
    for job in jobs:
        held, at = job.held, job.at
        row, generation, writer = held.row, held.generation, held.writer
        for seq, digest, body in job.batch:
            values += (row, generation, writer, seq, digest, body, at)
    return values
