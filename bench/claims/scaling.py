"""Claim: which costs stay flat from a thousand pods to a hundred thousand; likewise for streams, histories
and processes.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import tempfile
import time
from typing import Any

from actors.pod.handle import Pod
from actors.system import PodSystem
from bench.claim import Claim
from bench.claims.http import measured_streams
from bench.filling import fill_session
from bench.measure import Stopwatch, rss
from bench.models import Parrot, manifest
from bench.results import Reading

CLAIM = Claim("scaling", "scaling: the same work among more pods, more streams, and on longer histories")

#: What a program with very many pods may pass to ``gc.set_threshold``.
CALM = (50_000, 20, 50)
_ONCE: dict[str, Any] = {"rounds": 1, "warm_up": 50}


# -- pods ------------------------------------------------------------------------------------------


async def _pods(count: int) -> list[Reading]:
    starting, turning = Stopwatch(), Stopwatch()
    async with PodSystem() as system:
        client, wanted = Parrot(), manifest()
        before = rss()
        with starting:
            pods: list[Pod] = [await system.spawn(wanted, client=client) for _ in range(count)]
        with turning:
            for pod in [pod.run("What is the answer?") for pod in pods]:
                await pod
        kept = rss() - before
    return [
        starting.each("time to start a pod", count),
        turning.each("time of a turn", count),
        Reading("memory of a pod after a turn", "B", max(0, kept) / count),
    ]


def pods(count: int) -> list[Reading]:
    """So many pods that all have a turn at once."""
    return asyncio.run(_pods(count))


for _number in (1_000, 10_000, 100_000):
    CLAIM.case(f"{_number:,} pods", full=_number, quick=_number, tiny=_number // 1000, **_ONCE)(pods)


def pods_with_a_calm_collector(count: int) -> list[Reading]:
    """So many pods in a process whose garbage collector looks at young objects less often."""
    gc.set_threshold(*CALM)
    return asyncio.run(_pods(count))


CLAIM.case(
    "100,000 pods, a calm collector",
    full=100_000,
    quick=100_000,
    tiny=100,
    **_ONCE,
)(pods_with_a_calm_collector)


# -- streams ---------------------------------------------------------------------------------------

for _number in (1, 8, 64, 256, 512):
    CLAIM.case(
        f"{_number} streams",
        full=max(256, 2 * _number),
        quick=max(32, _number),
        tiny=_number,
        rounds=2,
        warm_up=_number,
    )(measured_streams("each", _number))


# -- history ---------------------------------------------------------------------------------------


async def _on_top_of(length: int, turns: int) -> list[Reading]:
    restoring, turning = Stopwatch(), Stopwatch()
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        store = f"sqlite:{folder}/pods.db"
        session_id = fill_session(store, length)
        async with PodSystem(store) as system:
            with restoring:
                pod = await system.spawn(manifest(), client=Parrot(), resume=session_id)
            await pod.run("And now?")
            with turning:
                for _ in range(turns):
                    await pod.run("And now?")
    return [turning.each("time of a turn", turns), restoring.each("time to restore an item", length)]


def _add_history(length: int) -> None:
    def measure(turns: int) -> list[Reading]:
        return asyncio.run(_on_top_of(length, turns))

    CLAIM.case(f"on top of {length:,} items", full=500, quick=100, tiny=1, rounds=1, warm_up=1)(measure)


for _number in (10, 100, 1_000, 10_000, 100_000):
    _add_history(_number)


# -- processes -------------------------------------------------------------------------------------

_PODS_EACH = 32


async def _durable_turns(store: str, turns: int, ready: Any) -> float:
    """The processor seconds of a process whose pods have so many turns each, once all are ready."""
    turning = Stopwatch()
    async with PodSystem(store) as system:
        client, wanted = Parrot(), manifest()
        pods: list[Pod] = [await system.spawn(wanted, client=client) for _ in range(_PODS_EACH)]

        async def runs(pod: Pod, count: int) -> None:
            for _ in range(count):
                await pod.run("What is the answer?")

        await asyncio.gather(*(runs(pod, 1) for pod in pods))
        ready.wait()
        with turning:
            await asyncio.gather(*(runs(pod, turns) for pod in pods))
    return turning.cpu


def _one_process(store: str, turns: int, ready: Any, took: Any) -> None:
    """The work of one process: its sessions are its own, the file is shared."""
    took.put(asyncio.run(_durable_turns(store, turns, ready)))


def _on_one_file(processes: int, turns: int) -> list[Reading]:
    spawning = multiprocessing.get_context("spawn")
    ready, took = spawning.Barrier(processes + 1), spawning.Queue()
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        started = [
            spawning.Process(target=_one_process, args=(f"sqlite:{folder}/pods.db", turns, ready, took))
            for _ in range(processes)
        ]
        for process in started:
            process.start()
        ready.wait()
        began = time.perf_counter()
        cpu = sum(took.get() for _ in started)
        wall = time.perf_counter() - began
        for process in started:
            process.join()
    done = processes * _PODS_EACH * turns
    return [Reading("turns", "/s", done / wall, "wall"), Reading("time of a turn", "s", cpu / done, "cpu")]


def _add_processes(number: int) -> None:
    def measure(turns: int) -> list[Reading]:
        return _on_one_file(number, turns)

    words = "1 process" if number == 1 else f"{number} processes"
    CLAIM.case(f"{words} on one file", full=200, quick=50, tiny=1, rounds=1, warm_up=1)(measure)


for _number in (1, 2, 4):
    _add_processes(_number)
