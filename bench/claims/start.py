"""Claim: how fast idle pods start and stop, and how much memory each keeps."""

from __future__ import annotations

import asyncio

import pykka

from actors.system import PodSystem
from bench.claim import Claim, Measure, at_least, at_most
from bench.measure import Stopwatch, rss
from bench.models import Parrot, manifest
from bench.results import Reading

CLAIM = Claim("start", "start: idle pods, each with a mailbox and an open session")

_WARM_UP = 200


def pods(count: int) -> list[Reading]:
    """Spawn ``count`` pods, keep them idle, stop them."""
    return asyncio.run(_pods(count))


async def _pods(count: int) -> list[Reading]:
    starting, stopping = Stopwatch(), Stopwatch()
    client, wanted = Parrot(), manifest()
    async with PodSystem() as system:
        before = rss()
        with starting:
            for _ in range(count):
                await system.spawn(wanted, client=client)
        after = rss()
        with stopping:
            await system.stop()
    return _readings(count, starting, stopping, before, after)


def _readings(count: int, starting: Stopwatch, stopping: Stopwatch, before: int, after: int) -> list[Reading]:
    return [
        starting.rate("starts", count, "cpu"),
        Reading("memory each", "B", (after - before) / count),
        Reading("memory of the process", "B", after),
        stopping.rate("stops", count, "cpu"),
    ]


async def _tasks(count: int) -> list[Reading]:
    async def idle(inbox: asyncio.Queue[None]) -> None:
        await inbox.get()

    starting, stopping = Stopwatch(), Stopwatch()
    before = rss()
    with starting:
        inboxes: list[asyncio.Queue[None]] = [asyncio.Queue() for _ in range(count)]
        tasks = [asyncio.create_task(idle(inbox)) for inbox in inboxes]
        await asyncio.sleep(0)
    after = rss()
    with stopping:
        for inbox in inboxes:
            inbox.put_nowait(None)
        await asyncio.gather(*tasks)
    return _readings(count, starting, stopping, before, after)


def tasks(count: int) -> list[Reading]:
    """An asyncio task with a queue for each."""
    return asyncio.run(_tasks(count))


class _Idle(pykka.ThreadingActor):
    """An actor that does nothing, on a thread of its own."""


def threads(count: int) -> list[Reading]:
    """A pykka ThreadingActor for each."""
    starting, stopping = Stopwatch(), Stopwatch()
    before = rss()
    with starting:
        actors = [_Idle.start() for _ in range(count)]
    after = rss()
    with stopping:
        for actor in reversed(actors):
            actor.stop()
    return _readings(count, starting, stopping, before, after)


def _add(case: str, full: int, quick: int, rounds: int) -> None:
    targets = {"memory each": at_most(2560)}
    if full == 100_000:
        targets["memory of the process"] = at_most(300e6)
    else:  # among 100,000 Python's garbage collector sets the rate; see SCALING.md
        targets["starts"] = at_least(50e3)

    def add(by: str, measure: Measure, **more: object) -> None:
        CLAIM.case(case, by=by, full=full, quick=quick, rounds=rounds, warm_up=_WARM_UP, **more)(measure)  # type: ignore[arg-type]

    add("polypod", pods, targets=targets)
    add("asyncio task and queue", tasks, kind="floor")


_add("10k pods", 10_000, 10_000, 1)
_add("100k pods", 100_000, 100_000, 1)
CLAIM.case("10k pods", by="pykka threads (1k)", kind="peer", full=1_000, quick=300, rounds=1, warm_up=20)(
    threads
)
