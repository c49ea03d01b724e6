"""``members_of``: what is in a set of weak references that other threads change."""

from __future__ import annotations

from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")


def members_of(weak: WeakSet[T]) -> list[T]:
    """Those that live. A ``list`` of the set fails where another thread adds one meanwhile."""
    while True:
        try:
            return list(weak)
        except RuntimeError:  # it has changed its size: look once more
            continue
