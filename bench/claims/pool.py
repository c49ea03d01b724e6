"""Claim: the cost of a pool's durable jobs with a runner that answers at once, and whether many waiting jobs
raise it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from actors.routing.pool.pool import Pool
from actors.routing.pool.work import JobContext
from actors.system import PodSystem
from bench.claim import Claim, at_least, at_most_times
from bench.histories import text
from bench.measure import Stopwatch
from bench.results import Reading
from protocol.jobs import Job

CLAIM = Claim("pool", "pool: a job is queued, claimed, done at once and its end kept")

_JOBS, _EACH = "jobs", "time of a job"
_LIMIT = 256
_WORDS = text(200)
_MANY, _FEW = 100_000, 1_000


async def _answer(_: JobContext) -> str:
    return "done"


@contextmanager
def _store(options: str = "") -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        yield f"sqlite:{folder}/pods.db{options}"


async def _jobs(store: str, count: int) -> list[Reading]:
    watch = Stopwatch()
    async with PodSystem(store) as system:
        pool = Pool(system, {"instant": _answer}, {"instant": _LIMIT})
        with watch:
            ended = await asyncio.gather(*(pool.submit(Job("job", _WORDS)) for _ in range(count)))
        assert all(each.status == "done" for each in ended)
    return [watch.rate(_JOBS, count, "cpu"), watch.each(_EACH, count)]


@CLAIM.case("in a SQLite file", full=20_000, quick=4_000, targets={_JOBS: at_least(8_000)})
def durable(count: int) -> list[Reading]:
    """Jobs submitted together, done by one runner with 256 at once."""
    with _store() as store:
        return asyncio.run(_jobs(store, count))


@CLAIM.case("in a SQLite file, power", full=10_000, quick=2_000)
def power(count: int) -> list[Reading]:
    """Jobs whose commits are each synced to the disk."""
    with _store("?durability=power") as store:
        return asyncio.run(_jobs(store, count))


@CLAIM.case("in memory", full=20_000, quick=4_000)
def in_memory(count: int) -> list[Reading]:
    """Jobs that are kept in memory alone."""
    return asyncio.run(_jobs("memory:", count))


@CLAIM.case("in a SQLite file", by="SQLite, 3 commits for 256 jobs", kind="floor", full=20_000, quick=4_000)
def three_commits(count: int) -> list[Reading]:
    """Add a row, change it to claimed, and to done; 256 rows in each commit."""
    with (
        tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder,
        closing(sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)) as db,
    ):
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE jobs (n INTEGER PRIMARY KEY, state INTEGER, body TEXT)")
        db.execute("CREATE INDEX by_state ON jobs (state, n)")
        watch = Stopwatch()
        with watch:
            for first in range(0, count, _LIMIT):
                numbers = [(number,) for number in range(first, min(first + _LIMIT, count))]
                rows = [(number, 0, _WORDS) for (number,) in numbers]
                _commit(db, "INSERT INTO jobs VALUES (?, ?, ?)", rows)
                _commit(db, "UPDATE jobs SET state = 1 WHERE n = ?", numbers)
                _commit(db, "UPDATE jobs SET state = 2 WHERE n = ?", numbers)
        return [watch.rate(_JOBS, count, "cpu"), watch.each(_EACH, count)]


def _commit(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany(statement, rows)
    db.execute("COMMIT")


async def _done_of(store: str, waiting: int, count: int) -> list[Reading]:
    """What each of ``count`` jobs takes while ``waiting`` others wait, half of them for any runner."""
    watch = Stopwatch()
    async with PodSystem(store) as system:
        adds = Pool(system)
        await adds.submit_all(Job("later", _WORDS, None if n % 2 else "away", -1) for n in range(waiting))
        await adds.aclose()
        pool = Pool(system, {"instant": _answer}, {"instant": 16})
        with watch:
            await asyncio.gather(*(pool.submit(Job("job", _WORDS, "instant")) for _ in range(count)))
        await pool.aclose()
    return [watch.each(_EACH, count)]


@CLAIM.case(
    "while 100,000 wait",
    full=4_000,
    quick=1_000,
    rounds=2,
    targets={_EACH: at_most_times(1.2, "polypod, 1,000 wait")},
)
def many_wait(count: int) -> list[Reading]:
    """Each job of a runner with 16 at once, while 100,000 others are in the queue."""
    with _store() as store:
        return asyncio.run(_done_of(store, _MANY if count > 10 else 100, count))


@CLAIM.case("while 100,000 wait", by="polypod, 1,000 wait", kind="floor", full=4_000, quick=1_000, rounds=2)
def few_wait(count: int) -> list[Reading]:
    """Each job of a runner with 16 at once, while 1,000 others are in the queue."""
    with _store() as store:
        return asyncio.run(_done_of(store, _FEW if count > 10 else 10, count))
