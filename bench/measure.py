"""Clocks and memory, read in the process under test."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.results import Clock, Reading

_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")


class Stopwatch:
    """Measures wall time and processor time (all threads of this process, no others) in a ``with``."""

    wall = 0.0
    cpu = 0.0

    def __enter__(self) -> Self:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu += time.process_time() - self._cpu
        self.wall += time.perf_counter() - self._wall

    def each(self, metric: str, count: int) -> Reading:
        """Processor time for each of ``count`` operations, with the wall time beside it."""
        return Reading(metric, "s", self.cpu / count, "cpu", self.wall / count)

    def rate(self, metric: str, count: int, clock: Clock = "wall") -> Reading:
        """Operations per second of one clock, with those per second of the other beside it.

        If one thread works and never waits, the clocks agree on an idle machine, and on a busy one only the
        processor's is reproducible. If threads or disks are waited for, the wall clock counts.
        """
        wall, cpu = count / self.wall, count / max(self.cpu, 1e-9)
        value, other = (wall, cpu) if clock == "wall" else (cpu, wall)
        return Reading(metric, "/s", value, clock, other)


def rss() -> int:
    """The memory of this process now, in bytes, after a garbage collection."""
    gc.collect()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * _PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def written() -> int:
    """The bytes that this process has written so far, to any file; 0 if the system does not say."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return next(int(line[6:]) for line in counters.read_text().splitlines() if line.startswith("wchar:"))


class Holds:
    """The longest time that anything has held up the running loop, in seconds of its thread's processor time.

    A callback in every turn of the loop reads the clock; what else the machine does meanwhile does not count.
    It keeps the loop from sleeping, so it must not be used together with a stopwatch.
    """

    longest = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._handle = self._loop.call_soon(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # Including the time since the last look, which is everything if the loop has had no turn.
        self.longest = max(self.longest, time.thread_time() - self._last)

    def _look(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._look)

    def reading(self) -> Reading:
        """The longest hold as a number."""
        return Reading("longest hold of the loop", "s", self.longest, "cpu")
