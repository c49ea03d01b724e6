"""``Spent``: what several calls took together, where unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from protocol.usage import Usage


class Spent(Struct, frozen=True):
    """What calls took together: both None where there was none, or nobody knows."""

    usage: Usage | None = None
    cost: float | None = None


NOTHING = Spent()


def sum_of(parts: Iterable[Spent]) -> Spent:
    """The sum; parts that are unknown are left out."""
    usage: Usage | None = None
    cost: float | None = None
    for each in parts:
        if each.usage is not None:
            usage = each.usage if usage is None else usage + each.usage
        if each.cost is not None:
            cost = each.cost if cost is None else cost + each.cost
    return Spent(usage, cost)
