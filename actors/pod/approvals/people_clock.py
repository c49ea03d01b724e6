"""``PeopleClock``: stops a run's clock while all calls at work in a batch wait for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PeopleClock:
    """Stops a run's clock while every call that has begun waits for a person to fill in a form.

    ``hold`` and ``release`` are called alternately, on the loop.
    """

    __slots__ = ("_asking", "_at_work", "_held", "_hold", "_release")

    def __init__(self, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._hold = hold
        self._release = release
        #: How many calls are at work, and how many of them wait for people.
        self._at_work = self._asking = 0
        self._held = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count a call as at work during the body."""
        self._at_work += 1
        self._turn()
        try:
            yield
        finally:
            self._at_work -= 1
            self._turn()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count a call that is at work as waiting for people during the body."""
        self._asking += 1
        self._turn()
        try:
            yield
        finally:
            self._asking -= 1
            self._turn()

    def close(self) -> None:
        """Stop counting: the batch is over, or goes on without its run."""
        self._asking = 0
        self._turn()

    def _turn(self) -> None:
        held = 0 < self._asking == self._at_work
        if held is not self._held:
            self._held = held
            (self._hold if held else self._release)()
