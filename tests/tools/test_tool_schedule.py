"""A batch runs in its groups: readers together, everything else alone, results in the calls' order."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.base import Toolbox, ToolContext, tool
from actors.tools.schedule import groups, run_batch
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


@given(
    st.lists(st.tuples(st.sampled_from([*KINDS, "unknown"]), st.integers(0, 4)), max_size=15),
    st.integers(1, 5),
)
def test_any_batch_keeps_its_bounds_its_barriers_and_its_order(batch, parallel):
    watched, told = Watched(), []
    calls = [ToolCall(str(n), kind, {"n": n, "turns": turns}) for n, (kind, turns) in enumerate(batch)]

    async def on_result(*what):
        told.append(what)

    results = asyncio.run(run_batch(watched.toolbox, calls, context, parallel=parallel, on_result=on_result))
    assert [result.call_id for result in results] == [call.id for call in calls]
    assert watched.most <= parallel
    assert watched.overlaps <= {frozenset({"read_only"})}
    assert sorted(number for number, *_ in told) == list(range(len(calls)))
    for number, result, seconds, _ in told:
        assert result is results[number]
        assert (seconds is None) == (calls[number].name == "unknown")


def test_each_result_is_told_as_it_ends_while_the_list_keeps_call_order():
    async def main() -> None:
        second_done = asyncio.Event()
        told = []

        @tool(concurrency="read_only")
        async def first() -> str:
            await second_done.wait()
            return "1"

        @tool(concurrency="read_only")
        async def second() -> str:
            return "2"

        async def on_result(number, result, seconds, waited):
            told.append(number)
            second_done.set()

        calls = [ToolCall("a", "first"), ToolCall("b", "second")]
        results = await run_batch(Toolbox([first, second]), calls, context, on_result=on_result)
        assert told == [1, 0]
        assert [r.text for r in results] == ["1", "2"]

    asyncio.run(main())


def test_cancelling_a_batch_stops_what_runs_raises_its_flags_and_starts_no_more():
    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), [asyncio.Event(), asyncio.Event()]
        contexts, stopped, told = {}, [], []

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

        async def on_result(number, result, seconds, waited):
            told.append(result.text)

        batch = asyncio.create_task(run_batch(toolbox, calls, ctx_for, on_result=on_result))
        for event in begun:
            await event.wait()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert stopped == ["waits"]
        assert told == ["done"]
        assert contexts["blocks"].cancel.cancelled
        assert "never" not in contexts

    asyncio.run(main())


def test_an_error_of_whoever_is_told_ends_the_batch_as_it_is():
    async def main() -> None:
        stopped = asyncio.Event()

        @tool(concurrency="read_only")
        async def quick() -> None: ...

        @tool(concurrency="read_only")
        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async def on_result(number, result, seconds, waited):
            raise LookupError("the store is gone")

        with pytest.raises(LookupError):
            await run_batch(
                Toolbox([quick, waits]),
                [ToolCall("1", "waits"), ToolCall("2", "quick")],
                context,
                on_result=on_result,
            )
        assert stopped.is_set()

    asyncio.run(main())
