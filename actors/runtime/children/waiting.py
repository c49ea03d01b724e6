"""``Waiting``: waits for descriptors, for children that end, and for a time-out, in one thread."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable


def notice_children() -> None:
    """Have the end of a child wake ``Waiting.wait``, in this process and its forks."""
    signal.signal(signal.SIGCHLD, lambda *_: None)


class Waiting:
    """Calls the handlers of descriptors that can be read, or whose other end has closed.

    ``notice_children`` must have been called.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._wake = wake
        self.watch(self._woken, self._empty)

    def watch(self, descriptor: int, handler: Callable[[], object]) -> None:
        """Call ``handler`` whenever there is something to read."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Stop watching it."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def wait(self, seconds: float | None) -> None:
        """Wait until something was handled or a child has ended, at most ``seconds``."""
        milliseconds = None if seconds is None else max(0, int(seconds * 1000) + 1)
        for descriptor, _ in self._poll.poll(milliseconds):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()

    def close(self) -> None:
        """Close what a forked process inherited."""
        signal.set_wakeup_fd(-1)
        for each in (self._woken, self._wake):
            os.close(each)

    def _empty(self) -> None:
        os.read(self._woken, 4096)


def reap(on_stop: Callable[[int], object] = lambda _: None) -> tuple[list[tuple[int, int]], bool]:
    """Reap the children that have ended. Returns their pids with exit code, or minus the signal number, and
    whether there are others.

    ``on_stop`` is called with the pid of each child that has been stopped.
    """
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        if os.WIFSTOPPED(status):
            on_stop(pid)
            continue
        ended.append((pid, os.waitstatus_to_exitcode(status)))
