"""No call that was begun is ever begun again without the model asking for it anew."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.base import Block, End, Request, TextChunk
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.runs.decide import CallModel, CloseCalls, Compact, Finish, RunTools, TurnState, next_step
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import RunFailed
from protocol.events import ToolResulted
from protocol.items import AssistantItem, TextPart, ToolCall, ToolResult
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Played:
    """A run that is played by what ``next_step`` says, with steps that end in all manners."""

    def __init__(self, answers: list[int], luck: list[bool]) -> None:
        self._answers = answers
        self._luck = iter(luck)
        self.begun: list[tuple[int, str]] = []
        self._turn = 0
        self._answer: AssistantItem | None = None
        self._open: list[ToolCall] = []
        self._started: set[str] = set()

    def to_its_end(self) -> int:
        """Play it; how many steps it took."""
        for steps in range(500):
            step = next_step(self._standing())
            match step:
                case Finish():
                    return steps
                case CallModel() | Compact():
                    self._ask()
                case CloseCalls(calls):
                    assert {each.id for each in calls} <= self._started
                    self._open = [each for each in self._open if each not in calls]
                case RunTools(calls):
                    self._run(calls)
        raise AssertionError("it never ends")

    def _standing(self) -> TurnState:
        return TurnState(
            ending=None,
            answer=self._answer,
            stop_reason="end_turn",
            open_calls=list(self._open),
            pending=False,
            steps=self._turn,
            max_steps=100,
            fullness="send",
            started_calls=frozenset(self._started),
        )

    def _ask(self) -> None:
        number = self._answers[self._turn] if self._turn < len(self._answers) else 0
        self._turn += 1
        calls = tuple(ToolCall(f"c{n}", "work") for n in range(number))
        self._answer = AssistantItem((TextPart("so"), *calls))
        self._open, self._started = list(calls), set()

    def _run(self, calls: list[ToolCall]) -> None:
        """A batch that breaks at any point: each call may not begin, begin and be lost, or have its result."""
        for each in calls:
            if not next(self._luck, True):
                return
            self.begun.append((self._turn, each.id))
            self._started.add(each.id)
            if next(self._luck, True):
                self._open.remove(each)


@given(st.lists(st.integers(0, 4), max_size=5), st.lists(st.booleans(), max_size=40))
def test_whatever_becomes_of_its_steps_a_run_ends_and_begins_each_call_once(
    answers: list[int], luck: list[bool]
) -> None:
    played = Played(answers, luck)
    played.to_its_end()
    assert len(played.begun) == len(set(played.begun))


async def _outcome(run: asyncio.Future[object]) -> str:
    try:
        return (await run).outcome  # type: ignore[attr-defined, no-any-return]
    except RunFailed as error:
        return f"failed: {error}"


def test_a_tool_that_cancels_its_own_task_ends_only_its_call() -> None:
    runs: list[int] = []

    @tool(concurrency="read_only")
    async def itself() -> str:
        runs.append(1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()
        return "never"

    @tool(concurrency="read_only")
    async def beside() -> str:
        await asyncio.sleep(0)
        return "done"

    client = ScriptedClient([call("itself") + call("beside"), say("so")])

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PLAIN, client=client, tools=[itself, beside])
            assert (await pod.run("go")).outcome == "finished"

    asyncio.run(main())
    results = [item.text for item in client.requests[1].items if isinstance(item, ToolResult)]
    assert "outcome unknown" in results[0]
    assert results[1] == "done"
    assert runs == [1]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_run_whose_tasks_are_cancelled_from_outside_ends_and_its_call_is_closed(
    *, plain: bool
) -> None:
    loop, begun, runs = asyncio.get_running_loop(), asyncio.Event(), []

    async def pay() -> str:
        runs.append(1)
        begun.set()
        await asyncio.Event().wait()
        return "never"

    def pay_in_thread(ctx: object) -> str:
        runs.append(1)
        loop.call_soon_threadsafe(begun.set)
        ctx.cancel.wait(10)  # type: ignore[attr-defined]
        return "late"

    work = tool(name="pay")(pay_in_thread if plain else pay)
    client = ScriptedClient([call("pay"), say("again")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[work])
        others = asyncio.all_tasks()
        run = pod.run("go")
        await begun.wait()
        for task in asyncio.all_tasks() - others:
            task.cancel()
        assert await _outcome(run) == "cancelled"  # type: ignore[arg-type]
        results = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
        assert ["outcome unknown" in text for text in results] == [True]
        assert (await pod.run("more")).text == "again"
    assert runs == [1]


async def test_a_client_that_raises_a_cancel_by_itself_fails_the_run_with_the_cause() -> None:
    class Odd:
        async def stream(self, _request: Request) -> AsyncIterator[Block]:
            yield TextChunk("so", 0)
            raise asyncio.CancelledError("my own")

    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=Odd())
        with pytest.raises(RunFailed, match="CancelledError, although nobody had cancelled it") as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause.__cause__, asyncio.CancelledError)


async def test_a_client_that_answers_its_cancel_with_an_error_is_not_asked_again_and_the_run_is_cancelled() -> (
    None
):
    class Odd:
        def __init__(self) -> None:
            self.asked = 0
            self.waits = asyncio.Event()

        async def stream(self, _request: Request) -> AsyncIterator[Block]:
            self.asked += 1
            self.waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("cut off") from None
            yield End("end_turn")

    client = Odd()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client)
        run = pod.run("go")
        await client.waits.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert client.asked == 1


async def test_a_tool_says_how_long_it_ran_apart_from_what_it_waited_for_a_thread() -> None:
    @tool(concurrency="read_only")
    def work() -> str:
        never.wait(0.1)
        return "done"

    never = threading.Event()
    client = ScriptedClient([call("work", id="a") + call("work", id="b") + call("work", id="c"), say("so")])

    async with PodSystem(tool_threads=1) as system:
        pod = await system.spawn(PLAIN, client=client, tools=[work])
        with pod.subscribe(ToolResulted) as events:
            began = time.monotonic()
            await pod.run("go")
            took = time.monotonic() - began
            results = [event for event in events.drain() if isinstance(event, ToolResulted)]
    assert [event.item.text for event in results] == ["done"] * 3
    ran = [event.seconds or 0.0 for event in results]
    waited = [event.waited or 0.0 for event in results]
    assert min(ran) >= 0.1
    assert sum(ran) <= took, "they ran one after the other, and no wait is in it"
    assert waited[0] < waited[1] < waited[2] <= took
    assert waited[2] - waited[0] >= 0.1
