"""Notifies a thread pool that one of its threads blocks on a future, so that another may work meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol


class Host(Protocol):
    """A pool that limits how many of its threads are at work."""

    def block(self) -> None:
        """Note that the calling thread begins to wait for others."""

    def unblock(self) -> None:
        """Note that the calling thread goes on."""


class _Local(threading.local):
    #: The pool that the thread belongs to; None for any other thread.
    host: Host | None = None
    #: Says whether what the thread does was given up; None where nobody would know.
    given_up: Callable[[], bool] | None = None


_local = _Local()


def belong_to(host: Host) -> None:
    """Notify ``host`` from now on whenever the calling thread blocks."""
    _local.host = host


def enter_work(given_up: Callable[[], bool] | None) -> None:
    """The calling thread begins with work that may be given up; with None, it has ended."""
    _local.given_up = given_up


def given_up_here() -> Callable[[], bool] | None:
    """What says, on any thread, whether nobody waits any longer for what the calling one does; None where
    nobody would know.
    """
    return _local.given_up


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Count the calling thread as one that waits, and not as one that works, during the body."""
    host = _local.host
    if host is None:
        yield
        return
    host.block()
    try:
        yield
    finally:
        host.unblock()
