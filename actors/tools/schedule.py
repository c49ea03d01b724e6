"""In which order a batch of calls runs: readers together, everything else alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from actors.runtime.tasks import wait_for_one
from actors.tools.toolbox import Toolbox
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


async def run_as_they_come(
    first: Mapping[int, Concurrency],
    more: Callable[[], Coroutine[Any, Any, Mapping[int, Concurrency]]],
    more_may_come: Callable[[], bool],
    run_one: Callable[[int], Coroutine[Any, Any, None]],
    parallel: int = PARALLEL,
) -> None:
    """Await ``run_one(number)`` for the calls of a batch to which others come while some are at work.

    Each begins as soon as it may: in the order of their numbers, at most ``parallel`` at once, and an
    ``exclusive`` or ``interactive`` one alone, so what comes behind it waits. While ``more_may_come``,
    ``more()`` is awaited for the next. It ends when none is left, by errors and cancels as ``run_in_groups``.
    """
    kinds, left = dict(first), sorted(first)
    at_work: dict[asyncio.Task[None], Concurrency] = {}
    coming: asyncio.Task[Mapping[int, Concurrency]] | None = None
    try:
        while left or at_work:
            while left and _may_begin(kinds[left[0]], at_work.values(), parallel):
                number = left.pop(0)
                at_work[asyncio.create_task(run_one(number))] = kinds[number]
            if coming is None and more_may_come():
                coming = asyncio.create_task(more())
            tasks: list[asyncio.Task[Any]] = [*at_work] if coming is None else [*at_work, coming]
            await wait_for_one(tasks)
            for task in filter(asyncio.Task.done, tasks):
                if task is coming:
                    coming = None
                    kinds.update(task.result())
                    left = sorted({*left, *task.result()})
                else:
                    del at_work[task]
                    task.result()
    finally:
        tasks = [*at_work] if coming is None else [*at_work, coming]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _may_begin(kind: Concurrency, at_work: Collection[Concurrency], parallel: int) -> bool:
    """Whether a call of that kind may begin beside those at work."""
    beside = all(each == kind == "read_only" for each in at_work)
    return beside and len(at_work) < parallel


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
