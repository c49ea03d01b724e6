"""A time-out for the many short waits of one stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Watch:
    """A time-out for each wait of one task, without a timer per wait.

    The timer is set once and checks, when it rings, how long the current wait has lasted; it interrupts
    nothing but that wait.
    """

    __slots__ = ("_cancelling", "_due", "_latest", "_loop", "_rang", "_rings_at", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._due = 0.0
        self._latest = math.inf
        self._rings_at = math.inf
        self._rang = False

    def begin(self, seconds: float, most: float = math.inf) -> None:
        """Start the time-out for a wait of the running task, of at most that many seconds; ``end`` must
        follow the wait. It is not prolonged beyond ``most`` seconds.
        """
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None
        self._cancelling = task.cancelling()
        now = self._loop.time()
        self._latest = now + most
        due = self._due = now + seconds
        if due < self._rings_at:
            self._set(due)

    def prolong(self, seconds: float) -> None:
        """Give the current wait its full time again, since there are signs of life."""
        due = self._due = self._loop.time() + seconds
        if due < self._rings_at:
            self._set(due)

    def end(self) -> None:
        """Stop the time-out: the wait is over, whatever its result."""
        self._task = None

    def has_rung(self) -> bool:
        """Whether the cancel that the wait ended with is the time-out's; asked once, before ``end``."""
        return self._rang and self._task is not None and self._task.uncancel() <= self._cancelling

    async def over(self, waiting: Awaitable[T], seconds: float) -> T:
        """The result of ``waiting``; raises TimeoutError after ``seconds``."""
        self.begin(seconds)
        try:
            return await waiting
        except asyncio.CancelledError:
            if self.has_rung():
                raise TimeoutError from None
            raise
        finally:
            self.end()

    def stop(self) -> None:
        """Drop the timer: there are no more waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = min(due, self._latest)
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._task is None:
            return  # nobody waits; the next wait sets the timer anew
        if self._loop.time() < min(self._due, self._latest):
            self._set(self._due)
        else:
            self._rang = True
            self._task.cancel()
