"""Claim: the cost of a pod that is a process, up to its first event, and how long turns of many of
them take.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from actors.pod.handle import Pod
from actors.swarm.processes.process_pod import ProcessPod
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.results import Reading, Target
from protocol.manifest import PodManifest

CLAIM = Claim("processes", "processes: pods that are processes of their own, on one SQLite file")

_CPU, _PRIVATE = "processor time of the process", "its private memory"
_OWNER_CPU, _OWNER_PRIVATE = "processor time of what owns it", "private memory of that"
_SLOWEST, _MEDIAN = "a turn, 99th percentile", "a turn, median"
_TURNS = 10
#: The longest pause between two turns of a pod, in seconds.
_PAUSE = 1.0
_MEGABYTE = 1 << 20
#: What a pod's process imports; the bench itself would outweigh everything else.
_IMPORTABLE = str(Path(__file__).parents[1] / "importable")


@asynccontextmanager
async def _pods(count: int) -> AsyncIterator[list[Pod]]:
    manifest, client = PodManifest.of(name="pod"), "answers:short_answers"
    if _IMPORTABLE not in sys.path:
        sys.path.append(_IMPORTABLE)
    with tempfile.TemporaryDirectory() as folder:
        async with PodSystem(f"sqlite:{Path(folder, 'pods.db')}") as system:
            await system.spawn(manifest, client=client, process=True)  # forks the helper for all
            pods: list[Pod] = []
            while len(pods) < count:
                some = min(10, count - len(pods))
                begun = [system.spawn(manifest, client=client, process=True) for _ in range(some)]
                pods += [await each for each in begun]
            yield pods


def _pid(pod: Pod) -> int:
    assert isinstance(pod.address, ProcessPod)
    return pod.address.pid or 0


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _private(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("Private_"))


def _owner(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def _begin(count: int) -> list[Reading]:
    async with _pods(count) as pods:
        pids = [_pid(pod) for pod in pods]
        owners = [_owner(pid) for pid in pids]

        def mean(of: Callable[[int], float], among: list[int]) -> float:
            return sum(map(of, among)) / len(among)

        return [
            Reading(_CPU, "s", mean(_cpu, pids), "cpu"),
            Reading(_OWNER_CPU, "s", mean(_cpu, owners), "cpu"),
            Reading(_PRIVATE, "B", mean(_private, pids)),
            Reading(_OWNER_PRIVATE, "B", mean(_private, owners)),
        ]


def _targets(seconds: float) -> dict[str, Target]:
    return {_CPU: at_most(seconds), _PRIVATE: at_most(7 * _MEGABYTE)}


@CLAIM.case("to its first event, among 20", full=20, quick=20, targets=_targets(12e-3))
def among_20(count: int) -> list[Reading]:
    """A process forked from a helper that has imported polypod; its store is opened, its session created."""
    return asyncio.run(_begin(count))


@CLAIM.case("to its first event, among 200", full=200, quick=50, rounds=1, targets=_targets(25e-3))
def among_200(count: int) -> list[Reading]:
    """A process among 200 that work on one file."""
    return asyncio.run(_begin(count))


def _started(count: int, program: str) -> list[Reading]:
    """Interpreters that report when they are up and then wait, and what they have used by then."""
    used, private = [], []
    for _ in range(count):
        with subprocess.Popen(
            [sys.executable, "-c", f"{program}; print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            used.append(_cpu(process.pid))
            private.append(_private(process.pid))
            process.communicate(b"\n")
    return [
        Reading(_CPU, "s", sum(used) / count, "cpu"),
        Reading(_PRIVATE, "B", sum(private) / count),
    ]


@CLAIM.case(
    "to its first event, among 20", by="an empty Python, forked and executed", kind="floor", full=20, quick=5
)
def empty(count: int) -> list[Reading]:
    """Fork and exec of an interpreter that imports nothing."""
    return _started(count, "pass")


@CLAIM.case(
    "to its first event, among 20", by="a Python that imports polypod", kind="floor", full=20, quick=5
)
def importing(count: int) -> list[Reading]:
    """What each process would take if it were not forked."""
    return _started(count, "import actors.pod_process.main")


async def _turns(count: int, *, paced: bool) -> list[Reading]:
    took: list[float] = []

    async def work(pod: Pod, chance: random.Random) -> None:
        await pod.run("warm up")
        for _ in range(_TURNS):
            if paced:
                await asyncio.sleep(chance.random() * _PAUSE)
            begun = time.perf_counter()
            await pod.run("go")
            took.append(time.perf_counter() - begun)

    async with _pods(count) as pods:
        await asyncio.gather(*(work(pod, random.Random(number)) for number, pod in enumerate(pods)))
    took.sort()
    return [
        Reading(_MEDIAN, "s", took[len(took) // 2], "wall"),
        Reading(_SLOWEST, "s", took[int(len(took) * 0.99)], "wall"),
    ]


@CLAIM.case("turns of 100, each at its time", full=100, quick=100, rounds=1, targets={_SLOWEST: at_most(0.1)})
def paced(count: int) -> list[Reading]:
    """Some two hundred turns a second, from the call of ``run`` to its result."""
    return asyncio.run(_turns(count, paced=True))


@CLAIM.case("turns of 100, all the time", full=100, quick=100, rounds=1)
def at_once(count: int) -> list[Reading]:
    """As many turns as the processors can do: each waits for 99 others."""
    return asyncio.run(_turns(count, paced=False))
