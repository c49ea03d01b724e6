"""``Changes``: wakes those who wait until something holds of an agent, each time that it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """The changes of one agent; used on its loop."""

    __slots__ = ("_waiters", "count")

    def __init__(self) -> None:
        #: How many there were.
        self.count = 0
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds`` is true; it is asked now, and after each change."""
        while not holds():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((holds, waiter))
            await waiter

    def note(self) -> None:
        """Note that something has changed."""
        self.count += 1
        waiters, self._waiters = self._waiters, []
        for holds, waiter in waiters:
            if not waiter.done():
                if holds():
                    waiter.set_result(None)
                else:
                    self._waiters.append((holds, waiter))
