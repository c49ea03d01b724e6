"""What tools work with is handed to them by ``spawn(deps=…)`` and ``run(deps=…)``, and never kept anywhere."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.runs.run_state import RunHere
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from protocol.events import RunEnd
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Books:
    """What the tools of these tests work with."""

    def __init__(self, shelf: str) -> None:
        self.shelf = shelf


@tool
async def awaited(ctx: ToolContext[Books]) -> str:
    """Which shelf."""
    return ctx.deps.shelf


@tool
def plain(ctx: ToolContext[Books] | None) -> str:
    """Which shelf."""
    return "none" if ctx is None or ctx.deps is None else ctx.deps.shelf


def answers(name: str, times: int) -> ScriptedClient:
    return ScriptedClient([reply for _ in range(times) for reply in (call(name), say("done"))])


async def results(pod: Any) -> list[str]:
    return [item.text for item in await pod.history() if type(item).__name__ == "ToolResult"]


@pytest.mark.parametrize("used", [awaited, plain])
async def test_a_tool_finds_what_its_pod_was_spawned_with(used: Tool) -> None:
    assert used.input_schema["properties"] == {}

    async with PodSystem() as system:
        first = await system.spawn(PLAIN, client=answers(used.name, 1), tools=[used], deps=Books("a"))
        second = await system.spawn(PLAIN, client=answers(used.name, 1), tools=[used], deps=Books("b"))
        await asyncio.gather(first.run("go"), second.run("go"))
        assert (await results(first), await results(second)) == (["a"], ["b"])


async def test_a_run_brings_its_own_for_itself_alone() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=answers("plain", 4), tools=[plain], deps=Books("pod's"))
        await asyncio.gather(pod.run("1", deps=Books("one")), pod.run("2"), pod.run("3", deps=Books("3")))
        async with pod.stream("4", deps=Books("streamed")) as stream:
            assert [type(event) async for event in stream][-1] is RunEnd
        assert await results(pod) == ["one", "pod's", "3", "streamed"]


async def test_without_any_there_is_none() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=answers("plain", 1), tools=[plain])
        await pod.run("go")
        assert await results(pod) == ["none"]


async def test_a_paused_run_goes_on_with_what_it_had_and_a_restored_one_with_its_pods() -> None:
    began = asyncio.Event()
    hold = asyncio.Event()

    @tool(concurrency="read_only")
    async def slow(ctx: ToolContext[Books]) -> str:
        began.set()
        await hold.wait()
        return ctx.deps.shelf

    replies = [call("slow"), call("plain"), say("a"), call("slow"), call("plain"), say("b")]
    client = ScriptedClient(replies)
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[slow, plain], deps=Books("pod's"))
        for resumed in (False, True):
            began.clear()
            run = pod.run("go", deps=Books("run's"))
            await began.wait()
            await pod.pause()
            assert (await run).outcome == "paused"
            if resumed:
                session = (await pod.describe()).session_id
                await pod.stop()
                pod = await system.spawn(
                    PLAIN, client=client, tools=[slow, plain], resume=session, deps=Books("new pod's")
                )
            await pod.resume()
        texts = [text for text in await results(pod) if "interrupted" not in text]
        assert texts == ["run's", "new pod's"]


async def test_nothing_of_them_reaches_the_session_or_the_events() -> None:
    async with PodSystem() as system:
        with system.subscribe() as events:
            pod = await system.spawn(
                PLAIN, client=answers("plain", 1), tools=[plain], deps=Books("on the shelf")
            )
            await pod.run("go", deps=Books("secret-of-the-run"))
            session = (await pod.describe()).session_id
            bodies = b"".join(entry.body for entry in system.store.read(session))
            assert bodies.count(b"secret-of-the-run") == 1  # what the tool returned
            assert b"on the shelf" not in bodies
            assert "on the shelf" not in repr(events.drain())


def test_what_a_run_was_handed_is_seen_by_the_garbage_collector() -> None:
    """It may refer to the pod that the run waits at."""
    assert gc.is_tracked(RunHere((), deps=Books("a")))
