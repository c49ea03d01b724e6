"""What is written to a SQLite store: batches of entries, all or nothing, with compare-and-swap."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

from actors.sessions.committer import Job
from actors.sessions.sqlite.rows import pack, pack_singly
from actors.sessions.store import check_follows
from protocol.entries import GENESIS, Head, Parent, StoredEntry

# Statements of many rows, since each statement lets go of the interpreter lock and has to get it back.
_CREATE = """
INSERT INTO sessions (id, uuid, pod, created_at, parent_kind, parent, parent_hash, parent_seq,
                      generation, holder, holder_pod, held_since)
VALUES """
_SESSION = "(" + ", ".join("?" * 12) + ")"
# A broken constraint rolls the whole transaction back, so SQLite keeps no way back from this statement alone.
_INSERT = "INSERT OR ROLLBACK INTO entries (session, n, hash, body, at) VALUES "
# The session's id comes out as NULL, which the table refuses, once the writer does not hold it any
# more: so the whole statement fails, and the error code is another than that of a lost compare-and-swap.
# So it does where the files are not those that were opened, which the first row of a statement alone asks.
_ENTRY = "((SELECT id FROM sessions WHERE id = ? AND generation = ? AND holder IS ?), ?, ?, ?, ?)"
_FIRST_ENTRY = _ENTRY.replace("IS ?)", "IS ? AND undisturbed())")
_RELEASE = """
UPDATE sessions SET holder = NULL, holder_pod = NULL, held_since = NULL
WHERE (id, generation) IN (VALUES """
_ROWS_PER_STATEMENT = 256
_ENTRY_VALUES = _ENTRY.count("?")


class Held:
    """A session that this store may write to: its row, its claim and its durable head.

    ``writer`` is None for a session that is made for others; ``row`` until it is made. ``queued`` and
    ``finished`` count the jobs of the writer thread, the one by the caller's thread, the other by it;
    ``gathered`` those that wait for the end of the loop's turn.
    """

    __slots__ = (
        "finished",
        "gathered",
        "generation",
        "head",
        "pod",
        "queued",
        "row",
        "session_id",
        "since",
        "writer",
    )

    def __init__(self, session_id: str, pod: str, writer: str | None, since: float) -> None:
        self.session_id = session_id
        self.pod = pod
        self.writer = writer
        self.since = since
        self.generation = 1
        self.row: int | None = None
        self.head = Head(0, GENESIS)
        self.queued = self.finished = self.gathered = 0


class Append(Job):
    """Entries to add to a held session."""

    __slots__ = ("after", "at", "batch", "held")

    def __init__(self, held: Held, after: Head, batch: Sequence[StoredEntry]) -> None:
        super().__init__(sum([len(entry.body) for entry in batch]))
        self.held = held
        self.after = after
        self.batch = batch
        self.at = time.time()

    def finish(self, error: BaseException | None = None) -> None:
        self.held.finished += 1
        super().finish(error)


class Create(Append):
    """A session to make, with its first entries. ``refused`` is called where it could not be made, before
    anybody sees that: they may make it anew at once.
    """

    __slots__ = ("parent", "pod", "refused")

    def __init__(
        self,
        held: Held,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        refused: Callable[[], object] | None = None,
    ) -> None:
        held.head = Head(batch[0].seq - 1, GENESIS)
        super().__init__(held, held.head, batch)
        self.pod = pod
        self.parent = parent
        self.refused = refused

    def resolve(self, error: BaseException | None = None) -> None:
        if error is not None and self.refused is not None:
            self.refused()
        super().resolve(error)

    def values(self) -> tuple[Any, ...]:
        """The session's row."""
        held, parent = self.held, self.parent
        origin: tuple[Any, ...] = (None, None, None, None)
        if parent is not None:
            origin = (parent.kind, parent.session_id, parent.at_hash, parent.at_seq)
        claim = (None, None, None) if held.writer is None else (held.writer, held.pod, held.since)
        return (held.row, held.session_id, self.pod, self.at, *origin, held.generation, *claim)


class Release(Append):
    """The end of a claim."""

    __slots__ = ()

    def __init__(self, held: Held) -> None:
        super().__init__(held, held.head, ())


class Files(Protocol):
    """The files that are written to. ``packs``: whether a row may hold several entries there."""

    packs: bool

    def begin(self, connection: sqlite3.Connection, /) -> bool:
        """Begin a transaction. False where the files were lost; raises sqlite3.Error."""

    def has_changed(self) -> bool:
        """Whether the files were lost."""


def carry_out(db: sqlite3.Connection, jobs: Sequence[Append], files: Files) -> bool:
    """Make all jobs durable in one transaction, or none and raise; False where the files were lost.

    Raises HeadConflict where a batch does not go on from its session's head, else sqlite3.Error.
    """
    before = [(job.held, job.held.head, job.held.row) for job in jobs]
    done = False
    try:
        for job in jobs:
            if job.batch:
                check_follows(job.held.session_id, job.held.head, job.after, job.batch)
                last = job.batch[-1]
                job.held.head = Head(last.seq, last.hash)
        done = _execute(db, jobs, files)
    except sqlite3.IntegrityError:
        if not files.has_changed():
            raise
    finally:
        if not done:
            for held, head, row in reversed(before):
                held.head, held.row = head, row
    return done


def _execute(db: sqlite3.Connection, jobs: Sequence[Append], files: Files) -> bool:
    if {type(job) for job in jobs} == {Append}:
        entries = _entries(jobs, packs=files.packs)
        if len(entries) <= _ROWS_PER_STATEMENT * _ENTRY_VALUES:
            # A statement alone is a transaction, which looks whether the files are there by itself.
            if entries:
                db.execute(_insert(len(entries) // _ENTRY_VALUES), entries)
            return True
    if not files.begin(db):
        return False
    try:
        created = [job for job in jobs if isinstance(job, Create)]
        if created:
            _number(db, created)
            _in_parts(db, _CREATE, _SESSION, "", [value for job in created for value in job.values()])
        _in_parts(db, _INSERT, _ENTRY, "", _entries(jobs, packs=files.packs))
        released: list[Any] = []
        for job in jobs:
            if isinstance(job, Release):
                released += (job.held.row, job.held.generation)
        _in_parts(db, _RELEASE, "(?, ?)", ")", released)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
            db.execute("ROLLBACK")
        raise
    return True


def _number(db: sqlite3.Connection, created: Sequence[Create]) -> None:
    (last,) = db.execute("SELECT ifnull(max(id), 0) FROM sessions").fetchone()
    for row, job in enumerate(created, last + 1):
        job.held.row = row


def _entries(jobs: Sequence[Append], *, packs: bool) -> list[Any]:
    """The values of all entries' rows, one behind the other."""
    values: list[Any] = []
    for job in jobs:
        held, at = job.held, job.at
        row, generation, writer = held.row, held.generation, held.writer
        rows = pack(job.batch, job.size) if packs else pack_singly(job.batch)
        for first, mark, body in rows:
            values += (row, generation, writer, first, mark, body, at)
    return values


def _in_parts(db: sqlite3.Connection, verb: str, row: str, close: str, values: Sequence[Any]) -> None:
    """Execute a statement for rows of these values, which stand one behind the other."""
    width = row.count("?")
    for start in range(0, len(values), width * _ROWS_PER_STATEMENT):
        part = values[start : start + width * _ROWS_PER_STATEMENT]
        db.execute(verb + ", ".join([row] * (len(part) // width)) + close, part)


@cache
def _insert(rows: int) -> str:
    """The statement that adds so many rows of entries, as a transaction of its own."""
    return _INSERT + ", ".join([_FIRST_ENTRY, *[_ENTRY] * (rows - 1)])


def delete(db: sqlite3.Connection, row: int) -> None:
    """Remove a session and its entries."""
    db.execute("DELETE FROM entries WHERE session = ?", (row,))
    db.execute("DELETE FROM sessions WHERE id = ?", (row,))
