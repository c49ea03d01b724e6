"""``Latest``: a cache of one entry: the last value, kept while it is asked for with the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from types import MethodType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Remakes something only when it is asked for with other arguments than the last time."""

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._last: tuple[tuple[Any, ...], T] | None = None

    def __call__(self, *args: Any) -> T:
        last = self._last
        if last is None or not (all(map(is_, last[0], args)) or _same(last[0], args)):
            last = self._last = (args, self._make(*args))
        return last[1]


def _same(one: Any, other: Any) -> bool:
    """Whether these are the same objects, rather than ones that only compare equal for now. A bound method is
    a new object each time it is asked for; of tuples, what they hold counts.
    """
    if one is other:
        return True
    if type(one) is tuple is type(other):
        return len(one) == len(other) and (all(map(is_, one, other)) or all(map(_same, one, other)))
    return isinstance(one, MethodType) and bool(one == other)
