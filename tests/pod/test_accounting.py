"""What calls cost, and budgets that hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pod_stage import GatedClient, Stage, on_stage
from pykka.messages import ProxyCall

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.accounts.budget import Budget
from actors.sessions.answers import settled
from actors.sessions.memory.store import MemoryStore
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import SessionOpened
from protocol.errors import BudgetError, ManifestError, RunFailed
from protocol.events import AssistantMessage, BudgetExceeded, RunEnd, UsageUpdate
from protocol.items import AssistantItem
from protocol.manifest import BudgetSection, PodManifest
from protocol.results import BudgetUse
from protocol.usage import Usage
from protocol.wire import decode_entry

PRICES = """
[[price]]
models = ["openai/mine"]
input = 2.0
output = 10.0
"""


@tool
async def nothing() -> str:
    """Does nothing."""
    return "done"


def mine(tmp_path: Path, **settings: object) -> tuple[PodManifest, Path]:
    table = tmp_path / "prices.toml"
    table.write_text(PRICES)
    return PodManifest.of(name="p", model="openai/mine", **settings), table


async def test_a_calls_cost_is_in_its_event_in_the_pods_sum_and_in_the_systems(tmp_path: Path) -> None:
    manifest, table = mine(tmp_path)

    client = ScriptedClient([say("a", input_tokens=1000, output_tokens=100)] * 2)
    async with PodSystem(prices=table) as system:
        pod = await system.spawn(manifest, client=client)
        with pod.subscribe([AssistantMessage, UsageUpdate]) as events:
            await pod.run("1")
            published = [event.cost for event in events.drain()]  # type: ignore[attr-defined]
        await pod.run("2")
        assert published == [pytest.approx(0.003)] * 2
        assert (await pod.describe()).cost == pytest.approx(0.006)
        assert system.totals.cost == pytest.approx(0.006)
        assert system.totals.usage == Usage(2000, 200)


async def test_an_unknown_models_cost_is_none_and_a_local_ones_is_nothing() -> None:
    async with PodSystem() as system:
        unknown = await system.spawn(
            PodManifest.of(), client=ScriptedClient([say("a", input_tokens=1, output_tokens=1)])
        )
        await unknown.run("hi")
        assert (await unknown.describe()).cost is None
        local = await system.spawn(PodManifest.of(model="offline"))
        await local.run("hello")
        assert (await local.describe()).cost == 0.0


async def test_a_cost_limit_on_a_model_without_a_price_is_refused_at_spawn() -> None:
    async with PodSystem() as system:
        with pytest.raises(BudgetError, match=r"the price .* is unknown"):
            await system.spawn(PodManifest.of(cost_usd=1.0), client=ScriptedClient([]))


async def test_a_budget_in_dollars_ends_the_run_before_the_call_that_would_break_it(tmp_path: Path) -> None:
    manifest, table = mine(tmp_path, cost_usd=0.004, max_tokens=100)

    client = ScriptedClient([say("a", input_tokens=1000, output_tokens=100)])
    async with PodSystem(prices=table) as system:
        pod = await system.spawn(manifest, client=client)
        assert (await pod.run("1")).outcome == "finished"
        with pod.subscribe(BudgetExceeded) as events:
            assert (await pod.run("2")).outcome == "budget"
            (exceeded,) = events.drain()
        assert isinstance(exceeded, BudgetExceeded)
        assert exceeded.budget == "cost_usd"


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


# -- what all pods of a system share -------------------------------------------------------------


async def test_all_pods_of_a_system_draw_on_its_budget() -> None:
    async with PodSystem(budget={"tokens": 100}) as system:
        first = await system.spawn(
            PodManifest.of(tokens=1000),
            client=ScriptedClient([say("a", input_tokens=80, output_tokens=15)]),
        )
        second = await system.spawn(PodManifest.of(max_tokens=10), client=ScriptedClient([]))
        assert (await first.run("1")).outcome == "finished"
        with system.subscribe(kinds=BudgetExceeded) as events:
            assert (await second.run("2")).outcome == "budget"
            [published] = events.drain()
        assert isinstance(published, BudgetExceeded)
        assert (published.whose, published.budget, published.limit) == ("system", "tokens", 100)
        used = system.budget
        assert used is not None
        assert used == BudgetUse(BudgetSection(tokens=100), 95, 0.0, used.seconds, incomplete=False)
        assert used.seconds == sum([(await pod.describe()).seconds for pod in (first, second)])


async def test_what_a_pod_used_in_an_earlier_system_is_not_taken_from_this_ones_budget() -> None:
    store = MemoryStore()
    async with PodSystem(store) as system:
        assert system.budget is None
        client = ScriptedClient([say("a", input_tokens=90, output_tokens=9)])
        session = (await (await system.spawn(PodManifest.of(), client=client)).run("1")).session_id
    async with PodSystem(store, budget=BudgetSection(tokens=180)) as system:
        client = ScriptedClient([say("b", input_tokens=5, output_tokens=5)])
        pod = await system.spawn(PodManifest.of(), client=client, resume=session)
        assert (await pod.run("2")).outcome == "finished"
        assert system.budget is not None
        assert system.budget.tokens == 10


async def test_a_client_that_reports_less_than_nothing_gives_no_budget_anything_back() -> None:
    async with PodSystem(budget={"tokens": 1000}) as system:
        client = ScriptedClient([say("hi", input_tokens=-500, output_tokens=-5)])
        pod = await system.spawn(PodManifest.of(max_tokens=10), client=client)
        result = await pod.run("hi")
        assert (result.usage.input_tokens, result.usage.output_tokens) == (None, None)
        assert system.budget is not None
        assert system.budget.tokens > 0


async def test_a_run_ends_when_the_systems_seconds_are_over() -> None:
    async with PodSystem(budget={"seconds": 0.05}) as system:
        pods = [await system.spawn(PodManifest.of(seconds=1000), client=GatedClient([])) for _ in range(2)]
        with system.subscribe(kinds=BudgetExceeded) as events:
            assert [(await pod.run("hang")).outcome for pod in pods] == ["budget"] * 2
            published = [(event.whose, event.budget, event.limit) for event in events.drain()]  # type: ignore[attr-defined]
        assert published == [("system", "seconds", 0.05)] * 2


async def test_what_a_run_took_that_a_defect_ended_counts_in_the_systems_budget() -> None:
    client = GatedClient([say("a", input_tokens=1, output_tokens=1)])
    async with PodSystem(budget={"tokens": 1000, "seconds": 1000}) as system:
        pod = await system.spawn(PodManifest.of(max_tokens=10), client=client)
        run = pod.run("1")
        await client.asked.acquire()
        assert system.budget is not None
        held = system.budget.tokens
        pod.ref.tell(ProxyCall(attr_path=["nothing"], args=(), kwargs={}))  # a defect
        with pytest.raises(RunFailed):
            await run
        used = system.budget
        assert (used.tokens, used.incomplete) == (held, True)
        assert used.seconds > 0


async def test_a_systems_budget_in_dollars_takes_no_pod_whose_cost_nobody_knows() -> None:
    async with PodSystem(budget={"cost_usd": 1.0}) as system:
        with pytest.raises(BudgetError, match="the system has a budget in cost_usd"):
            await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        local = await system.spawn(PodManifest.of(model="offline"))
        assert (await local.run("hello")).outcome == "finished"


@pytest.mark.parametrize(
    "budget", [{"token": 1}, {"tokens": -1}, {"seconds": "long"}, BudgetSection(tokens=-1)]
)
def test_a_budget_that_is_none_is_refused_when_the_system_is_made(budget: Any) -> None:
    with pytest.raises(ManifestError, match=r"budget\.(tokens?|seconds)"):
        PodSystem(budget=budget)


# -- time ----------------------------------------------------------------------------------------


async def test_a_budget_of_seconds_that_is_used_up_stays_so_in_the_next_life() -> None:
    manifest, client = PodManifest.of(seconds=0.05), GatedClient([])
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        session = (await pod.run("hang")).session_id
        await pod.stop()
        for _ in range(2):
            again = await system.spawn(manifest, client=ScriptedClient([]), resume=session)
            assert (await again.describe()).seconds >= 0.05
            with again.subscribe(BudgetExceeded) as events:
                assert (await again.run("go on")).outcome == "budget"
                assert [event.budget for event in events.drain()] == ["seconds"]  # type: ignore[attr-defined]
            await again.stop()


async def test_each_run_says_its_seconds_and_the_pod_their_sum_in_this_life_and_the_next() -> None:
    summary = [call("write_summary", {"text": "s"}), say("done")]
    replies = [say("a"), call("nothing", {}), say("b"), *summary]
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient(replies), tools=[nothing])
        with pod.subscribe(RunEnd) as events:
            await pod.run("1")
            await pod.run("2")
            published = [event.seconds for event in events.drain()]  # type: ignore[attr-defined]
        assert min(published) > 0
        assert (await pod.describe()).seconds == sum(published)
        session = await pod.compact()
        await pod.stop()
        again = await system.spawn(PodManifest.of(), client=ScriptedClient([say("c")]), resume=session)
        assert (await again.describe()).seconds == sum(published)
        with again.subscribe(RunEnd) as events:
            await again.run("3")
            published += [event.seconds for event in events.drain()]  # type: ignore[attr-defined]
        assert (await again.describe()).seconds == pytest.approx(sum(published))
        branch = await again.fork()
        forked = await system.spawn(PodManifest.of(), client=ScriptedClient([]), resume=branch)
        described = await forked.describe()
        assert (described.seconds, described.usage) == (0, Usage())  # what a fork takes over is words


def test_a_compaction_in_the_middle_of_a_run_loses_none_of_its_time() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running()
        stage.answer()
        await stage.client.asked.acquire()  # the summariser is asked, in the middle of the run
        before = (await stage.pod.describe()).seconds
        for _ in range(3):
            stage.answer()
        result = await run
        entries = await settled(stage.system.store.read(result.session_id))
        opened = decode_entry(entries[0].body)
        assert isinstance(opened, SessionOpened)
        assert (opened.seconds, opened.run_id) == (0, result.run_id)
        assert opened.run_seconds > before > 0
        cut_off = [entry for entry in entries if b'"RunEnd"' not in entry.body]
        assert opened.run_seconds <= replay(cut_off).seconds
        assert replay(entries).seconds == (await stage.pod.describe()).seconds > opened.run_seconds

    manifest = PodManifest.of(compact_request_threshold=1, compact_retained_tokens=0)
    replies = [call("nothing", {}), call("write_summary", {"text": "s"}), say("done"), say("b")]
    on_stage(replies, play, manifest, tools=[nothing])


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
async def test_a_resumed_session_knows_as_much_of_its_usage_as_before(
    replies: list[Reply], used: Usage
) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient(replies))
        await pod.push_item(AssistantItem.of("pushed, so it took nothing"))
        await pod.run("1")
        session = (await pod.run("2")).session_id
        assert (await pod.describe()).usage == used
        await pod.stop()
        again = await system.spawn(PodManifest.of(name="q"), client=ScriptedClient([]), resume=session)
        assert (await again.describe()).usage == used
