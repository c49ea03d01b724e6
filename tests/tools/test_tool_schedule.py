"""A batch runs in its groups: readers together, everything else alone, results in the calls' order."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.base import ToolContext, tool
from actors.tools.schedule import groups, kind_of, run_as_they_come, run_in_groups
from actors.tools.toolbox import Toolbox
from protocol.items import ToolCall
from protocol.scope import Scope
from protocol.tools import Concurrency

KINDS = get_args(Concurrency)


@given(st.lists(st.sampled_from(KINDS), max_size=20))
def test_groups_hold_every_call_once_in_order_and_only_readers_share_one(kinds):
    found = groups(kinds)
    assert [n for group in found for n in group] == list(range(len(kinds)))
    for group in found:
        assert len(group) == 1 or {kinds[n] for n in group} == {"read_only"}
    for before, after in itertools.pairwise(found):
        assert {kinds[before[-1]], kinds[after[0]]} != {"read_only"}, "neighbouring readers share a group"


class Watched:
    """Tools of every kind that note when they begin and end, and let others run in between."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self.overlaps: set[frozenset[str]] = set()
        self.toolbox = Toolbox([tool(name=kind, concurrency=kind)(self._tool(kind)) for kind in KINDS])

    def _tool(self, kind: str):
        async def work(n: int, turns: int) -> str:
            self.running.append(kind)
            self.most = max(self.most, len(self.running))
            if len(self.running) > 1:
                self.overlaps.add(frozenset(self.running))
            for _ in range(turns):
                await asyncio.sleep(0)
            self.running.remove(kind)
            return str(n)

        return work


def context(call: ToolCall) -> ToolContext:
    return ToolContext(pwd=Path("/"), scope=Scope(), call_id=call.id)


async def run_batch(toolbox: Toolbox, calls: list[ToolCall], ended=None, parallel=3, ctx_for=context) -> None:
    """Run the calls in their groups; ``ended(number, result)`` is called as each ends."""

    async def run_one(number: int) -> None:
        result = await toolbox.run(calls[number], ctx_for(calls[number]))
        if ended is not None:
            ended(number, result)

    await run_in_groups([kind_of(toolbox, call) for call in calls], run_one, parallel)


@given(
    st.lists(st.tuples(st.sampled_from([*KINDS, "unknown"]), st.integers(0, 4)), max_size=15),
    st.integers(1, 5),
)
def test_any_batch_keeps_its_bounds_and_its_barriers_and_ends_each_call_once(batch, parallel):
    watched, ended = Watched(), {}
    calls = [ToolCall(str(n), kind, {"n": n, "turns": turns}) for n, (kind, turns) in enumerate(batch)]
    asyncio.run(run_batch(watched.toolbox, calls, ended.setdefault, parallel))
    assert sorted(ended) == list(range(len(calls)))
    assert watched.most <= parallel
    assert watched.overlaps <= {frozenset({"read_only"})}
    assert all(result.call_id == calls[number].id for number, result in ended.items())


@given(st.data())
def test_calls_that_come_later_keep_the_bounds_too_and_each_begins_as_soon_as_it_may(data):
    size, parallel = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 4))
    kinds = {n: data.draw(st.sampled_from(KINDS)) for n in range(size)}
    turns = {n: data.draw(st.integers(0, 4)) for n in range(size)}
    later = data.draw(st.lists(st.sampled_from(range(size)), unique=True, max_size=size - 1))
    groups_of_later = [later[n : n + 2] for n in range(0, len(later), 2)]
    at_work, ran, missed = set(), [], []

    async def run_one(number):
        at_work.add(number)
        assert len(at_work) <= parallel
        assert len(at_work) == 1 or {kinds[each] for each in at_work} == {"read_only"}
        for _ in range(turns[number]):
            await asyncio.sleep(0)
        at_work.discard(number)
        ran.append(number)

    async def more():
        for _ in range(2):
            await asyncio.sleep(0)
        return {number: kinds[number] for number in groups_of_later.pop(0)}

    async def main():
        first = {n: kinds[n] for n in range(size) if n not in later}
        await run_as_they_come(first, more, lambda: bool(groups_of_later), run_one, parallel)

    asyncio.run(main())
    missed = [number for group in groups_of_later for number in group]  # all others had ended before
    assert sorted(ran + missed) == list(range(size))


async def test_what_one_of_several_raises_ends_those_that_came_later_as_well():
    ended = []

    async def run_one(number):
        try:
            if number == 2:
                raise LookupError
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(number)
            raise

    async def more():
        return {1: "read_only", 2: "read_only"}

    begun = iter([True])
    with pytest.raises(LookupError):
        await run_as_they_come({0: "read_only"}, more, lambda: next(begun, False), run_one, 3)
    assert sorted(ended) == [0, 1]


async def test_each_call_of_a_group_ends_when_it_is_done_and_not_when_all_are():
    second_done = asyncio.Event()
    reported = []

    @tool(concurrency="read_only")
    async def first() -> str:
        await second_done.wait()
        return "1"

    @tool(concurrency="read_only")
    async def second() -> str:
        return "2"

    def ended(number, result):
        reported.append(result.text)
        second_done.set()

    await run_batch(Toolbox([first, second]), [ToolCall("a", "first"), ToolCall("b", "second")], ended)
    assert reported == ["2", "1"]


async def test_cancelling_a_batch_stops_what_runs_raises_its_flags_and_starts_no_more():
    loop, begun = asyncio.get_running_loop(), [asyncio.Event(), asyncio.Event()]
    contexts, stopped, reported = {}, [], []

    @tool(concurrency="read_only")
    async def waits() -> None:
        begun[0].set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("waits")

    @tool(concurrency="read_only")
    def blocks(ctx: ToolContext) -> None:
        loop.call_soon_threadsafe(begun[1].set)
        ctx.cancel.wait(10)

    @tool(concurrency="read_only")
    async def quick() -> str:
        return "done"

    def never() -> None:
        stopped.append("never")

    def ctx_for(call: ToolCall) -> ToolContext:
        contexts[call.name] = context(call)
        return contexts[call.name]

    calls = [ToolCall(name, name) for name in ("quick", "waits", "blocks", "never")]
    toolbox = Toolbox([waits, blocks, quick, never])

    def ended(number, result):
        reported.append(result.text)

    batch = asyncio.create_task(run_batch(toolbox, calls, ended, ctx_for=ctx_for))
    for event in begun:
        await event.wait()
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert stopped == ["waits"]
    assert reported == ["done"]
    assert contexts["blocks"].cancel.cancelled
    assert "never" not in contexts


async def test_an_error_of_whoever_is_called_ends_the_batch_as_it_is():
    stopped = asyncio.Event()

    @tool(concurrency="read_only")
    async def quick() -> None: ...

    @tool(concurrency="read_only")
    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def ended(number, result):
        raise LookupError("the store is gone")

    calls = [ToolCall("1", "waits"), ToolCall("2", "quick")]
    with pytest.raises(LookupError):
        await run_batch(Toolbox([quick, waits]), calls, ended)
    assert stopped.is_set()
