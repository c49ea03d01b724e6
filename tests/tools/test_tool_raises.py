"""Whatever an async or a plain tool raises is the result of its call, and ends nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.items import ToolResult
from protocol.manifest import PodManifest


class Odd(BaseException):
    """No exception that anybody expects."""


class Mute(Odd):
    """One whose words cannot be had."""

    def __str__(self) -> str:
        raise Odd


ERRORS: list[Callable[[], BaseException]] = [
    asyncio.CancelledError,
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    StopAsyncIteration,
    lambda: StopIteration(5),
    lambda: Odd("odd"),
    Mute,
    lambda: BaseExceptionGroup("g", [asyncio.CancelledError(), ValueError("x")]),
    lambda: TimeoutError("mine"),
    MemoryError,
    RecursionError,
]


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("error", ERRORS)
def test_it_is_the_result_of_its_call(error: Any, timeout: float | None, *, plain: bool) -> None:
    @tool(name="raises", concurrency="read_only", timeout=timeout)
    def in_thread() -> None:
        raise error()

    @tool(name="raises", concurrency="read_only", timeout=timeout)
    async def on_loop() -> None:
        await asyncio.sleep(0)
        raise error()

    @tool(concurrency="read_only")
    async def beside() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        return "done"

    client = ScriptedClient([call("raises") + call("beside"), say("so"), say("again")])

    async def main() -> None:
        async with PodSystem() as system:
            tools = [in_thread if plain else on_loop, beside]
            pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=tools)
            assert (await pod.run("go")).text == "so"
            assert (await pod.run("more")).text == "again"

    asyncio.run(main())
    raised, other = (item for item in client.requests[1].items if isinstance(item, ToolResult))
    assert raised.is_error
    assert raised.text.startswith("raises failed: ")
    assert other.text == "done"


@pytest.mark.parametrize("lives", ["in a thread", "on the loop", "at once"])
@pytest.mark.parametrize("error", ERRORS)
def test_whatever_a_returned_object_raises_as_it_is_dumped_the_tool_has_run(error: Any, lives: str) -> None:
    class Report:
        def model_dump(self, **_: Any) -> Any:
            raise error()

        def __str__(self) -> str:
            raise error()

    async def on_loop() -> Any:
        return Report()

    function = on_loop if lives == "on the loop" else Report
    returns = tool(name="returns", blocking=lives != "at once")(function)
    client = ScriptedClient([call("returns"), say("so")])

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[returns])
            assert (await pod.run("go")).text == "so"

    asyncio.run(main())
    result = client.requests[1].items[-1]
    assert isinstance(result, ToolResult)
    assert "Report: the tool ran, but this cannot be shown: " in result.text
    assert not result.is_error


def test_a_tool_that_returns_with_a_cancel_pending_has_returned() -> None:
    @tool
    async def leaves_one() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "returned"

    client = ScriptedClient([call("leaves_one"), say("so")])

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[leaves_one])
            assert (await pod.run("go")).text == "so"

    asyncio.run(main())
    assert client.requests[1].items[-1].text == "returned"
