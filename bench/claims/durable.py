"""Claim: the cost of a durable turn: a session in a SQLite file that survives the end of the process, or a
power cut.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.llm.base import End, TextChunk, UsageReport
from actors.pod.handle import Pod
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.histories import text
from bench.measure import Stopwatch, written
from bench.models import Parrot, manifest
from bench.results import Reading, Target
from protocol.usage import Usage

CLAIM = Claim("durable", "durable turn: 1 KB said and answered, kept in a SQLite file")

_QUESTION = text(500)
_CLIENT = Parrot([TextChunk(text(500, 1)), UsageReport(Usage(10, 5)), End("end_turn")])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        yield Path(folder)


async def _runs(pod: Pod, count: int) -> None:
    for _ in range(count):
        await pod.run(_QUESTION)


async def _turns(store: str, pods: int, each: int) -> list[Reading]:
    turning = Stopwatch()
    async with PodSystem(store) as system:
        wanted = manifest()
        spawned = [await system.spawn(wanted, client=_CLIENT) for _ in range(pods)]
        await asyncio.gather(*(_runs(pod, 1) for pod in spawned))
        before = written()
        with turning:
            await asyncio.gather(*(_runs(pod, each) for pod in spawned))
        bytes_written = written() - before
    turns = pods * each
    return [
        turning.each("time of a turn", turns),
        turning.rate("turns", turns),
        Reading("written for a turn", "B", bytes_written / turns),
    ]


async def _growth(store: str, turns: int) -> list[Reading]:
    """What the first quarter of a long session writes for a turn, and the last one."""
    part = max(1, turns // 4)
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest(), client=_CLIENT)
        await _runs(pod, part)  # until the write-ahead log is being merged
        marks = [written()]
        for _ in range(4):
            await _runs(pod, part)
            marks.append(written())
    first, last = (marks[1] - marks[0]) / part, (marks[4] - marks[3]) / part
    return [
        Reading("written for a turn", "B", (marks[4] - marks[0]) / (4 * part)),
        Reading("last quarter over the first", "count", last / first if first else 1.0),
    ]


# -- the floor -------------------------------------------------------------------------------------


def _commits(path: Path, *, synchronous: str, turns: int) -> list[Reading]:
    """Two commits a turn on one connection, with as many bytes in as many rows."""
    rows = [text(700, number) for number in range(2)]
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size = 2048")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("CREATE TABLE entries (session INTEGER, n INTEGER, body TEXT, UNIQUE (session, n))")
    before = written()
    with Stopwatch() as watch:
        for number in range(turns):
            for half in range(2):
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "INSERT INTO entries (session, n, body) VALUES (?, ?, ?)",
                    [(number % 64, 4 * number + 2 * half + row, rows[row]) for row in range(2)],
                )
                db.execute("COMMIT")
    bytes_written = written() - before
    db.close()
    return [
        watch.each("time of a turn", turns),
        watch.rate("turns", turns),
        Reading("written for a turn", "B", bytes_written / turns),
    ]


def _add(durability: str, pods: int, full: int, quick: int, targets: dict[str, Target]) -> None:
    case = f"{durability}, {pods} sessions at once" if pods > 1 else f"{durability}, one session"

    def measure(each: int) -> list[Reading]:
        with _folder() as folder:
            return asyncio.run(_turns(f"sqlite:{folder}/pods.db?durability={durability}", pods, each))

    def floor(each: int) -> list[Reading]:
        synchronous = "FULL" if durability == "power" else "OFF"
        with _folder() as folder:
            return _commits(folder / "bare.db", synchronous=synchronous, turns=pods * each)

    CLAIM.case(case, full=full, quick=quick, tiny=1, targets=targets)(measure)
    CLAIM.case(case, by="SQLite, 2 commits", kind="floor", full=full, quick=quick, tiny=1)(floor)


_WRITTEN = {"written for a turn": at_most(8 * 1024)}
_add("process", 1, 1000, 250, _WRITTEN)
_add("process", 64, 30, 8, {"time of a turn": at_most(0.2e-3), **_WRITTEN})
_add("power", 1, 200, 50, _WRITTEN)
_add("power", 64, 15, 5, {"time of a turn": at_most(0.2e-3), **_WRITTEN})


@CLAIM.case(
    "a long session",
    full=4000,
    quick=4000,
    tiny=4,
    rounds=1,
    targets={"last quarter over the first": at_most(1.25), **_WRITTEN},
)
def growth(turns: int) -> list[Reading]:
    """What a turn writes does not depend on how many came before."""
    with _folder() as folder:
        return asyncio.run(_growth(f"sqlite:{folder}/pods.db", turns))


@CLAIM.case("a long session", by="SQLite, 2 commits", kind="floor", full=4000, quick=4000, tiny=4, rounds=1)
def growth_by_hand(turns: int) -> list[Reading]:
    """As many bytes in as many rows of one table."""
    with _folder() as folder:
        return _commits(folder / "bare.db", synchronous="OFF", turns=turns)
