"""Compaction: what its policy costs every request, however long the history."""

from __future__ import annotations

from actors.compaction import policy
from actors.compaction.policy import Guard, Limits
from actors.pod.context import Context
from bench.claim import Claim
from bench.histories import items
from bench.measure import Stopwatch
from bench.results import Reading
from protocol.items import Item
from protocol.wire import encode

CLAIM = Claim("compaction", "compaction: its policy, asked at every request")

_ITEMS = 10_000
_LIMITS = Limits(before_run=10**9, before_request=10**9, retained=8000)


def _looked_at(count: int, length: int) -> list[Reading]:
    history: list[Item] = list(items(length))
    context, guard, more = Context(history), Guard(), list(items(4))
    context.view()
    context.occupancy()
    with Stopwatch() as watch:
        for _ in range(count):
            history += more
            policy.before_request(_LIMITS, guard, context.occupancy(), len(history))
            context.view()
    return [watch.each("time for a request", count)]


@CLAIM.case("policy and view, 10 items", full=5_000, quick=1_000)
def on_few(count: int) -> list[Reading]:
    """Four items are added, the policy asked, the request's view made."""
    return _looked_at(count, 10)


@CLAIM.case("policy and view, 10,000 items", full=5_000, quick=1_000)
def on_many(count: int) -> list[Reading]:
    """The same on top of a long history."""
    return _looked_at(count, _ITEMS)


@CLAIM.case("policy and view, 10,000 items", by="encode what is new", kind="floor", full=5_000, quick=1_000)
def encoded(count: int) -> list[Reading]:
    """The four new items encoded, which tells their size."""
    more, size = list(items(4)), 0
    with Stopwatch() as watch:
        for _ in range(count):
            for item in more:
                size += len(encode(item))
    return [watch.each("time for a request", count)]
