"""Claim: what the compaction policy costs each request, and the whole cost of a compaction and an
extraction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from actors.compaction import policy
from actors.compaction.policy import Guard, Limits
from actors.llm.base import Block, CallChunk, CallEnd, CallStart, End, Request, TextChunk
from actors.pod.handle import Pod
from actors.pod.history.context import Context
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.histories import items
from bench.measure import Holds, Stopwatch
from bench.models import manifest
from bench.results import Reading
from protocol.items import Item, ToolResult
from protocol.wire import encode

CLAIM = Claim(
    "compaction", "compaction: its policy, asked at every request, and all of it but the model's time"
)

_ITEMS = 10_000
_LIMITS = Limits(before_run=10**9, before_request=10**9, retained=8000)


def _looked_at(count: int, length: int) -> list[Reading]:
    history: list[Item] = list(items(length))
    context, guard, more = Context.of(history), Guard(), list(items(4))
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
    """Add four items, ask the policy, and make the request's view."""
    return _looked_at(count, 10)


@CLAIM.case("policy and view, 10,000 items", full=5_000, quick=1_000)
def on_many(count: int) -> list[Reading]:
    """Add four items to a long history, ask the policy, and make the request's view."""
    return _looked_at(count, _ITEMS)


@CLAIM.case("policy and view, 10,000 items", by="encode what is new", kind="floor", full=5_000, quick=1_000)
def encoded(count: int) -> list[Reading]:
    """Encode the four new items, which shows their size."""
    more, size = list(items(4)), 0
    with Stopwatch() as watch:
        for _ in range(count):
            for item in more:
                size += len(encode(item))
    return [watch.each("time for a request", count)]


class _Worker:
    """A model that calls the first tool it is given, and says that it is done."""

    model = "worker"

    def __init__(self, arguments: str) -> None:
        self._arguments = arguments

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Call, or answer."""
        if isinstance(request.items[-1], ToolResult):
            yield TextChunk("done")
            yield End("end_turn")
            return
        yield CallStart(0, "call-1", request.tools[0].name)
        yield CallChunk(0, self._arguments)
        yield CallEnd(0)
        yield End("tool_use")


async def _worked(count: int, length: int, client: _Worker, work: Callable[[Pod], Any]) -> list[Reading]:
    """Have so many pods do ``work``, each with its own history of ``length`` items."""
    watch, holds = Stopwatch(), Holds()
    for number in range(count + 1):
        async with PodSystem() as system:
            pod = await system.spawn(manifest(extract_threshold=1, schedule="manual"), client=client)
            for item in items(length):
                await pod.push_item(item)
            with holds if number == 0 else watch:
                await work(pod)
    return [watch.each("time of one", count), holds.reading()]


_NO_LONG_HOLD = {"longest hold of the loop": at_most(0.010)}
_SUMMARY = '{"text": "## Completed Tasks\\nmuch"}'


@CLAIM.case("a compaction, 1,000 items", full=10, quick=3, rounds=1, targets=_NO_LONG_HOLD)
def compacted_few(count: int) -> list[Reading]:
    """Compact a pod by hand: read the history, ask for the summary, create the new session."""
    return asyncio.run(_worked(count, 1_000, _Worker(_SUMMARY), Pod.compact))


@CLAIM.case("a compaction, 10,000 items", full=5, quick=2, rounds=1, targets=_NO_LONG_HOLD)
def compacted_many(count: int) -> list[Reading]:
    """Compact a history that is ten times as long."""
    return asyncio.run(_worked(count, _ITEMS, _Worker(_SUMMARY), Pod.compact))


@CLAIM.case("an extraction, 1,000 items", full=10, quick=3, rounds=1, targets=_NO_LONG_HOLD)
def extracted_few(count: int) -> list[Reading]:
    """Run memory's first phase: read the history, ask for notes, record the pointer."""
    return asyncio.run(_worked(count, 1_000, _Worker("{}"), Pod.try_post_run_extract))


@CLAIM.case("an extraction, 10,000 items", full=5, quick=2, rounds=1, targets=_NO_LONG_HOLD)
def extracted_many(count: int) -> list[Reading]:
    """Run memory's first phase over ten times as much."""
    return asyncio.run(_worked(count, _ITEMS, _Worker("{}"), Pod.try_post_run_extract))
