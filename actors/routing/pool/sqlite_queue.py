"""``SQLiteQueue``: jobs in tables of a store's file, which many processes may work off together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from actors.routing.pool.queue import (
    MOST_DEATHS,
    Claimed,
    Ended,
    NewJob,
    Outlook,
    Returned,
    TaskQueue,
    Window,
    cancelled_waiting,
    job_id,
    lost,
    number_of,
)
from actors.routing.pool.scheduling import Start, Waiting
from actors.sessions.sqlite.tables import StoreTables, have_tables, make_tables
from protocol.errors import StoreError
from protocol.jobs import Execution, Job, JobStatus
from protocol.text import UNDECODABLE

T = TypeVar("T")

# What changes often is in short rows of its own: SQLite writes a row whole, whatever changes of it.
_TABLES = {
    "pool_jobs": {
        "n": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "state": "INTEGER NOT NULL DEFAULT 0",
        "lane": "TEXT NOT NULL DEFAULT ''",
        "priority": "INTEGER NOT NULL DEFAULT 0",
        "asked": "TEXT NOT NULL DEFAULT ''",
        "avoid": "TEXT NOT NULL DEFAULT ''",
        "owner": "TEXT",
        "cancel": "INTEGER NOT NULL DEFAULT 0",
        "keep": "INTEGER NOT NULL DEFAULT 1",
        "attempts": "INTEGER NOT NULL DEFAULT 0",
        "deaths": "INTEGER NOT NULL DEFAULT 0",
        "losses": "INTEGER NOT NULL DEFAULT 0",
        "model": "TEXT",
        "reason": "TEXT",
        "submitted": "REAL NOT NULL DEFAULT 0",
        "started": "REAL",
    },
    "pool_texts": {"n": "INTEGER PRIMARY KEY", "body": "BLOB NOT NULL"},
    # No number comes twice, since who has seen the ends up to one asks for those behind it.
    "pool_ends": {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "n": "INTEGER NOT NULL UNIQUE",
        "body": "BLOB NOT NULL",
        # In the body as well: so that others can sum them up.
        "tokens_in": "INTEGER",
        "tokens_out": "INTEGER",
        "cost_usd": "REAL",
    },
}
_INDEXES = {"pool_jobs_next": "pool_jobs (state, lane, priority DESC, n)"}

#: How a status is kept.
_STATES: tuple[JobStatus, ...] = ("queued", "running", "done", "failed", "cancelled", "lost")
_NUMBERS = {status: number for number, status in enumerate(_STATES)}
_QUEUED, _RUNNING = 0, 1
#: The greatest number that SQLite has.
_MOST = (1 << 63) - 1

_ADD = "INSERT INTO pool_jobs (lane, asked, priority, keep, submitted) VALUES (?, ?, ?, ?, ?)"
_ADD_TEXT = "INSERT INTO pool_texts (n, body) VALUES (?, ?)"
#: Each lane in which a job waits, found by as many steps in the index as there are lanes.
_LANES = """
WITH RECURSIVE lanes (lane) AS (
    SELECT min(lane) FROM pool_jobs WHERE state = 0
    UNION ALL SELECT (SELECT min(lane) FROM pool_jobs WHERE state = 0 AND lane > lanes.lane)
    FROM lanes WHERE lanes.lane IS NOT NULL
) SELECT lane FROM lanes WHERE lane IS NOT NULL
"""
_HEADS = """
SELECT n, priority, lane, asked = lane AND lane <> '', avoid FROM pool_jobs
WHERE state = 0 AND lane = ? ORDER BY priority DESC, n LIMIT ?
"""
_ACTIVE = "SELECT lane, count(*) FROM pool_jobs WHERE state = 1 GROUP BY lane"
# The model that a classifier named is for the runner that it named.
_START = """
UPDATE pool_jobs SET state = 1, model = iif(lane = ?, model, NULL), lane = ?, owner = ?, started = ?,
    attempts = attempts + 1, cancel = 0
