"""Claim: the cost of a run with tool calls: two requests, the calls in between, everything logged and
published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from actors.llm.base import CallChunk, CallStart
from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import tool
from bench.claim import Claim, at_most
from bench.measure import Stopwatch
from bench.models import Caller, manifest
from bench.results import Reading
from protocol.items import ToolResult

CLAIM = Claim("tool", "tool turn: a run with one call of a tool, or a batch of them, model in memory")

_ON_LOOP = {"time of a run": at_most(80e-6)}
_ON_A_THREAD = {"time of a run": at_most(120e-6)}
_ON_A_THREAD_AT_ONCE = {"time of a run": at_most(90e-6)}
_ARGUMENTS = '{"text":"one two three"}'
_PODS = 200
#: Calls in a batch, how many of them may run together, and how long each takes.
_CALLS, _LIMIT, _SECONDS = 20, 10, 0.05
_BATCH = f"a batch of {_CALLS} calls of {_SECONDS * 1000:.0f} ms, {_LIMIT} at a time"


@tool(concurrency="read_only")
async def look_up(word: str) -> str:
    """Look a word up, which takes a while."""
    await asyncio.sleep(_SECONDS)
    return word


@tool(concurrency="read_only")
async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@tool(concurrency="read_only")
def count_words_plainly(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@tool(concurrency="read_only", blocking=False)
def count_words_at_once(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def _in_sequence(runs: int, used: Any) -> list[Reading]:
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=Caller(used.name, _ARGUMENTS), tools=[used])
        with Stopwatch() as watch:
            for _ in range(runs):
                await pod.run("How many words?")
    return [watch.each("time of a run", runs)]


async def _at_once(each: int, used: Any) -> list[Reading]:
    async def runs(pod: Pod) -> None:
        for _ in range(each):
            await pod.run("How many words?")

    async with PodSystem() as system:
        wanted, tools = manifest(), [used]
        pods = [
            await system.spawn(wanted, client=Caller(used.name, _ARGUMENTS), tools=tools)
            for _ in range(_PODS)
        ]
        with Stopwatch() as watch:
            await asyncio.gather(*map(runs, pods))
    return [watch.each("time of a run", each * _PODS)]


@CLAIM.case("async tool", full=2000, quick=500, targets=_ON_LOOP)
def async_tool(runs: int) -> list[Reading]:
    """A tool that is a coroutine, on the loop."""
    return asyncio.run(_in_sequence(runs, count_words))


@CLAIM.case("async tool, 200 pods at once", full=15, quick=4, tiny=1, targets=_ON_LOOP)
def async_tool_at_once(each: int) -> list[Reading]:
    """A coroutine tool, used by many pods at once."""
    return asyncio.run(_at_once(each, count_words))


@CLAIM.case("plain function", full=2000, quick=500, targets=_ON_A_THREAD)
def plain_tool(runs: int) -> list[Reading]:
    """A tool that is a plain function, on a thread of the pool: two hops between threads."""
    return asyncio.run(_in_sequence(runs, count_words_plainly))


@CLAIM.case("plain function, 200 pods at once", full=15, quick=4, tiny=1, targets=_ON_A_THREAD_AT_ONCE)
def plain_tool_at_once(each: int) -> list[Reading]:
    """A plain function as a tool, used by many pods at once."""
    return asyncio.run(_at_once(each, count_words_plainly))


@CLAIM.case("plain function, not blocking", full=2000, quick=500, targets=_ON_LOOP)
def quick_tool(runs: int) -> list[Reading]:
    """A tool that is a plain function with ``blocking=False``, called by the loop itself."""
    return asyncio.run(_in_sequence(runs, count_words_at_once))


@CLAIM.case("plain function, not blocking, 200 pods at once", full=15, quick=4, tiny=1, targets=_ON_LOOP)
def quick_tool_at_once(each: int) -> list[Reading]:
    """A plain function with ``blocking=False``, used by many pods at once."""
    return asyncio.run(_at_once(each, count_words_at_once))


async def _in_batches(batches: int) -> list[Reading]:
    client = Caller("look_up", '{"word":"one"}', _CALLS)
    async with PodSystem() as system:
        wanted = manifest(worker={"parallel_tools": _LIMIT, "max_repeats": 0})
        pod = await system.spawn(wanted, client=client, tools=[look_up])
        with Stopwatch() as watch:
            for _ in range(batches):
                await pod.run("Look the words up.")
    return [_of_a_batch(watch, batches)]


def _of_a_batch(watch: Stopwatch, batches: int) -> Reading:
    return Reading("time of a batch", "s", watch.wall / batches, "wall", watch.cpu / batches)


@CLAIM.case(_BATCH, full=20, quick=5, tiny=1, targets={"time of a batch": at_most(115e-3)})
def batch(batches: int) -> list[Reading]:
    """A run whose calls only read, and so may run together."""
    return asyncio.run(_in_batches(batches))


@CLAIM.case(_BATCH, by="tasks by hand", kind="floor", full=20, quick=5, tiny=1)
def batch_by_tasks(batches: int) -> list[Reading]:
    """As many waits in tasks, bounded by a semaphore."""
    return asyncio.run(_in_batches_by_hand(batches))


async def _in_batches_by_hand(batches: int) -> list[Reading]:
    places = asyncio.Semaphore(_LIMIT)

    async def wait() -> None:
        async with places:
            await asyncio.sleep(_SECONDS)

    with Stopwatch() as watch:
        for _ in range(batches):
            await asyncio.gather(*(wait() for _ in range(_CALLS)))
    return [_of_a_batch(watch, batches)]


async def _by_hand(runs: int, call: Callable[[dict[str, Any]], Any], tasks: int = 1) -> list[Reading]:
    with Stopwatch() as watch:
        await asyncio.gather(*(_one_by_hand(runs, call) for _ in range(tasks)))
    return [watch.each("time of a run", runs * tasks)]


async def _one_by_hand(runs: int, call: Callable[[dict[str, Any]], Any]) -> None:
    client = Caller("count_words", _ARGUMENTS)
    for _ in range(runs):
        history: list[Any] = ["How many words?"]
        arguments = ""
        async for block in client.stream(_Asked(history)):  # type: ignore[arg-type]
            if type(block) is CallChunk:
                arguments += block.text
            elif type(block) is CallStart:
                called = block
        result = await call(msgspec.json.decode(arguments))
        history.append(ToolResult(called.id, called.name, (result,)))
        async for _block in client.stream(_Asked(history)):  # type: ignore[arg-type]
            pass


class _Asked:
    def __init__(self, items: list[Any]) -> None:
        self.items = items


async def _called(arguments: dict[str, Any]) -> int:
    return len(arguments["text"].split())


async def _called_on_a_thread(arguments: dict[str, Any]) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: len(arguments["text"].split()))


@CLAIM.case("async tool", by="loop by hand", kind="floor", full=20_000, quick=5_000)
def by_hand(runs: int) -> list[Reading]:
    """As many blocks read in a loop, the arguments decoded, the function called."""
    return asyncio.run(_by_hand(runs, _called))


@CLAIM.case("plain function", by="loop by hand, executor", kind="floor", full=2_000, quick=500)
def by_hand_on_a_thread(runs: int) -> list[Reading]:
    """As many blocks read in a loop, and the function called on a thread of asyncio's executor."""
    return asyncio.run(_by_hand(runs, _called_on_a_thread))


@CLAIM.case("async tool, 200 pods at once", by="tasks by hand", kind="floor", full=100, quick=20, tiny=1)
def by_tasks(each: int) -> list[Reading]:
    """Blocks read and the function called in two hundred asyncio tasks."""
    return asyncio.run(_by_hand(each, _called, _PODS))


@CLAIM.case(
    "plain function, 200 pods at once", by="tasks by hand, executor", kind="floor", full=10, quick=4, tiny=1
)
def by_tasks_on_threads(each: int) -> list[Reading]:
    """Blocks read in two hundred asyncio tasks, and the function called on threads of asyncio's executor."""
    return asyncio.run(_by_hand(each, _called_on_a_thread, _PODS))
