"""Claim: 100,000 sessions in one SQLite file are listed and found, and one of them is resumed."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Raw

from actors.sessions.chain import chained
from actors.sessions.head import new_session_id
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from bench.root import ROOT
from protocol.entries import SessionOpened, StoredEntry
from protocol.events import AssistantMessage, RunEnd, RunStart, UserMessage
from protocol.items import AssistantItem, UserItem
from protocol.wire import encode

CLAIM = Claim("sessions", "many sessions: 100,000 of one pod's name in a SQLite file")

_WANTED = Raw(encode(manifest()))
#: Sessions that are given to the store before the loop gets its turn.
_HANDFUL = 100


def _one_run(session_id: str) -> list[StoredEntry]:
    """The entries of a session in which one question was answered."""
    common = {"pod": "bench", "session_id": session_id, "at": time.time()}
    events = [
        SessionOpened(seq=1, manifest=_WANTED, **common),  # type: ignore[arg-type]
        RunStart(seq=2, run_id="r", **common),  # type: ignore[arg-type]
        UserMessage(seq=3, run_id="r", item=UserItem.of("Hello"), **common),  # type: ignore[arg-type]
        AssistantMessage(seq=4, run_id="r", item=AssistantItem.of("Hi"), **common),  # type: ignore[arg-type]
        RunEnd(seq=5, run_id="r", outcome="finished", steps=1, **common),  # type: ignore[arg-type]
    ]
    return chained(map(encode, events))


async def _fill(path: Path, count: int) -> list[str]:
    store = SQLiteStore(path)
    ids = [new_session_id() for _ in range(count)]
    for start in range(0, count, _HANDFUL):
        some = ids[start : start + _HANDFUL]
        pending = [store.create(each, "bench", None, _one_run(each), claim=False) for each in some]
        await asyncio.gather(*(future for future in pending if future is not None))
    store.close()
    return ids


def _timed(metric: str, work: Callable[[], object]) -> Reading:
    with Stopwatch() as watch:
        work()
    return watch.each(metric, 1)


def _command(path: Path) -> tuple[float, float]:
    """Processor seconds and seconds on the wall of ``polypod ps``, as a process of its own."""
    command = [sys.executable, "-m", "polypod", "ps", "--store", f"sqlite:{path}"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _beyond_start(path: Path, empty: Path, times: int) -> Reading:
    """What the command takes beyond its imports: the least of some tries, since others use the
    machine too.
    """
    starts = [_command(empty) for _ in range(times)]
    lists = [_command(path) for _ in range(times)]
    cpu, wall = (max(0.0, min(each[n] for each in lists) - min(each[n] for each in starts)) for n in (0, 1))
    return Reading("polypod ps, beyond that of an empty store", "s", cpu, "cpu", wall)


async def _resume(path: Path, session_id: str, watch: Stopwatch) -> None:
    async with PodSystem(f"sqlite:{path}") as system:
        with watch:
            pod = await system.spawn(manifest(), client=Parrot(), resume=session_id)
        assert len(await pod.history()) == 2


@CLAIM.case(
    "100,000 sessions",
    full=100_000,
    quick=20_000,
    tiny=20,
    rounds=1,
    warm_up=10,
    targets={
        "time to list 50": at_most(0.020),
        "time to find one by its id's beginning": at_most(0.020),
        "polypod ps, beyond that of an empty store": at_most(0.2),
        "time to resume one": at_most(0.020),
    },
)
def sessions(count: int) -> list[Reading]:
    """Fill a store through its own methods, open it anew, and query it."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        path = Path(folder, "pods.db")
        filling = Stopwatch()
        with filling:
            ids = asyncio.run(_fill(path, count))
        middle = ids[count // 2]
        store = SQLiteStore(path)
        listing = _timed("time to list 50", lambda: store.sessions(limit=50))
        of_pod = _timed("time to list 50 of a pod", lambda: store.sessions(pod="bench", limit=50))
        finding = _timed("time to find one by its id's beginning", lambda: store.matching(middle[:-2], 5))
        store.close()
        beyond = _beyond_start(path, Path(folder, "empty.db"), 3 if count > 1000 else 1)
        resuming = Stopwatch()
        asyncio.run(_resume(path, middle, resuming))
    return [
        listing,
        of_pod,
        finding,
        beyond,
        resuming.each("time to resume one", 1),
        filling.each("time to make one", count),
    ]


@CLAIM.case("100,000 sessions", by="SELECT by rowid", kind="floor", full=100_000, quick=20_000, tiny=20)
def by_hand(count: int) -> list[Reading]:
    """The last fifty rows of a table of so many."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        db = sqlite3.connect(Path(folder, "bare.db"))
        db.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, uuid TEXT, pod TEXT, at REAL)")
        rows = ((f"session-{number}", "bench", 1.0) for number in range(count))
        db.executemany("INSERT INTO sessions (uuid, pod, at) VALUES (?, ?, ?)", rows)
        db.commit()
        query = "SELECT * FROM sessions ORDER BY id DESC LIMIT 50"
        listing = _timed("time to list 50", lambda: db.execute(query).fetchall())
        db.close()
    return [listing]