WHERE n = ? AND state = 0 RETURNING model, reason, attempts, deaths, submitted
"""
_END = "UPDATE pool_jobs SET state = ?, owner = NULL WHERE n = ? AND state = 1 AND owner = ?"
_ADD_END = """
INSERT OR IGNORE INTO pool_ends (n, body, tokens_in, tokens_out, cost_usd) VALUES (?, ?, ?, ?, ?)
"""
_GIVE_BACK = """
UPDATE pool_jobs SET state = 0, lane = asked, avoid = iif(? = '', avoid, ?), owner = NULL,
    deaths = deaths + (? <> ''), attempts = attempts - ?, started = NULL
WHERE n = ? AND state = 1 AND owner = ? RETURNING cancel
"""
_TAKE_BACK = """
UPDATE pool_jobs SET state = 0, owner = NULL, started = NULL, losses = losses + 1,
    lane = asked WHERE n = ?
"""
_ROW = """
SELECT j.n, j.state, j.lane, j.model, j.reason, j.attempts, j.submitted, j.started, t.body
FROM pool_jobs AS j JOIN pool_texts AS t ON t.n = j.n
"""


_ENDED_BEFORE = """
SELECT n, body FROM pool_ends WHERE json_extract(CAST(body AS TEXT), '$.ended_at') < ? ORDER BY id
"""
_FORGET = tuple(f"DELETE FROM {table} WHERE n = ?" for table in _TABLES)  # noqa: S608 - names of ours


class SQLiteQueue(TaskQueue):
    """Jobs that outlive their process, in the file of a session store."""

    may_block = True
    is_durable = True

    def __init__(self, tables: StoreTables, close: Callable[[], object] = lambda: None) -> None:
        """``close`` is called once the tables are. Raises StoreError."""
        self.url = tables.url
        self.folder = tables.writer.folder.with_suffix(".pool")
        self._tables, self._close = tables, close
        self._db: sqlite3.Connection | None = None
        with tables.reading() as db:
            made = have_tables(db, _TABLES, _INDEXES)
        if not made:
            with tables.transaction() as db:
                make_tables(db, _TABLES, _INDEXES)

    @property
    def _owner(self) -> str:
        return self._tables.writer.id

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._tables.transaction() as db:
            self._db = db
            try:
                yield
            finally:
                self._db = None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection of the transaction that is open, or one that reads."""
        if self._db is not None:
            yield self._db
        else:
            with self._tables.reading() as db:
                yield db

    @property
    def _writing(self) -> sqlite3.Connection:
        assert self._db is not None, "what changes a queue is done in a transaction"
        return self._db

    def add(self, jobs: Sequence[NewJob]) -> list[int]:
        db, numbers = self._writing, list[int]()
        for new in jobs:
            job = new.job
            row = (job.agent or "", job.priority, job.on_lost == "requeue", new.at)
            number = db.execute(_ADD, (row[0], *row)).lastrowid
            assert number is not None
            numbers.append(number)
        encode = _encoder.encode
        db.executemany(
            _ADD_TEXT, ((number, encode(new.job)) for number, new in zip(numbers, jobs, strict=True))
        )
        return numbers

    def outlook(self, window: Window) -> Outlook:
        waiting: list[Waiting] = []
        with self._reading() as db:
            active: dict[str, int] = dict(db.execute(_ACTIVE).fetchall())
            for (lane,) in db.execute(_LANES).fetchall():
                if (count := window(lane, active)) > 0:
                    rows = db.execute(_HEADS, (lane, count))
                    waiting += [Waiting(n, priority, lane, bool(p), a) for n, priority, lane, p, a in rows]
        return Outlook(waiting, active)

    def start(self, starts: Sequence[Start], at: float) -> list[Claimed]:
        db, owner, claimed = self._writing, self._owner, list[Claimed]()
        for each in starts:
            row = db.execute(_START, (each.agent, each.agent, owner, at, each.number)).fetchone()
            if row is None:
                continue
            (body,) = db.execute("SELECT body FROM pool_texts WHERE n = ?", (each.number,)).fetchone()
            model, reason, attempts, deaths, submitted = row
            job = _decoded(_jobs, each.number, body)
            claimed.append(
                Claimed(each.number, job, each.agent, model, reason, attempts, deaths, submitted, at)
            )
        return claimed

    def end(self, ends: Sequence[Ended]) -> None:
        db, owner = self._writing, self._owner
        for each in ends:
            execution = each.execution
            if db.execute(_END, (_NUMBERS[execution.status], each.number, owner)).rowcount:
                db.execute(_ADD_END, _end_row(each.number, execution))

    def give_back(self, returns: Sequence[Returned], at: float) -> None:
        db, owner = self._writing, self._owner
        for each in returns:
            row = db.execute(_GIVE_BACK, (*[each.avoid] * 3, each.uncounted, each.number, owner)).fetchone()
            if row is not None and row[0]:
                self.cancel(each.number, at)

    def assign(self, number: int, lane: str, model: str | None, reason: str | None) -> None:
        self._writing.execute(
            "UPDATE pool_jobs SET lane = ?, model = ?, reason = ? WHERE n = ? AND state = 0",
            (lane, model, reason, number),
        )

    def open_lane(self, lane: str) -> None:
        self._writing.execute(
            "UPDATE pool_jobs SET lane = '', model = NULL WHERE state = 0 AND lane = ? AND lane <> asked",
            (lane,),
        )

    def cancel(self, number: int, at: float) -> JobStatus | None:
        db = self._writing
        row = db.execute("SELECT state FROM pool_jobs WHERE n = ?", (number,)).fetchone()
        if row is None:
            return None
        if row[0] == _QUEUED:
            self._keep_end(db, number, lambda was: cancelled_waiting(was, at))
        elif row[0] == _RUNNING:
            db.execute("UPDATE pool_jobs SET cancel = 1 WHERE n = ?", (number,))
        status: JobStatus = _STATES[row[0]]
        return status

    def _keep_end(self, db: sqlite3.Connection, number: int, end: Callable[[Execution], Execution]) -> None:
        was = _find(db, number)
        assert was is not None
        execution = end(was)
        state = _NUMBERS[execution.status]
        db.execute("UPDATE pool_jobs SET state = ?, owner = NULL WHERE n = ?", (state, number))
        db.execute(_ADD_END, _end_row(number, execution))

    def cancels(self) -> list[int]:
        query = "SELECT n FROM pool_jobs WHERE state = 1 AND cancel AND owner = ?"
        with self._reading() as db:
            return [number for (number,) in db.execute(query, (self._owner,))]

    def has_dead(self) -> bool:
        with self._reading() as db:
            return bool(self._dead(db))

    def _dead(self, db: sqlite3.Connection) -> list[str]:
        """The processes that had jobs, and of which nothing is left."""
        owners = db.execute("SELECT DISTINCT owner FROM pool_jobs WHERE state = 1").fetchall()
        alive = self._tables.writer.alive
        return [owner for (owner,) in owners if owner != self._owner and alive(owner) is None]

    def take_back(self, at: float) -> list[int]:
        db, taken = self._writing, list[int]()
        for owner in self._dead(db):
            rows = db.execute(
                "SELECT n, keep, losses, cancel FROM pool_jobs WHERE state = 1 AND owner = ?", (owner,)
            ).fetchall()
            for number, keep, losses, cancel in rows:
                if keep and losses < MOST_DEATHS:
                    db.execute(_TAKE_BACK, (number,))
                    if cancel:
                        self.cancel(number, at)
                else:
                    self._keep_end(db, number, lambda was: lost(was, at))
                taken.append(number)
        return taken

    def ended_since(
        self, mark: int | None, wanted: Container[int]
    ) -> tuple[int, list[tuple[int, Execution]]]:
        with self._reading() as db:
            if mark is None:
                # The last number that was given, also where its row is gone.
                row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'pool_ends'").fetchone()
                return (0 if row is None else row[0]), []
            rows = db.execute("SELECT id, n FROM pool_ends WHERE id > ? ORDER BY id", (mark,)).fetchall()
            ended = [(number, _find(db, number)) for _, number in rows if number in wanted]
        found = [(number, execution) for number, execution in ended if execution is not None]
        return (rows[-1][0] if rows else mark), found

    def ended_before(self, at: float) -> list[Execution]:
        with self._reading() as db:
            return [_decoded(_executions, number, body) for number, body in db.execute(_ENDED_BEFORE, (at,))]

    def forget(self, ended: Iterable[Execution]) -> None:
        numbers = [(number_of(each.id),) for each in ended]
        for delete in _FORGET:
            self._writing.executemany(delete, numbers)

    def has_open(self) -> bool:
        with self._reading() as db:
            return db.execute("SELECT 1 FROM pool_jobs WHERE state IN (0, 1) LIMIT 1").fetchone() is not None

    def find(self, number: int) -> Execution | None:
        with self._reading() as db:
            return _find(db, number)

    def list(self, statuses: Iterable[JobStatus], limit: int | None) -> list[Execution]:
        states = [_NUMBERS[status] for status in statuses]
        marks = ", ".join("?" * len(states))
        query = f"{_ROW} WHERE j.state IN ({marks}) ORDER BY j.n DESC LIMIT ?"
        with self._reading() as db:
            rows = db.execute(query, (*states, -1 if limit is None else min(limit, _MOST))).fetchall()
        return [_execution(*row) for row in rows]

    def counts(self) -> dict[tuple[JobStatus, str], int]:
        query = "SELECT state, lane, count(*) FROM pool_jobs GROUP BY state, lane"
        with self._reading() as db:
            return {(_STATES[state], lane): count for state, lane, count in db.execute(query)}

    def has_changed(self) -> bool:
        return self._tables.has_changed()

    @property
    def lock_descriptor(self) -> int:
        return self._tables.lock_descriptor

    def close(self) -> None:
        self._tables.close()
        self._close()


