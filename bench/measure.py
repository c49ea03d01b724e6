"""Measure: clocks and memory, read in the process under test."""

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
    """Time on the wall and of the processor (all threads of this process, no others) in a ``with``."""

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
        """Processor time of each of ``count`` operations, with the time on the wall beside it."""
        return Reading(metric, "s", self.cpu / count, "cpu", self.wall / count)

    def rate(self, metric: str, count: int, clock: Clock = "wall") -> Reading:
        """Operations in a second of one clock, with those in a second of the other beside it.

        Where one thread works and never waits, the clocks agree on an idle machine, and only the
        processor's agrees with itself on a busy one. Where threads or disks are waited for, the wall's
        counts.
        """
        wall, cpu = count / self.wall, count / max(self.cpu, 1e-9)
        value, other = (wall, cpu) if clock == "wall" else (cpu, wall)
        return Reading(metric, "/s", value, clock, other)


def rss() -> int:
    """The memory this process holds now, in bytes, after a garbage collection."""
    gc.collect()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * _PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def written() -> int:
    """The bytes this process has written up to now, to whatever file; 0 where the system does not say."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return next(int(line[6:]) for line in counters.read_text().splitlines() if line.startswith("wchar:"))


class Holds:
    """The longest that anything has held the running loop, in seconds of its thread's processor time.

    A callback that comes round with every turn of the loop looks at the clock; what else the machine
    does meanwhile does not count. It keeps the loop from sleeping, so it is no company for a stopwatch.
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
        # Also by what came after the last look, which is all where the loop has had no turn.
        self.longest = max(self.longest, time.thread_time() - self._last)

    def _look(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._look)

    def reading(self) -> Reading:
        """The longest hold as a number."""
        return Reading("longest hold of the loop", "s", self.longest, "cpu")
