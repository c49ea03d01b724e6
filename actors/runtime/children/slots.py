"""``Slots``: limits how many children run at a time; callers wait for a slot in order of arrival."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque


class _Waiter:
    """A caller that waits for a slot, on a loop."""

    __slots__ = ("future", "granted", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.granted = False

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Slots:
    """A limit with a fair queue, for callers on any loop and thread."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._free = most
        self._line: deque[_Waiter] = deque()

    async def take(self, seconds: float | None) -> None:
        """Take a slot; wait for it at most ``seconds``. Raises TimeoutError."""
        with self._lock:
            if self._free and not self._line:
                self._free -= 1
                return
            waiter = _Waiter()
            self._line.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter.future
        except BaseException:
            with self._lock:
                if not waiter.granted:
                    self._line.remove(waiter)
            if waiter.granted:  # granted at the same moment
                self.give_back()
            raise

    def give_back(self) -> None:
        """Hand the slot to the next caller."""
        with self._lock:
            while self._line:
                waiter = self._line.popleft()
                waiter.granted = True
                with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                    waiter.loop.call_soon_threadsafe(waiter.wake)
                    return
            self._free += 1
