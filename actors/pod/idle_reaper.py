"""``IdleReaper``: passivates pods after an idle timeout, with one timer for all pods of a system."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
import weakref
from typing import Protocol

#: Seconds that a reaper holds the loop for at most, apart from the last pod it came to.
_SLICE = 0.002


class Sleeper(Protocol):
    """What a reaper needs to know of a pod."""

    #: When it last had something to do, by the loop's clock.
    active_at: float
    #: Whether a reaper looks after it; the reaper's own mark.
    watched: bool

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""

    def passivate(self) -> bool:
        """Drop the history unless something is under way; returns whether it was dropped."""


class IdleReaper:
    """Passivates the pods of one system that were idle for ``after`` seconds.

    A message costs its pod one look at the clock; the reaper looks at a pod when its time may have come, so
    at most once in ``after`` seconds and once more when it comes to rest. Used on the system's loop only.
    """

    __slots__ = ("_due", "_loop", "_numbers", "_timer", "after", "now")

    def __init__(self, after: float, loop: asyncio.AbstractEventLoop) -> None:
        self.after = after
        self.now = loop.time
        self._loop = loop
        #: When each pod is looked at next. A pod that has stopped is not kept alive by it.
        self._due: list[tuple[float, int, weakref.ref[Sleeper]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, pod: Sleeper) -> None:
        """Watch a pod that has its history, from now on."""
        pod.active_at = self.now()
        if not pod.watched:
            pod.watched = True
            self._look_again(pod, pod.active_at + self.after)
            self._set_timer()

    def stop(self) -> None:
        """Stop watching pods."""
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()

    def _look_again(self, pod: Sleeper, when: float) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), weakref.ref(pod)))

    def _set_timer(self) -> None:
        # Nothing is ever due before what was first in line when the timer was set.
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._ring)

    def _ring(self) -> None:
        self._timer = None
        now, until = self.now(), time.perf_counter() + _SLICE
        while self._due and self._due[0][0] <= now and time.perf_counter() < until:
            pod = heapq.heappop(self._due)[2]()
            if pod is not None and not pod.ended:
                self._look(pod, now)
        self._set_timer()

    def _look(self, pod: Sleeper, now: float) -> None:
        idle_until = pod.active_at + self.after
        if idle_until > now:
            self._look_again(pod, idle_until)
        elif pod.passivate():
            pod.watched = False
        else:  # something is under way: its end is a message, from which the time counts
            self._look_again(pod, now + self.after)
