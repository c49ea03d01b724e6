"""Weak sets that hold what all threads of a process have open."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

from actors.runtime.weak import members_of


class Open:
    """What is open."""


class Disturbed(WeakSet[Open]):
    """A set to which another one is added while it is looked through, once."""

    more: Open | None = None

    def __iter__(self) -> Iterator[Open]:
        for each in super().__iter__():
            if self.more is None:
                self.more = Open()
                self.add(self.more)
            yield each


def test_a_set_to_which_another_thread_adds_meanwhile_is_looked_through_once_more() -> None:
    held = [Open(), Open()]
    disturbed = Disturbed(held)
    assert set(held) <= set(members_of(disturbed))
