"""Claim: the cost of an approval: a run whose call a person allows, minus the same run with a rule that
allows it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import tool
from bench.claim import Claim, at_most
from bench.histories import text
from bench.measure import Stopwatch
from bench.models import Caller, manifest
from bench.results import Reading
from protocol.approval import ApprovalRule, Policy
from protocol.events import ApprovalRequested

CLAIM = Claim("approval", "approval: a call is asked about, answered at once and begins")

_METRIC = "time of an approval"
_TARGETS = {_METRIC: at_most(300e-6)}
_QUESTION = "Pay Ann."
#: Runs of one kind before it is the turn of the other.
_IN_A_ROW = 20


@tool
async def pay(to: str) -> str:
    """Pay somebody."""
    return f"{to} was paid"


async def _spawn(system: PodSystem, policy: Policy) -> Pod:
    wanted = manifest(policy, approval=[ApprovalRule("pay", policy)])
    return await system.spawn(wanted, client=Caller("pay", '{"to":"ann"}'), tools=[pay])


async def _run_asked(system: PodSystem, pod: Pod, count: int) -> None:
    with system.subscribe(pod=pod.name, kinds=(ApprovalRequested,)) as requests:
        for _ in range(count):
            run = pod.run(_QUESTION)
            request = await anext(aiter(requests))
            assert isinstance(request, ApprovalRequested)
            await pod.approve(request.approval_id)
            await run


async def _run_allowed(pod: Pod, count: int) -> None:
    for _ in range(count):
        await pod.run(_QUESTION)


async def _measure(store: str, count: int) -> list[Reading]:
    asking, allowing = Stopwatch(), Stopwatch()
    async with PodSystem(store) as system:
        asked, allowed = await _spawn(system, "ask"), await _spawn(system, "allow")
        left = count
        while left > 0:  # in turns, so that a busy moment affects both alike
            now = min(left, _IN_A_ROW)
            with allowing:
                await _run_allowed(allowed, now)
            with asking:
                await _run_asked(system, asked, now)
            left -= now
    cpu, wall = asking.cpu - allowing.cpu, asking.wall - allowing.wall
    return [Reading(_METRIC, "s", max(0.0, cpu) / count, "cpu", max(0.0, wall) / count)]


@CLAIM.case("in memory", full=600, quick=200, targets=_TARGETS)
def in_memory(count: int) -> list[Reading]:
    """The request, a subscriber that receives it, the answer, and the wait in between."""
    return asyncio.run(_measure("memory:", count))


@CLAIM.case("in a SQLite file", full=600, quick=200, targets=_TARGETS)
def in_a_file(count: int) -> list[Reading]:
    """An approval whose request and answer are durable before the call begins."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        return asyncio.run(_measure(f"sqlite:{folder}/pods.db", count))


@CLAIM.case("in a SQLite file", by="SQLite, 2 commits", kind="floor", full=2000, quick=500)
def two_commits(count: int) -> list[Reading]:
    """The request and the answer as rows, on one connection."""
    rows = [text(350, number) for number in range(2)]
    with (
        tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder,
        closing(sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)) as db,
    ):
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE entries (n INTEGER PRIMARY KEY, body TEXT)")
        with Stopwatch() as watch:
            for _ in range(count):
                for row in rows:
                    db.execute("INSERT INTO entries (body) VALUES (?)", (row,))
        return [watch.each(_METRIC, count)]
