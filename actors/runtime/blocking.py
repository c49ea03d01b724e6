"""Notifies a thread pool that one of its threads blocks on a future, so that another may work meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Host(Protocol):
    """A pool that limits how many of its threads are at work."""

    def block(self) -> None:
        """Note that the calling thread begins to wait for others."""

    def unblock(self) -> None:
        """Note that the calling thread goes on."""


class _Local(threading.local):
    #: The pool that the thread belongs to; None for any other thread.
    host: Host | None = None


_local = _Local()


def belong_to(host: Host) -> None:
    """From now on notify ``host`` whenever the calling thread blocks."""
    _local.host = host


def do_for(future: Any, work: Callable[[], T]) -> T:  # noqa: ARG001 - it is read off the stack
    """The result of ``work``; the thread's stack shows that ``future`` ends only with it (``stacks``)."""
    return work()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """During the body, count the calling thread as waiting rather than working."""
    host = _local.host
    if host is None:
        yield
        return
    host.block()
    try:
        yield
    finally:
        host.unblock()
