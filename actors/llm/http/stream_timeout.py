"""A time-out for the many short waits of one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Watch:
    """A time-out on what one task waits for, without a timer per wait.

    The timer is set once and looks, when it rings, how long the wait under way has lasted; it interrupts
    nothing but that wait.
    """

    __slots__ = ("_cancelling", "_due", "_loop", "_rang", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._due = 0.0
        self._rang = False

    async def over(self, waiting: Awaitable[T], seconds: float) -> T:
        """What ``waiting`` gives; raises TimeoutError after ``seconds``."""
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None
        self._cancelling = task.cancelling()
        due = self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            self._set(due)
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._rang and task.uncancel() <= self._cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def stop(self) -> None:
        """No more waits: let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits; the next wait sets the timer anew
        if self._loop.time() < self._due:
            self._set(self._due)
        else:
            self._rang = True
            self._task.cancel()