_encoder = msgspec.json.Encoder()
_jobs = msgspec.json.Decoder(Job)
_executions = msgspec.json.Decoder(Execution)


def _decoded(decoder: msgspec.json.Decoder[T], number: int, body: bytes) -> T:
    """What is kept of a job. Raises StoreError where somebody, or a disk, has damaged that."""
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise StoreError(
            f"job {number} of the pool is damaged: {error}",
            hint="restore the store from a copy, or delete its rows in pool_jobs and pool_ends with sqlite3",
        ) from error


def _end_row(number: int, execution: Execution) -> tuple[int, bytes, int | None, int | None, float | None]:
    usage = execution.usage
    taken, given = (None, None) if usage is None else (usage.input_tokens, usage.output_tokens)
    return number, _encoder.encode(execution), taken, given, execution.cost


def _find(db: sqlite3.Connection, number: int) -> Execution | None:
    ended = db.execute("SELECT body FROM pool_ends WHERE n = ?", (number,)).fetchone()
    if ended is not None:
        return _decoded(_executions, number, ended[0])
    row = db.execute(f"{_ROW} WHERE j.n = ?", (number,)).fetchone()
    return None if row is None else _execution(*row)


def _execution(
    number: int,
    state: int,
    lane: str,
    model: str | None,
    reason: str | None,
    attempts: int,
    submitted: float,
    started: float | None,
    body: bytes,
) -> Execution:
    job = _decoded(_jobs, number, body)
    return Execution(
        id=job_id(job, number),
        job=job,
        agent=lane or None,
        model=model or job.model,
        reason=reason,
        status=_STATES[state],
        attempts=attempts,
        submitted_at=submitted,
        started_at=started,
    )
