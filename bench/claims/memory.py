"""Claim: the memory of a pod: idle, after its first turn, with a history, passive; and the cost of reading it
back.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable

from actors.pod.handle import Pod
from actors.system import PodSystem
from bench.claim import Claim, Measure, at_most
from bench.histories import items
from bench.measure import Holds, Stopwatch, rss
from bench.models import Parrot, manifest
from bench.results import Reading

CLAIM = Claim("memory", "memory of a pod, among 1,000 of its kind")

_ITEMS = 100
#: Pods that exist before those that are measured.
_BEFORE = 50


async def _nothing(_: Pod) -> None:
    """Leave the pod idle."""


async def _one_turn(pod: Pod) -> None:
    await pod.run("What is the answer?")


async def _history(pod: Pod) -> None:
    for item in items(_ITEMS):
        await pod.push_item(item)


async def _passivate(pod: Pod) -> None:
    await _history(pod)
    assert await pod.passivate()


def _kept(work: Callable[[Pod], object], *, durable: bool) -> Measure:
    async def pods(store: str, count: int) -> list[Reading]:
        async with PodSystem(store) as system:
            client, wanted = Parrot(), manifest()
            for _ in range(min(count, _BEFORE)):  # creates what the store keeps once for all
                await work(await system.spawn(wanted, client=client))  # type: ignore[misc]
            before = rss()
            for _ in range(count):
                await work(await system.spawn(wanted, client=client))  # type: ignore[misc]
            return [Reading("memory each", "B", max(0, rss() - before) / count)]

    def measure(count: int) -> list[Reading]:
        if not durable:
            return asyncio.run(pods("memory:", count))
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(pods(f"sqlite:{folder}/pods.db", count))

    return measure


def bare_items(count: int) -> list[Reading]:
    """The items of such a history in a list, nothing else."""
    before = rss()
    kept = [list(items(_ITEMS)) for _ in range(count)]
    return [Reading("memory each", "B", max(0, rss() - before) / len(kept))]


_SIZE = {"full": 1000, "quick": 500, "tiny": 3, "rounds": 1, "warm_up": 5}


def _add(case: str, work: Callable[[Pod], object], *, durable: bool, limit: float | None = None) -> None:
    targets = {} if limit is None else {"memory each": at_most(limit)}
    CLAIM.case(case, **_SIZE, targets=targets)(_kept(work, durable=durable))  # type: ignore[arg-type]


_add("idle, session in memory", _nothing, durable=False, limit=4096)
_add("idle, session in a file", _nothing, durable=True, limit=4096)
_add("after a turn, session in memory", _one_turn, durable=False)
_add("after a turn, session in a file", _one_turn, durable=True)
_add(f"{_ITEMS} items, session in memory", _history, durable=False)
_add(f"{_ITEMS} items, session in a file", _history, durable=True)
_add(f"{_ITEMS} items, passivated, session in memory", _passivate, durable=False)
_add(f"{_ITEMS} items, passivated, session in a file", _passivate, durable=True, limit=4096)
CLAIM.case(f"{_ITEMS} items, session in a file", by="list of items", kind="floor", **_SIZE)(bare_items)  # type: ignore[arg-type]


# -- the way back ----------------------------------------------------------------------------------


async def _back(length: int, times: int) -> list[Reading]:
    back, holds = Stopwatch(), Holds()
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        async with PodSystem(f"sqlite:{folder}/pods.db") as system:
            pod = await system.spawn(manifest(), client=Parrot())
            for item in items(length):
                await pod.push_item(item)
            for _ in range(times):
                await pod.passivate()
                with back:
                    await pod.history()
            await pod.passivate()
            with holds:
                await pod.history()
    return [back.each("time to come back", times), holds.reading()]


def _add_way_back(length: int, times: int, limit: float) -> None:
    def measure(count: int) -> list[Reading]:
        return asyncio.run(_back(length, count))

    CLAIM.case(
        f"back with {length:,} items from a file",
        full=times,
        quick=max(1, times // 4),
        tiny=1,
        targets={"time to come back": at_most(limit), "longest hold of the loop": at_most(0.010)},
    )(measure)


_add_way_back(100, 200, 0.001)
_add_way_back(10_000, 8, 0.040)
