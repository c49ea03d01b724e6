"""The flag that asks a running tool to stop, for threads and for coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator

from protocol.errors import ToolCancelled

# One lock for all flags: it is held for a list append, and a lock per call costs more than it saves.
_lock = threading.Lock()


class Cancel:
    """Whether a call is still wanted.

    Raised once, never lowered, from any thread. A coroutine is also cancelled the usual way, so it
    rarely needs this; a plain function in a thread can only look here.
    """

    __slots__ = ("_callbacks", "_cancelled")

    def __init__(self) -> None:
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] | None = None

    def __repr__(self) -> str:
        return f"<Cancel {'cancelled' if self._cancelled else 'not cancelled'}>"

    @property
    def cancelled(self) -> bool:
        """Whether the call is no longer wanted."""
        return self._cancelled

    def raise_if_cancelled(self) -> None:
        """Raise ToolCancelled where the call is no longer wanted."""
        if self._cancelled:
            raise ToolCancelled("the call was cancelled")

    def set(self) -> None:
        """Say that the call is no longer wanted; saying it again changes nothing."""
        with _lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` when the flag is raised, in the raising thread, or now if it is up.

        It must be quick and must not raise. Returns a function that takes the callback back.
        """
        with _lock:
            waiting = not self._cancelled
            if waiting:
                self._callbacks = [*(self._callbacks or ()), callback]
        if not waiting:
            callback()
        return lambda: self._forget(callback)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until the flag is up, at most ``timeout`` seconds; whether it is up."""
        event = threading.Event()
        forget = self.on_cancel(event.set)
        event.wait(timeout)
        forget()
        return self._cancelled

    def __await__(self) -> Generator[object, None, None]:
        """Wait on an event loop until the flag is up."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        forget = self.on_cancel(lambda: loop.call_soon_threadsafe(woken.set))
        try:
            yield from woken.wait().__await__()
        finally:
            forget()

    def _forget(self, callback: Callable[[], object]) -> None:
        with _lock:
            if self._callbacks is not None:
                self._callbacks = [each for each in self._callbacks if each is not callback]


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
