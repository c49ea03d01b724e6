"""In which order a batch of calls runs: readers together, everything else alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from actors.tools.base import Toolbox
from protocol.items import ToolCall
from protocol.tools import Concurrency

#: How many read-only calls of one pod run at once, unless its manifest says otherwise.
PARALLEL = 3


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


def kind_of(toolbox: Toolbox, call: ToolCall) -> Concurrency:
    """How ``call`` may run. One of no known tool does nothing, so it need not wait for anything."""
    known = toolbox.get(call.name)
    return "read_only" if known is None else known.concurrency


async def run_in_groups(
    kinds: Sequence[Concurrency],
    run_one: Callable[[int], Coroutine[Any, Any, None]],
    parallel: int = PARALLEL,
) -> None:
    """Await ``run_one(number)`` for each call of a batch, group after group, at most ``parallel`` at once.

    Cancelling cancels those that run and starts no more; what one raises ends the batch the same way.
    """
    for group in groups(kinds):
        if len(group) == 1 or parallel == 1:
            for number in group:
                await run_one(number)
        else:
            await _together(iter(group), run_one, min(parallel, len(group)))


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
