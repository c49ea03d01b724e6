"""Threads that block in a polypod future, known to the pool whose threads they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Host(Protocol):
    """Whose thread it is: a pool that limits how many of its threads are at work."""

    def block(self) -> None:
        """The calling thread begins to wait for others."""

    def unblock(self) -> None:
        """The calling thread goes on."""


class _Local(threading.local):
    #: The pool that the thread belongs to; None for any other thread.
    host: Host | None = None


_local = _Local()


def belong_to(host: Host) -> None:
    """Have ``host`` hear of each time that the calling thread blocks."""
    _local.host = host


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """The calling thread waits for others while this lasts, and does not count as one that works."""
    host = _local.host
    if host is None:
        yield
        return
    host.block()
    try:
        yield
    finally:
        host.unblock()
