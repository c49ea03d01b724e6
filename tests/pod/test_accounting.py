"""What calls cost, and budgets that hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.llm.scripted import Reply, ScriptedClient, say
from actors.pod.budget import Budget
from actors.system import PodSystem
from protocol.errors import BudgetError, ModelError
from protocol.events import AssistantMessage, BudgetExceeded, UsageUpdate
from protocol.items import AssistantItem
from protocol.manifest import BudgetSection, PodManifest
from protocol.usage import Usage

PRICES = """
[[price]]
models = ["openai/mine"]
input = 2.0
output = 10.0
"""


def mine(tmp_path: Path, **settings: object) -> tuple[PodManifest, Path]:
    table = tmp_path / "prices.toml"
    table.write_text(PRICES)
    return PodManifest.of(name="p", model="openai/mine", **settings), table


def test_a_calls_cost_is_in_its_event_in_the_pods_sum_and_in_the_systems(tmp_path: Path) -> None:
    manifest, table = mine(tmp_path)

    async def main() -> None:
        client = ScriptedClient([say("a", input_tokens=1000, output_tokens=100)] * 2)
        async with PodSystem(prices=table) as system:
            pod = await system.spawn(manifest, client=client)
            with pod.subscribe([AssistantMessage, UsageUpdate]) as events:
                await pod.run("1")
                told = [event.cost for event in events.drain()]  # type: ignore[attr-defined]
            await pod.run("2")
            assert told == [pytest.approx(0.003)] * 2
            assert (await pod.describe()).cost == pytest.approx(0.006)
            assert system.totals.cost == pytest.approx(0.006)
            assert system.totals.usage == Usage(2000, 200)

    asyncio.run(main())


def test_an_unknown_models_cost_is_none_and_a_local_ones_is_nothing() -> None:
    async def main() -> None:
        async with PodSystem() as system:
            unknown = await system.spawn(
                PodManifest.of(), client=ScriptedClient([say("a", input_tokens=1, output_tokens=1)])
            )
            await unknown.run("hi")
            assert (await unknown.describe()).cost is None
            local = await system.spawn(PodManifest.of(model="offline"))
            await local.run("hello")
            assert (await local.describe()).cost == 0.0

    asyncio.run(main())


def test_a_cost_limit_on_a_model_without_a_price_is_refused_at_spawn() -> None:
    async def main() -> None:
        async with PodSystem() as system:
            with pytest.raises(BudgetError, match="nobody knows"):
                await system.spawn(PodManifest.of(cost_usd=1.0), client=ScriptedClient([]))

    asyncio.run(main())


def test_a_budget_in_dollars_ends_the_run_before_the_call_that_would_break_it(tmp_path: Path) -> None:
    manifest, table = mine(tmp_path, cost_usd=0.004, max_tokens=100)

    async def main() -> None:
        client = ScriptedClient([say("a", input_tokens=1000, output_tokens=100)])
        async with PodSystem(prices=table) as system:
            pod = await system.spawn(manifest, client=client)
            assert (await pod.run("1")).outcome == "finished"
            with pod.subscribe(BudgetExceeded) as events:
                assert (await pod.run("2")).outcome == "budget"
                (exceeded,) = events.drain()
            assert isinstance(exceeded, BudgetExceeded)
            assert exceeded.budget == "cost_usd"

    asyncio.run(main())


def test_a_child_budget_draws_on_its_parents() -> None:
    parent = Budget(BudgetSection(tokens=100))
    child = Budget(BudgetSection(tokens=1000), parent)
    held = child.reserve(60, 0.0)
    assert child.exceeded(50) is not None
    child.settle(held, Usage(10, 5), None)
    assert (child.tokens, parent.tokens) == (15, 15)
    assert child.exceeded(50) is None


def test_an_unknown_usage_settles_at_the_estimate_and_is_marked() -> None:
    budget = Budget(BudgetSection(tokens=100))
    budget.settle(budget.reserve(60, 0.0), None, None)
    assert budget.tokens == 60
    assert budget.incomplete


def test_a_request_refused_for_its_length_is_given_back_and_another_failure_stays_at_the_estimate() -> None:
    budget = Budget(BudgetSection(tokens=100))
    budget.settle_failed(budget.reserve(60, 0.0), ModelError("too long", kind="context_overflow"))
    assert (budget.tokens, budget.incomplete) == (0, False)
    budget.settle_failed(budget.reserve(60, 0.0), ModelError("gone", kind="connection"))
    assert (budget.tokens, budget.incomplete) == (60, True)


@pytest.mark.parametrize(
    ("replies", "used"),
    [
        (
            [say("a", input_tokens=10, output_tokens=1), say("b", input_tokens=20, output_tokens=2)],
            Usage(30, 3),
        ),
        ([say("a", input_tokens=10, output_tokens=1), say("b")], Usage(10, 1, incomplete=True)),
        ([say("a"), say("b", input_tokens=10, output_tokens=1)], Usage(10, 1, incomplete=True)),
        ([say("a"), say("b")], Usage()),
    ],
)
def test_a_resumed_session_knows_as_much_of_its_usage_as_before(replies: list[Reply], used: Usage) -> None:
    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient(replies))
            await pod.push_item(AssistantItem.of("pushed, so it took nothing"))
            await pod.run("1")
            session = (await pod.run("2")).session_id
            assert (await pod.describe()).usage == used
            await pod.stop()
            again = await system.spawn(PodManifest.of(name="q"), client=ScriptedClient([]), resume=session)
            assert (await again.describe()).usage == used

    asyncio.run(main())
