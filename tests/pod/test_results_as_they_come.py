"""Each result of a group is durable when its call ends, and the model sees all of them in the order of their calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from every_commit import Refusing

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.errors import RunFailed
from protocol.events import RunEnd, ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest

WIDE = PodManifest.of(name="p", parallel_tools=10)


class Gates:
    """A tool whose calls end one by one, when they are asked to."""

    def __init__(self, number: int) -> None:
        self.gates = {n: asyncio.Event() for n in range(number)}
        self.begun = asyncio.Semaphore(0)

    def tool(self) -> Tool:
        @tool(concurrency="read_only")
        async def look(n: int) -> str:
            self.begun.release()
            await self.gates[n].wait()
            return f"saw {n}"

        return look

    async def all_begun(self) -> None:
        for _ in self.gates:
            await self.begun.acquire()


def looks(number: int) -> Reply:
    asked = call("look", {"n": 0}, id="0")
    for n in range(1, number):
        asked = asked + call("look", {"n": n}, id=str(n))
    return asked


def ids(items: Any) -> list[str]:
    return [item.call_id for item in items if isinstance(item, ToolResult)]


def durable(system: PodSystem, session: str) -> list[str]:
    """The results that the store has."""
    return ids(replay(system.store.read(session)).items)


async def open_each(gates: Gates, order: list[int], pod: Pod, system: PodSystem) -> None:
    """Have calls end in some order; each result is reported and durable before the next one is there."""
    session = (await pod.describe()).session_id
    with pod.subscribe(ToolResulted) as events:
        for place, n in enumerate(order):
            gates.gates[n].set()
            if place + 1 == len(gates.gates):
                return  # the last becomes durable with the request that follows
            event = await asyncio.wait_for(anext(aiter(events)), 60)
            assert isinstance(event, ToolResulted)
            assert event.item.call_id == str(n)
            assert durable(system, session)[-1] == str(n)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
async def test_each_result_is_kept_when_its_call_ends_and_shown_where_its_call_stands(
    order: list[int], *, later: bool
) -> None:
    gates, client = Gates(4), ScriptedClient([looks(4), say("done")])
    async with PodSystem(Refusing(lambda _: False, later=later)) as system:
        pod = await system.spawn(WIDE, client=client, tools=[gates.tool()])
        run = pod.run("go")
        await gates.all_begun()
        await open_each(gates, order, pod, system)
        result = await run
        assert ids(client.requests[1].items) == ["0", "1", "2", "3"]
        assert ids(await pod.history()) == ["0", "1", "2", "3"]
        assert durable(system, result.session_id) == [str(n) for n in order]


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_what_ends_a_run_within_a_group_keeps_what_has_ended(how: str) -> None:
    gates, client = Gates(4), ScriptedClient([looks(4), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(WIDE, client=client, tools=[gates.tool()])
        run = pod.run("go")
        await gates.all_begun()
        await open_each(gates, [3, 1], pod, system)
        await getattr(pod, how)()
        await run
        following = pod.run("more") if how == "cancel" else pod.resume()
        assert (await following).text == "done"
        for items in (client.requests[1].items, await pod.history()):
            results = [item for item in items if isinstance(item, ToolResult)]
            assert ids(results) == ["0", "1", "2", "3"]
            assert [item.is_error for item in results] == [True, False, True, False]


async def test_two_calls_of_one_id_both_have_a_result_where_a_run_ends_after_the_first() -> None:
    gates = Gates(2)
    twice = call("look", {"n": 0}, id="same") + call("look", {"n": 1}, id="same")
    async with PodSystem() as system:
        pod = await system.spawn(WIDE, client=ScriptedClient([twice]), tools=[gates.tool()])
        run = pod.run("go")
        await gates.all_begun()
        with pod.subscribe(ToolResulted) as events:
            gates.gates[0].set()
            await asyncio.wait_for(anext(aiter(events)), 60)
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        results = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert [(item.call_id, item.is_error) for item in results] == [("same", False), ("same", True)]


async def test_a_result_that_ran_out_of_time_does_not_hold_up_the_others() -> None:
    gates = Gates(1)

    @tool(concurrency="read_only", timeout=0.2)
    async def slow() -> str:
        await asyncio.Event().wait()
        return "never"

    client = ScriptedClient([call("slow", id="slow") + call("look", {"n": 0}, id="0"), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(WIDE, client=client, tools=[slow, gates.tool()])
        gates.gates[0].set()
        result = await pod.run("go")
        assert durable(system, result.session_id) == ["0", "slow"]
        assert ids(client.requests[1].items) == ["slow", "0"]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("refused", range(4))
async def test_a_store_that_refuses_one_result_keeps_those_before_it_and_the_pod_goes_on(
    refused: int, *, later: bool
) -> None:
    gates, client = Gates(4), ScriptedClient([looks(4), say("done")])
    store = Refusing(lambda _: False, later=later)
    order = [2, 0, 3, 1]
    async with PodSystem(store) as system:
        pod = await system.spawn(WIDE, client=client, tools=[gates.tool()])
        run = pod.run("go")
        await gates.all_begun()
        await open_each(gates, order[:refused], pod, system)
        store.refuses = lambda n, at=store.commits + 1: n == at
        gates.gates[order[refused]].set()
        if refused == 3:
            store.refuses = lambda n, at=store.commits + 1: n == at
        with pytest.raises(RunFailed, match="the disk is full"):
            await run
        assert (await pod.run("more")).text == "done"
        results = [item for item in client.requests[-1].items if isinstance(item, ToolResult)]
        assert ids(results) == ["0", "1", "2", "3"]
        kept = {str(n) for n in order[:refused]}
        assert {item.call_id for item in results if not item.is_error} == kept
        published = [event for event in system.subscribe("p", since=0).drain() if isinstance(event, RunEnd)]
        assert [event.outcome for event in published] == ["failed", "finished"]


async def test_a_session_restored_within_a_group_is_sent_as_the_one_that_lived_on() -> None:
    """A fork, a compaction and another process show the same order, from the same log."""
    gates = Gates(3)
    client = ScriptedClient([looks(3), say("one"), say("two"), say("three")])
    async with PodSystem() as system:
        pod = await system.spawn(WIDE, client=client, tools=[gates.tool()])
        run = pod.run("go")
        await gates.all_begun()
        await open_each(gates, [2, 0, 1], pod, system)
        await run
        branch = await pod.fork()
        session = (await pod.describe()).session_id
        await pod.stop()
        for resumed, words in ((branch, "two"), (session, "three")):
            again = await system.spawn(WIDE, client=client, tools=[gates.tool()], resume=resumed)
            assert (await again.run("more")).text == words
            await again.stop()
    sent = [list(request.items) for request in client.requests[1:]]
    assert ids(sent[0]) == ["0", "1", "2"]
    assert sent[1][: len(sent[0])] == sent[2][: len(sent[0])] == sent[0]
