"""A call that is approved while others are at work begins at once, where their kinds allow it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from store_kit import KINDS

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.pod.runs.tool_runner import NOT_RUN
from actors.runtime.events.subscription import Subscription
from actors.sessions.answer_token import answer_token
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.approval import ApprovalAnswer
from protocol.events import ApprovalRequested, ApprovalResolved, ToolResulted
from protocol.hooks import Replace
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.manifest import PodManifest

ASKS = PodManifest.of(
    name="p", approval=[{"tool": each, "policy": "ask"} for each in ("pay", "peek")], parallel_tools=2
)


async def settle() -> None:
    """Give all that could begin by now its turns."""
    for _ in range(20):
        await asyncio.sleep(0)


class Work:
    """A pod whose call ``slow`` goes on until it is let end."""

    def __init__(self, system: PodSystem, pod: Pod, events: Subscription) -> None:
        self.system, self.pod, self.events = system, pod, events
        #: What tools have done, in order.
        self.log: list[str] = []
        self.end_slow = asyncio.Event()
        self._more = asyncio.Event()

    def note(self, words: str) -> None:
        self.log.append(words)
        self._more.set()

    async def sees(self, words: str, times: int = 1) -> None:
        """Wait until a tool has done that."""
        while self.log.count(words) < times:
            self._more.clear()
            await self._more.wait()

    async def asked(self, number: int = 1) -> list[ApprovalRequested]:
        found: list[ApprovalRequested] = []
        while len(found) < number:
            event = await anext(self.events)
            if isinstance(event, ApprovalRequested):
                found.append(event)
        return found

    async def results(self) -> list[str]:
        return [item.text for item in await self.pod.history() if isinstance(item, ToolResult)]


@contextlib.asynccontextmanager
async def working(
    *replies: Reply, store: SessionStore | None = None, manifest: PodManifest = ASKS, **options: Any
) -> AsyncIterator[Work]:
    async with asyncio.timeout(30), PodSystem(store or MemoryStore()) as system:

        @tool
        async def pay(to: str) -> str:
            work.note(f"pay {to}")
            await asyncio.sleep(0)
            work.note(f"paid {to}")
            return f"paid {to}"

        @tool(concurrency="read_only")
        async def peek(at: str) -> str:
            work.note(f"peek {at}")
            return f"seen {at}"

        @tool(concurrency="read_only")
        async def slow() -> str:
            work.note("slow began")
            await work.end_slow.wait()
            work.note("slow ended")
            return "slow"

        @tool
        async def alone() -> str:
            work.note("alone began")
            await work.end_slow.wait()
            work.note("alone ended")
            return "alone"

        client = ScriptedClient([*replies])
        with system.subscribe() as events:
            pod = await system.spawn(manifest, client=client, tools=[pay, peek, slow, alone], **options)
            work = Work(system, pod, events)
            yield work


SLOW, ALONE = call("slow", {}), call("alone", {})


def peek(at: str) -> Reply:
    return call("peek", {"at": at})


def pay(to: str) -> Reply:
    return call("pay", {"to": to})


@pytest.mark.parametrize("order", ["before", "behind"])
async def test_an_approved_reader_begins_while_a_slow_one_is_at_work(order: str) -> None:
    calls = SLOW + peek("a") if order == "behind" else peek("a") + SLOW
    async with working(calls, say("done")) as work:
        run = work.pod.run("go")
        (asked,) = await work.asked()
        await work.sees("slow began")
        await work.pod.approve(asked.approval_id)
        await work.sees("peek a")
        assert "slow ended" not in work.log
        work.end_slow.set()
        assert (await run).text == "done"
        answers = [item for item in await work.pod.history() if isinstance(item, AssistantItem)]
        assert [each.name for each in answers[0].calls] == (
            ["slow", "peek"] if order == "behind" else ["peek", "slow"]
        )
        assert sorted(await work.results()) == ["seen a", "slow"]


async def test_the_result_of_such_a_call_is_durable_while_the_others_go_on() -> None:
    async with working(SLOW + peek("a"), say("done")) as work:
        run = work.pod.run("go")
        (asked,) = await work.asked()
        await work.sees("slow began")
        await work.pod.approve(asked.approval_id)
        async for event in work.events:  # a durable event is published behind its commit
            if isinstance(event, ToolResulted):
                assert event.item.text == "seen a"
                break
        work.end_slow.set()
        assert (await run).text == "done"


async def test_an_exclusive_call_that_is_approved_waits_for_those_at_work_and_keeps_the_rest_behind_it() -> (
    None
):
    async with working(pay("ann") + SLOW + peek("a"), say("done")) as work:
        run = work.pod.run("go")
        first, second = await work.asked(2)
        await work.sees("slow began")
        await work.pod.approve(first.approval_id)
        await work.pod.approve(second.approval_id)
        await settle()
        assert work.log == ["slow began"]
        work.end_slow.set()
        assert (await run).text == "done"
        assert work.log == ["slow began", "slow ended", "pay ann", "paid ann", "peek a"]


async def test_nothing_begins_beside_an_exclusive_call() -> None:
    async with working(ALONE + peek("a") + peek("b"), say("done")) as work:
        run = work.pod.run("go")
        first, second = await work.asked(2)
        await work.sees("alone began")
        await work.pod.approve(second.approval_id)
        await work.pod.deny(first.approval_id)
        await settle()
        assert work.log == ["alone began"]
        work.end_slow.set()
        assert (await run).text == "done"
        assert work.log == ["alone began", "alone ended", "peek b"]


async def test_no_more_run_at_once_than_the_manifest_allows() -> None:
    async with working(SLOW + SLOW + peek("a"), say("done")) as work:
        run = work.pod.run("go")
        (asked,) = await work.asked()
        await work.sees("slow began", 2)
        await work.pod.approve(asked.approval_id)
        await settle()
        assert "peek a" not in work.log
        work.end_slow.set()
        assert (await run).text == "done"
        assert "peek a" in work.log


async def test_an_answer_of_another_process_begins_its_call_beside_those_at_work(tmp_path: Path) -> None:
    store, elsewhere = KINDS["sqlite-process"](tmp_path), KINDS["sqlite-process"](tmp_path)
    async with working(SLOW + peek("a") + peek("b"), say("done"), store=store) as work:
        run = work.pod.run("go")
        first, second = await work.asked(2)
        await work.sees("slow began")
        for request, approved in ((first, True), (second, False)):
            answer = ApprovalAnswer(request.approval_id, request.session_id, approved=approved, at=request.at)
            assert elsewhere.put_answer(answer_token().sign(answer))
        await work.sees("peek a")
        work.end_slow.set()
        assert (await run).text == "done"
        assert work.log == ["slow began", "peek a", "slow ended"]
    store.close()
    elsewhere.close()


async def test_a_cancel_or_a_pause_ends_all_that_is_at_work_and_what_waits_for_its_turn() -> None:
    async with working(SLOW + pay("ann") + peek("b")) as work:
        run = work.pod.run("go")
        first, _ = await work.asked(2)
        await work.sees("slow began")
        await work.pod.approve(first.approval_id)
        await work.pod.cancel()
        assert (await run).outcome == "cancelled"
        assert work.log == ["slow began"]
        assert (await work.results())[1:] == [NOT_RUN, NOT_RUN]


async def test_words_that_steer_while_calls_are_at_work_deny_what_waits() -> None:
    async with working(SLOW + peek("a"), say("done")) as work:
        run = work.pod.run("go")
        await work.asked()
        await work.sees("slow began")
        steered = work.pod.steer("look nowhere")
        async for event in work.events:
            if isinstance(event, ApprovalResolved):
                break
        work.end_slow.set()
        assert (await run).text == "done"
        await steered
        assert "peek a" not in work.log
        assert "a person denied it: look nowhere" in (await work.results())[1]


async def test_a_call_that_hooks_change_into_one_to_ask_for_begins_beside_those_at_work() -> None:
    class Redirect:
        def before_tool(self, call: ToolCall) -> Replace | None:
            return Replace({"at": "b"}) if call.name == "peek" else None

    rules = [
        {"tool": "peek", "match": {"at": "a"}, "policy": "allow"},
        {"tool": "peek", "policy": "ask"},
    ]
    manifest = PodManifest.of(name="q", approval=rules)
    async with working(SLOW + peek("a"), say("done"), manifest=manifest, hooks=[Redirect()]) as work:
        run = work.pod.run("go")
        (asked,) = await work.asked()
        assert asked.arguments == {"at": "b"}
        await work.sees("slow began")
        await work.pod.approve(asked.approval_id)
        await work.sees("peek b")
        work.end_slow.set()
        assert (await run).text == "done"
