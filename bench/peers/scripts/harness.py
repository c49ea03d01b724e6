"""What the peers' programs share: clocks, memory, the server, and one line of readings.

Runs in the peers' environments, so it needs only Python. ``BENCH_PYTHON`` names the interpreter that has the
bench's own server.
"""

import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
ANSWER = "The answer is 42."
QUESTION = "What is the answer?"
CHUNKS = 50
#: Turns in a session before the next one takes over: a peer's turn may grow with its history.
TURNS = 20
#: A kilobyte a turn, for what is said and answered.
WORDS = ("The quick brown fox jumps over the lazy dog and reads another file of the project. " * 7)[:500]

Reading = dict
Case = Callable[[int], list[Reading]]


class Stopwatch:
    """Measures wall time and this process's processor time."""

    def __enter__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall

    def each(self, metric: str, count: int) -> Reading:
        """Processor time for each operation, with the wall time beside it."""
        return reading(metric, "s", self.cpu / count, "cpu", self.wall / count)

    def rate(self, metric: str, count: int, clock: str = "wall") -> Reading:
        """Operations per second of one clock, and per second of the other."""
        wall, cpu = count / self.wall, count / self.cpu
        value, other = (wall, cpu) if clock == "wall" else (cpu, wall)
        return reading(metric, "/s", value, clock, other)


def reading(metric, unit, value, clock=None, other=None) -> Reading:
    """One number."""
    return {"metric": metric, "unit": unit, "value": value, "clock": clock, "other": other}


def rss() -> int:
    """The memory of this process in bytes."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def written() -> int:
    """The bytes that this process has written so far."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return next(int(line[6:]) for line in counters.read_text().splitlines() if line.startswith("wchar:"))


def imported(modules: str) -> Case:
    """The case of an import, in a fresh interpreter."""
    program = (
        "import time; cpu, wall = time.process_time(), time.perf_counter()\n"
        f"import {modules}\n"
        "cpu, wall = time.process_time() - cpu, time.perf_counter() - wall\n"
        "import harness, json; print(json.dumps([cpu, wall, harness.rss()]))"
    )

    def measure(_: int) -> list[Reading]:
        command = [sys.executable, "-c", program]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, capture_output=True, check=True, env=env)
        cpu, wall, memory = json.loads(done.stdout.splitlines()[-1])
        return [
            reading("time", "s", cpu, "cpu", wall),
            reading("memory of the process", "B", memory),
        ]

    return measure


@contextmanager
def server(rhythm: str = "each") -> Iterator[str]:
    """The bench's own server, in a process of its own; yields its base URL."""
    command = [os.environ.get("BENCH_PYTHON", sys.executable), "-m", "bench.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            port = process.stdout.readline()
            if not port:
                raise RuntimeError("the bench's server did not start")
            yield f"http://127.0.0.1:{int(port)}/{rhythm}/v1"
        finally:
            process.stdin.close()
            process.wait(10)


async def timed(turn: Callable[[int], Awaitable[None]], at_once: int, each: int) -> list[Reading]:
    """Measure so many streams at once, each with turns one after another; the first of each is the
    warm-up.
    """

    async def turns(number: int, count: int) -> None:
        for _ in range(count):
            await turn(number)

    await asyncio.gather(*(turns(number, 1) for number in range(at_once)))
    with Stopwatch() as watch:
        await asyncio.gather(*(turns(number, each) for number in range(at_once)))
    return [watch.each("time of a turn", at_once * each)]


def durable(watch: Stopwatch, before: int, turns: int) -> list[Reading]:
    """The numbers of durable turns."""
    return [
        watch.each("time of a turn", turns),
        watch.rate("turns", turns),
        reading("written for a turn", "B", (written() - before) / turns),
    ]


class _Jobs(Stopwatch):
    """A stopwatch for jobs, which also counts the time of a server beside this process."""

    def __init__(self, count: int, spent: Callable[[], float]):
        self._count, self._spent = count, spent

    def __enter__(self):
        self._before = self._spent()
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        self.cpu += self._spent() - self._before
        self.readings = [self.rate("jobs", self._count, "cpu"), self.each("time of a job", self._count)]


def jobs(count: int, spent: Callable[[], float]) -> _Jobs:
    """A stopwatch for so many jobs; ``spent`` returns the seconds that their server has taken so far."""
    return _Jobs(count, spent)


def streams(name: str, http: Callable[..., Case]) -> dict[str, Case]:
    """The cases over HTTP, which all peers have."""
    found = {f"http/{n} at once, chunk by chunk/{name}": http(n) for n in (1, 64, 512)}
    return {**found, f"http/64 at once, all in one burst/{name}": http(64, "burst")}


def grown(marks: list[int], part: int) -> list[Reading]:
    """What the quarters between five marks wrote for a turn, and the last quarter relative to the first."""
    first, last = (marks[1] - marks[0]) / part, (marks[4] - marks[3]) / part
    return [
        reading("written for a turn", "B", (marks[4] - marks[0]) / (4 * part)),
        reading("last quarter over the first", "count", last / first if first else 1.0),
    ]


def main(cases: dict[str, Case]) -> None:
    """Measure the case that the arguments name: ``claim/case/by count rounds``."""
    name, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    measure = cases[name]
    if count > 2 and not name.startswith(("start", "restore", "http")):  # HTTP has its own warm-up
        measure(max(1, count // 8))
    rows = []
    for _ in range(rounds):
        gc.collect()
        rows.append(measure(count))
    print(json.dumps([_median(same) for same in zip(*rows, strict=True)]))


def _median(same: tuple) -> Reading:
    others = [each["other"] for each in same if each["other"] is not None]
    value = statistics.median(each["value"] for each in same)
    return {**same[0], "value": value, "other": statistics.median(others) if others else None}
