"""In which order a batch of calls runs: readers together, everything else alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from actors.tools.base import Toolbox, ToolContext
from protocol.items import ToolCall, ToolResult
from protocol.tools import Concurrency

#: How many read-only calls of one pod run at once, unless its manifest says otherwise.
PARALLEL = 3

#: Awaited at a call's end, with its number, its result, its seconds if it ran, and those until a thread was
#: free; no call that comes after it begins before that.
OnResult = Callable[[int, ToolResult, float | None, float | None], Coroutine[Any, Any, None]]


def groups(kinds: Sequence[Concurrency]) -> list[range]:
    """The calls of a batch, by number, as groups to be run one after the other.

    Neighbouring ``read_only`` calls share a group; an ``exclusive`` or ``interactive`` one is a group
    of its own, so it starts after all before it and ends before all behind it.
    """
    found: list[range] = []
    for n, kind in enumerate(kinds):
        if n and kind == kinds[n - 1] == "read_only":
            found[-1] = range(found[-1].start, n + 1)
        else:
            found.append(range(n, n + 1))
    return found


async def run_batch(
    toolbox: Toolbox,
    calls: Sequence[ToolCall],
    ctx_for: Callable[[ToolCall], ToolContext],
    *,
    parallel: int = PARALLEL,
    on_result: OnResult | None = None,
) -> list[ToolResult]:
    """Run ``calls`` in their groups, at most ``parallel`` at once; the results in the calls' order.

    ``ctx_for(call)`` is asked when a call begins, ``on_result(number, result, seconds, waited)`` is
    awaited when it ends, in order of ending; ``seconds`` is None for a call that could not be run,
    ``waited`` what a plain function waited for its thread before that, None for one that needs none.
    Cancelling cancels what runs and starts no more; ``on_result`` was called for what has ended by then.
    What ``ctx_for`` or ``on_result`` raise ends the batch the same way.
    """
    results: list[ToolResult | None] = [None] * len(calls)

    async def run_one(number: int) -> None:
        call = calls[number]
        began = time.perf_counter()
        ctx = ctx_for(call)
        result = await toolbox.run(call, ctx)
        results[number] = result
        if on_result is not None:
            ran = call.invalid is None and toolbox.get(call.name) is not None
            await on_result(number, result, *(_timed(ctx, began) if ran else (None, None)))

    for group in groups([_kind(toolbox, call) for call in calls]):
        if len(group) == 1 or parallel == 1:
            for number in group:
                await run_one(number)
        else:
            await _together(iter(group), run_one, min(parallel, len(group)))
    return [result for result in results if result is not None]


def _timed(ctx: ToolContext, asked: float) -> tuple[float, float | None]:
    """How long a call that was asked for then took, and how long it waited for a thread before that."""
    if ctx.began is None:
        return time.perf_counter() - asked, None
    seconds = time.perf_counter() - ctx.began if ctx.seconds is None else ctx.seconds
    return seconds, ctx.began - asked


def _kind(toolbox: Toolbox, call: ToolCall) -> Concurrency:
    """A call of no known tool does nothing, so it need not wait for anything."""
    known = toolbox.get(call.name)
    return "read_only" if known is None else known.concurrency


async def _together(
    numbers: Iterator[int], run_one: Callable[[int], Coroutine[Any, Any, None]], workers: int
) -> None:
    """Run all ``numbers``, each worker taking the next one; the first error cancels the others."""

    async def work() -> None:
        for number in numbers:
            await run_one(number)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
