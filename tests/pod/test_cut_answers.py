"""An answer that is cut short: what people saw of it is kept and marked, and what it took is counted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.compaction.prune import CUT_OFF
from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    Request,
    TextChunk,
    ThinkingChunk,
    UsageReport,
)
from actors.pod.handle import Pod
from actors.pod.runs.model_calls import GO_ON
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.errors import ModelError, RunFailed
from protocol.events import AssistantMessage, AttemptFailed, BudgetExceeded, Retry, RunEnd, StreamRestart
from protocol.items import AssistantItem, UserItem
from protocol.manifest import PodManifest
from protocol.usage import Usage

BREAK = ModelError("cut", kind="connection", retry_after=0.0)
LAST = ModelError("cut for good", kind="protocol")


class Halting:
    """Plays answers of blocks; an error among them is raised, None waits until the stream is closed."""

    model = "halting"

    def __init__(self, *answers: list[Block | ModelError | None]) -> None:
        self.answers = list(answers)
        self.requests: list[list[Any]] = []
        self.halted = asyncio.Event()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.requests.append(list(request.items))
        for block in self.answers.pop(0):
            if block is None:
                self.halted.set()
                await asyncio.Event().wait()
            elif isinstance(block, ModelError):
                raise block
            else:
                yield block


def whole(text: str = "whole", usage: Usage | None = None) -> list[Block | ModelError | None]:
    published = [] if usage is None else [UsageReport(usage)]
    return [TextChunk(text), *published, End("end_turn")]


def play(
    client: Callable[[], Halting],
    go: Callable[[PodSystem, Pod, Halting], Coroutine[Any, Any, None]],
    system: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    async def main() -> None:
        async with PodSystem(**(system or {})) as made:
            own = client()
            pod = await made.spawn(PodManifest.of(**settings), client=own)
            await asyncio.wait_for(go(made, pod, own), 60)

    asyncio.run(main())


async def halted_run(pod: Pod, client: Halting) -> Any:
    run = pod.run("tell")
    await client.halted.wait()
    return run


def test_what_was_shown_before_a_cancel_is_kept_and_the_model_sees_that_it_was_cut() -> None:
    async def cancel_halted(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = await halted_run(pod, client)
        await pod.cancel()
        assert (await run).text == "once upon "
        history = await pod.history()
        assert [(type(item), item.text) for item in history] == [
            (UserItem, "tell"),
            (AssistantItem, "once upon "),
        ]
        assert history[1].cut  # type: ignore[union-attr]
        assert (await pod.run("go on")).text == "whole"
        roles = [(type(item), item.text) for item in client.requests[1]]
        assert roles == [
            (UserItem, "tell"),
            (AssistantItem, f"once upon\n\n{CUT_OFF}"),
            (UserItem, "go on"),
        ]

    play(lambda: Halting([TextChunk("once "), TextChunk("upon "), None], whole()), cancel_halted)


def test_usage_that_was_reported_before_a_cancel_counts_as_it_stands() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = await halted_run(pod, client)
        with pod.subscribe(AssistantMessage) as events:
            await pod.cancel()
            (kept,) = events.drain()
        assert (await run).usage == kept.usage == Usage(70, 30)  # type: ignore[attr-defined]
        assert (await pod.describe()).usage == system.totals.usage == Usage(70, 30)
        assert system.budget is not None
        assert (system.budget.tokens, system.budget.incomplete) == (100, False)

    shown: list[Block | ModelError | None] = [TextChunk("once"), UsageReport(Usage(70, 30)), None]
    play(lambda: Halting(shown), go, {"budget": {"tokens": 1000}})


def test_usage_that_nobody_reported_counts_at_a_marked_estimate_in_run_pod_totals_and_budget() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = await halted_run(pod, client)
        await pod.cancel()
        usage = (await run).usage
        assert usage.incomplete
        assert usage.input_tokens
        assert usage.output_tokens == 100
        assert (await pod.describe()).usage == system.totals.usage == usage
        assert system.budget is not None
        assert (system.budget.tokens, system.budget.incomplete) == (usage.total_tokens, True)

    play(lambda: Halting([TextChunk("x" * 400), None]), go, {"budget": {"tokens": 1000}}, max_tokens=500)


def test_a_paused_run_keeps_what_was_shown_and_goes_on_from_there() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = await halted_run(pod, client)
        await pod.pause()
        assert ((await run).outcome, (await run).text) == ("paused", "once upon ")
        result = await pod.resume()
        assert (result.outcome, result.text) == ("finished", "whole")
        assert [item.text for item in client.requests[1]] == ["tell", f"once upon\n\n{CUT_OFF}", GO_ON]

    play(lambda: Halting([TextChunk("once upon "), None], whole()), go)


async def test_a_paused_run_goes_on_in_the_next_life_from_what_was_shown() -> None:
    store = MemoryStore()
    client = Halting([TextChunk("once upon "), None])
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        run = await halted_run(pod, client)
        await pod.pause()
        session, described = (await run).session_id, await pod.describe()
        usage, occupancy = described.usage, described.occupancy
    client = Halting(whole(usage=Usage(5, 5)))
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=client, resume=session)
        described = await pod.describe()
        assert (described.usage, described.occupancy) == (usage, occupancy)
        assert (await pod.resume()).text == "whole"
        assert [item.text for item in client.requests[0]] == ["tell", f"once upon\n\n{CUT_OFF}", GO_ON]


@pytest.mark.parametrize("blocks", [[None], [LAST]])
def test_an_answer_of_which_nothing_was_shown_leaves_nothing_behind(blocks: Any) -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = pod.run("tell")
        if blocks == [None]:
            await client.halted.wait()
            await pod.cancel()
            await run
        else:
            with pytest.raises(RunFailed):
                await run
        assert await pod.history() == [UserItem.of("tell")]

    play(lambda: Halting(list(blocks)), go)


def test_calls_of_an_answer_that_was_cut_are_never_run() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        run = await halted_run(pod, client)
        await pod.cancel()
        await run
        (_, kept) = await pod.history()
        assert isinstance(kept, AssistantItem)
        assert (kept.text, kept.calls, kept.cut) == ("I will ", (), True)

    shown: list[Any] = [TextChunk("I will "), CallStart(1, "a", "wipe"), CallChunk(1, "{}"), CallEnd(1), None]
    play(lambda: Halting(shown), go)


def test_a_stream_that_breaks_for_good_leaves_what_was_shown() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        with pytest.raises(RunFailed, match="cut for good"):
            await pod.run("tell")
        assert [item.text for item in await pod.history()] == ["tell", "half"]
        await pod.run("again")
        assert [item.text for item in client.requests[1]] == ["tell", f"half\n\n{CUT_OFF}", "again"]

    play(lambda: Halting([ThinkingChunk("hm"), TextChunk("half", 1), LAST], whole()), go)


def test_the_text_of_an_attempt_that_another_follows_is_not_kept_and_what_it_took_counts() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        with pod.subscribe() as events:
            result = await pod.run("tell")
            seen = events.drain()
        assert [item.text for item in await pod.history()] == ["tell", "whole"]
        assert result.usage == Usage(17, 25)
        assert [(e.attempt, e.usage) for e in seen if isinstance(e, AttemptFailed)] == [(1, Usage(7, 20))]
        assert [e.usage for e in seen if isinstance(e, AssistantMessage)] == [Usage(10, 5)]
        assert len([e for e in seen if isinstance(e, StreamRestart)]) == 1
        assert not [e for e in seen if isinstance(e, Retry)]
        assert (await pod.describe()).usage == system.totals.usage == Usage(17, 25)
        assert system.budget is not None
        assert system.budget.tokens == 42

    halves: list[Any] = [TextChunk("half"), UsageReport(Usage(7, 20)), BREAK]
    play(lambda: Halting(halves, whole(usage=Usage(10, 5))), go, {"budget": {"tokens": 9000}})


async def test_what_failed_attempts_took_is_known_in_the_next_life() -> None:
    store = MemoryStore()
    client = Halting([TextChunk("half"), UsageReport(Usage(7, 20)), BREAK], whole(usage=Usage(10, 5)))
    async with PodSystem(store) as system:
        session = (await (await system.spawn(PodManifest.of(), client=client)).run("tell")).session_id
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=Halting(), resume=session)
        assert (await pod.describe()).usage == Usage(17, 25)


def test_the_budget_is_asked_before_each_attempt() -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        with pod.subscribe([BudgetExceeded, RunEnd]) as events:
            result = await pod.run("tell")
            exceeded, end = events.drain()
        assert (result.outcome, result.text) == ("budget", "half")
        assert len(client.requests) == 1
        assert exceeded.used == 90  # type: ignore[attr-defined]
        assert end.error.details["budget"] == "tokens"  # type: ignore[attr-defined]

    halves: list[Any] = [TextChunk("half"), UsageReport(Usage(60, 30)), BREAK]
    play(lambda: Halting(halves, whole()), go, tokens=100, max_tokens=50)


@pytest.mark.parametrize("kind", ["connection", "rate_limit", "overloaded", "auth", "context_overflow"])
def test_a_request_that_no_server_took_counts_nothing(kind: Any) -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        with pytest.raises(RunFailed):
            await pod.run("tell")
        assert (await pod.describe()).usage == Usage()
        assert system.budget is not None
        assert (system.budget.tokens, system.budget.incomplete) == (0, False)

    refused = ModelError("no", kind=kind, retryable=False)
    play(lambda: Halting([refused]), go, {"budget": {"tokens": 1000}})


def test_text_before_an_overflow_is_void_when_the_request_is_sent_again() -> None:
    overflow = ModelError("full", kind="context_overflow")
    summary: list[Any] = [CallStart(0, "s", "write_summary"), CallChunk(0, '{"text": "s"}'), CallEnd(0)]

    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        await pod.run("1")
        with pod.subscribe(StreamRestart) as events:
            assert (await pod.run("2")).text == "whole"
            assert len(events.drain()) == 1
        assert not [i for i in await pod.history() if isinstance(i, AssistantItem) and i.cut]

    answers = [whole("one"), [TextChunk("half"), overflow], [*summary, End("tool_use")], whole("ok"), whole()]
    play(lambda: Halting(*answers), go)


@st.composite
def attempts(draw: st.DrawFn) -> list[Any]:
    """An answer that comes whole, breaks or waits for its cancel, of which something was reported, or shown."""
    blocks: list[Any] = []
    if draw(st.booleans()):
        blocks.append(TextChunk("x" * draw(st.integers(1, 40))))
    if draw(st.booleans()):
        blocks.append(UsageReport(Usage(draw(st.integers(1, 50)), draw(st.integers(0, 50)))))
    kinds = ["server", "timeout", "connection", "rate_limit", "protocol"]
    error = ModelError("no", kind=draw(st.sampled_from(kinds)), retryable=False)  # type: ignore[arg-type]
    return [*blocks, draw(st.sampled_from([End("end_turn"), None, error]))]


@settings(max_examples=times(15), deadline=None)
@given(st.lists(attempts(), min_size=1, max_size=6))
def test_whatever_becomes_of_its_requests_runs_pod_totals_and_budget_agree(plan: list[list[Any]]) -> None:
    async def go(system: PodSystem, pod: Pod, client: Halting) -> None:
        with pod.subscribe(RunEnd) as events:
            for blocks in plan:
                client.halted.clear()
                run = pod.run("go")
                if blocks[-1] is None:
                    await client.halted.wait()
                    await pod.cancel()
                with contextlib.suppress(RunFailed):
                    await run
            used = [event.usage for event in events.drain()]  # type: ignore[attr-defined]
        described = (await pod.describe()).usage
        asked = [each for each in used if each != Usage()]
        total = functools.reduce(operator.add, asked) if asked else Usage()
        assert (described.input_tokens, described.output_tokens) == (total.input_tokens, total.output_tokens)
        totals = system.totals.usage
        assert (totals.input_tokens, totals.output_tokens) == (total.input_tokens, total.output_tokens)
        budget = system.budget
        assert budget is not None
        assert (budget.reserved_tokens, budget.reserved_cost_usd) == (0, 0.0)
        assert budget.tokens >= (total.total_tokens or 0)

    play(lambda: Halting(*plan), go, {"budget": {"tokens": 10**6}})
