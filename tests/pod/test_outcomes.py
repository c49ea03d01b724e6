"""A run's end says which limit, which budget or which failures ended it, and in numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.llm.base import Block, End, Request, TextChunk, UsageReport
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.accounts.budget import Budget, Exceeded, Reservation
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import CompactionFailed, ModelError, RunFailed
from protocol.events import BudgetExceeded, RunEnd
from protocol.items import UserItem
from protocol.manifest import BudgetSection, PodManifest
from protocol.usage import Usage


@tool
async def nothing() -> str:
    """Do nothing."""
    return ""


def ended(client: Any, text: str = "go", **settings: Any) -> tuple[RunEnd, list[BudgetExceeded]]:
    """How a run ends, and which budgets it was reported to exceed."""

    async def main() -> tuple[RunEnd, list[BudgetExceeded]]:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(**settings), client=client, tools=[nothing])
            with pod.subscribe([RunEnd, BudgetExceeded]) as events:
                await pod.run(text)
                seen = events.drain()
            return seen[-1], seen[:-1]  # type: ignore[return-value]

    return asyncio.run(main())


def test_a_run_that_reached_max_steps_says_so() -> None:
    end, _ = ended(ScriptedClient([call("nothing"), call("nothing")]), max_steps=2)
    assert end.outcome == "limit_reached"
    assert end.error is not None
    assert end.error.details == {"limit": "max_steps", "value": 2}
    assert "max_steps" in end.error


@pytest.mark.parametrize("most", [7, None])
def test_a_run_whose_answer_was_cut_by_max_tokens_says_so(most: int | None) -> None:
    end, _ = ended(ScriptedClient([say("half", stop_reason="max_tokens")]), max_tokens=most)
    assert end.outcome == "limit_reached"
    assert end.error is not None
    assert end.error.details == {"limit": "max_tokens", "value": most}
    assert "max_tokens" in end.error


def test_a_run_that_finished_names_no_limit() -> None:
    assert ended(ScriptedClient([say("whole")]))[0].error is None


def test_a_run_out_of_tokens_says_what_was_used_apart_from_what_is_reserved() -> None:
    end, (exceeded,) = ended(ScriptedClient([]), tokens=800, max_tokens=1000, text="x" * 4)  # type: ignore[misc]
    assert (exceeded.used, exceeded.limit) == (0, 800)
    assert exceeded.reserved > 1000
    assert end.error is not None
    assert end.error.details["budget"] == "tokens"
    assert end.error.details["used"] == 0
    assert "0 used" in end.error


def test_a_budget_of_millions_is_reported_with_all_its_digits() -> None:
    exceeded = Exceeded("tokens", 2_000_000, 1_998_123.0, 8_192)
    words = "budget of 2,000,000 tokens: 1,998,123 used, 8,192 reserved for the next call"
    assert words in str(exceeded)
    assert "budget of 0.25 US dollars: 0.125 used" in str(Exceeded("cost_usd", 0.25, 0.125))


def test_a_budget_says_the_next_call_and_those_under_way_apart_from_what_was_spent() -> None:
    parent = Budget(BudgetSection(tokens=100))
    child = Budget(BudgetSection(), parent)
    child.settle(child.reserve(50, 0.0), Usage(20, 5), None)
    child.reserve(40, 0.0)
    assert child.exceeded(50) == Exceeded("tokens", 100, 25, 90, "system")
    use = parent.use()
    assert (use.tokens, use.reserved_tokens) == (65, 40)


def test_a_run_out_of_time_names_the_seconds() -> None:
    class Slow:
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            await asyncio.Event().wait()
            yield End("end_turn")

    end, (exceeded,) = ended(Slow(), seconds=0.02)  # type: ignore[misc]
    assert (end.outcome, exceeded.budget) == ("budget", "seconds")
    assert end.error is not None
    assert end.error.details["budget"] == "seconds"


async def test_a_failed_emergency_compaction_says_the_overflow_first() -> None:
    overflow = ModelError(
        "h:1 answered 400: too long", kind="context_overflow", where="h:1", prompt_tokens=9, context_window=5
    )

    client = ScriptedClient([overflow, ModelError("no such key", kind="auth")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        await pod.push_item(UserItem.of("x" * 400))
        with pod.subscribe(RunEnd) as events, pytest.raises(RunFailed) as caught:
            await pod.run("go")
        (end,) = events.drain()
    cause = caught.value.cause
    assert isinstance(cause, ModelError)
    assert (cause.kind, cause.where) == ("context_overflow", "h:1")
    assert (cause.prompt_tokens, cause.context_window) == (9, 5)
    assert cause.message.startswith("h:1 answered 400: too long; and ")
    assert isinstance(cause.__context__, CompactionFailed)
    assert cause.__context__.message in cause.message
    assert end.error.details["where"] == "h:1"  # type: ignore[attr-defined]


# -- answers that nothing bounds -----------------------------------------------------------------


class Long:
    """Gives answers of 4,000 tokens, all at the same time."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.calls += 1
        await self.go.wait()
        yield TextChunk("ok")
        yield UsageReport(Usage(20, 4000))
        yield End("end_turn")


async def test_fifty_prompts_at_once_do_not_spend_many_times_the_budget() -> None:
    client = Long()
    async with PodSystem(budget={"tokens": 10_000}) as system:
        pods = [await system.spawn(PodManifest.of(), client=client) for _ in range(50)]
        runs = [pod.run("hi") for pod in pods]
        refused = [await run for run in runs[2:]]  # these wait for nothing
        client.go.set()
        outcomes = [result.outcome for result in [*refused, await runs[0], await runs[1]]]
        assert outcomes.count("finished") == client.calls == 2
        assert system.budget is not None
        assert system.budget.tokens == 2 * 4020


def test_a_call_alone_is_not_refused_for_an_answer_that_nobody_bounded() -> None:
    budget = Budget(BudgetSection(tokens=100))
    long = Reservation(4096, 0.0)
    assert budget.exceeded(50, perhaps=long) is None
    budget.reserve(50 + long.tokens, 0.0)
    assert budget.exceeded(1, perhaps=long) is not None


def test_an_answer_that_nothing_bounds_is_taken_to_need_what_answers_took_of_late() -> None:
    parent = Budget(BudgetSection())
    one, other = Budget(BudgetSection(), parent), Budget(BudgetSection(), parent)
    assert other.answer_tokens == 4096
    one.settle(one.reserve(10, 0.0), Usage(5, 300), None)
    assert one.answer_tokens == other.answer_tokens == 300
    one.settle(one.reserve(10, 0.0), Usage(5, 20, incomplete=True), None)
    assert other.answer_tokens == 300
    one.settle(one.reserve(10, 0.0), Usage(5, 20), None)
    assert 20 < other.answer_tokens < 300
