"""What does not end when it is cancelled is left to itself: its pod goes on, and its late end is reported once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from actors.llm.base import Block, End, Request, TextChunk
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from protocol.events import Alert, Event, RunEnd, TextDelta, ToolProgress, ToolResulted, ToolStart
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Stubborn:
    """An async tool that goes on until it is let go, however often it is cancelled."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.ended = asyncio.Event()

    def tool(self, timeout: float | None = None) -> Tool:
        async def work() -> str:
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    continue
            self.ended.set()
            return "late"

        return tool(timeout=timeout)(work)


async def alert(events: Subscription) -> Alert:
    """The next alert."""
    async for event in events:
        if isinstance(event, Alert):
            return event
    raise AssertionError


async def wait_for_tool(events: Subscription) -> None:
    """Wait until a tool has begun."""
    async for event in events:
        if isinstance(event, ToolStart):
            return


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_a_tool_that_swallows_its_cancel_holds_it_for_the_grace_and_is_reported_twice(how: str) -> None:
    work = Stubborn()
    client = ScriptedClient([call("work"), say("next")])
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=client, tools=[work.tool()])
        with pod.subscribe() as events:
            run = pod.run("go")
            await wait_for_tool(events)
            await getattr(pod, how)()
            assert (await run).outcome == ("cancelled" if how == "cancel" else "paused")
            assert "work did not end within 0.05 s of being cancelled" in (await alert(events)).text
            assert not work.ended.is_set()
            following = pod.run("more") if how == "cancel" else pod.resume()
            assert (await following).text == "next"
            work.release.set()
            published = await alert(events)
            assert published.run_id == (await run).run_id
            assert "ended with a result after the pod had stopped waiting for it: late" in published.text
        assert [item.text for item in await pod.history() if "outcome unknown" in item.text]


async def test_a_result_that_is_overdue_stands_at_its_deadline_and_the_late_end_is_reported_once() -> None:
    work = Stubborn()
    client = ScriptedClient([call("work"), say("next")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[work.tool(timeout=0.01)])
        with pod.subscribe([Alert, ToolResulted, RunEnd]) as events:
            assert (await pod.run("go")).text == "next"
            assert not work.ended.is_set()
            result, end = events.drain()
            assert isinstance(result, ToolResulted)
            assert "may still be running" in result.item.text
            assert isinstance(end, RunEnd)
            work.release.set()
            assert (
                "ended with a result after the pod had stopped waiting for it: late"
                in (await alert(events)).text
            )
        assert [type(event) for event in replayed(system, pod)].count(Alert) == 1


def replayed(system: PodSystem, pod: Pod) -> list[Event]:
    """All durable events of the pod, as the store has them."""
    with system.subscribe(pod, since=0) as events:
        return events.drain()


def test_a_late_end_behind_that_of_its_pod_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        work = Stubborn()
        client = ScriptedClient([call("work"), say("next")])
        async with PodSystem() as system:
            pod = await system.spawn(PLAIN, client=client, tools=[work.tool(timeout=0.01)])
            await pod.run("go")
            await pod.stop()
            work.release.set()
            await work.ended.wait()
            for _ in range(3):
                await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        asyncio.run(main())
    assert any("after its pod stopped: tool work" in text for text in caplog.messages)


@pytest.mark.parametrize("how", ["its time is up", "cancel", "pause"])
async def test_progress_belongs_to_its_call_and_ends_with_it(how: str) -> None:
    loop, going_on, ended = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

    @tool(timeout=0.2 if how == "its time is up" else None)
    def busy(ctx: ToolContext) -> str:
        ctx.progress("in time")
        going_on.wait(10)
        for n in range(20):
            ctx.progress(f"late {n}")
        loop.call_soon_threadsafe(ended.set)
        return "late"

    @tool
    async def quick() -> str:
        going_on.set()
        await ended.wait()
        return "quick"

    first_words = [say("first")] if how == "its time is up" else []
    client = ScriptedClient([call("busy", id="c"), *first_words, call("quick", id="c"), say("second")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[busy, quick])
        with pod.subscribe([ToolProgress, Alert]) as events:
            run = pod.run("one")
            published = [await anext(events)]
            if not first_words:
                await getattr(pod, how)()
            first = await run
            await (pod.resume() if how == "pause" else pod.run("two"))
            published += await alert_and_before(events)
        progress = [event for event in published if isinstance(event, ToolProgress)]
        assert [(event.text, event.run_id) for event in progress] == [("in time", first.run_id)]


async def alert_and_before(events: Subscription) -> list[Event]:
    published: list[Event] = []
    async for event in events:
        published.append(event)
        if isinstance(event, Alert):
            return published
    return published


async def test_a_client_that_swallows_its_cancel_is_left_to_itself_and_says_nothing_more() -> None:
    class Deaf:
        def __init__(self) -> None:
            self.release = asyncio.Event()
            self.ended = asyncio.Event()
            self.asked = 0

        async def stream(self, _request: Request) -> AsyncIterator[Block]:
            self.asked += 1
            if self.asked > 1:
                yield TextChunk("second", 0)
                yield End("end_turn")
                return
            yield TextChunk("first", 0)
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    continue
            yield TextChunk("late", 0)
            self.ended.set()
            yield End("end_turn")

    client = Deaf()
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=client)
        with pod.subscribe() as events:
            run = pod.run("go")
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            await pod.cancel()
            assert (await run).outcome == "cancelled"
            assert "the model's client did not end within" in (await alert(events)).text
            assert (await pod.run("more")).text == "second"
            client.release.set()
            await client.ended.wait()
            await asyncio.sleep(0)
            assert [event.text for event in events.drain() if isinstance(event, TextDelta)] == ["second"]


async def test_plain_tools_that_wait_for_other_pods_do_not_use_up_the_threads_that_those_need() -> None:
    @tool
    def leaf() -> str:
        return "leaf"

    async with PodSystem(tool_threads=2) as system:
        inner = [
            await system.spawn(
                PodManifest.of(name="i"), client=ScriptedClient([call("leaf"), say("so")]), tools=[leaf]
            )
            for _ in range(6)
        ]
        all_wait = threading.Barrier(2)

        def asking(pod: Pod) -> Tool:
            def ask() -> str:
                if not all_wait.broken:
                    with contextlib.suppress(threading.BrokenBarrierError):
                        all_wait.wait(5)
                    all_wait.abort()
                return pod.run("task").get(timeout=60).text

            return tool(ask)

        outer = [
            await system.spawn(
                PodManifest.of(name="o"),
                client=ScriptedClient([call("ask"), say("done")]),
                tools=[asking(pod)],
            )
            for pod in inner
        ]
        results = await asyncio.wait_for(asyncio.gather(*(pod.run("x") for pod in outer)), 60)
        assert [result.text for result in results] == ["done"] * 6
        answers = [item.text for pod in outer for item in await pod.history()]
        assert answers.count("so") == 6
