"""Events of sub-agents: who subscribes to a pod and its children gets them all in order, here and elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from channel_kit import REACHES, Reached
from delegation_kit import Cast, lead, of, spawn, until
from store_kit import AwaitedStore

from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from protocol.errors import PodStopped
from protocol.events import (
    ApprovalRequested,
    ChildEnded,
    ChildStarted,
    Event,
    Lagged,
    PodStarted,
    RunEnd,
    RunStart,
    TextDelta,
)

pytestmark = pytest.mark.parametrize("reach", REACHES)


def tree(*, gated: bool = False) -> Cast:
    """A lead, its reader, and that one's helper; the last says its words behind the gate."""
    wait = lambda name: call("read_pod_output", {"name": name, "wait": 20})  # noqa: E731
    return Cast(
        lead=[spawn(), wait("reader"), say("done"), say("I know")],
        reader=[spawn("helper"), wait("helper"), say("read"), say("I know")],
        helper=[*([...] if gated else []), say("helped")],
    )


@asynccontextmanager
async def playing(reach: Reached, cast: Cast, store: Any = "memory:") -> AsyncIterator[tuple[PodSystem, Pod]]:
    async with asyncio.timeout(60), PodSystem(store=store) as system:
        pod = await system.spawn(lead(), client=cast)
        async with reach(pod) as reached:
            yield system, reached


async def both_known(events: Subscription) -> None:
    """Wait until the lead has ended the run in which it gets to know of its reader's end."""
    await until(events, of(ChildEnded, "lead"))
    await until(events, of(RunEnd, "lead"))


def durable(events: list[Event]) -> list[tuple[str, int, str]]:
    return [(each.pod, each.seq, type(each).__name__) for each in events if each.durable]


def check_order(events: list[Event]) -> None:
    """Each log in its own order, and a sub-agent's between its beginning and its end in its parent's."""
    numbers: dict[str, list[int]] = {}
    for each in events:
        if each.durable:
            numbers.setdefault(each.pod, []).append(each.seq)
    for of_one in numbers.values():
        assert of_one == sorted(set(of_one))
    for index, each in enumerate(events):
        if isinstance(each, ChildStarted):
            assert each.child not in {other.pod for other in events[:index]}
        if isinstance(each, ChildEnded):
            assert each.child not in {other.pod for other in events[index:]}


async def test_events_of_sub_agents_at_any_depth_come_in_order_and_a_replay_has_the_same(
    reach: Reached,
) -> None:
    async with playing(reach, tree()) as (_, pod):
        with pod.subscribe(children=True) as events, pod.subscribe((ChildEnded, RunEnd)) as own:
            await pod.run("go")
            await both_known(own)
            live = await come(events, lambda e: isinstance(e, RunEnd) and e.pod == "lead", times=2)
        assert {each.pod for each in live} == {"lead", "lead.reader", "lead.reader.helper"}
        assert any(isinstance(each, TextDelta) and each.pod == "lead.reader.helper" for each in live)
        assert {e.pod: e.parent for e in live if isinstance(e, PodStarted)} == {
            "lead.reader": "lead",
            "lead.reader.helper": "lead.reader",
        }
        check_order(live)
        with pod.subscribe(since=0, children=True) as past:
            replayed = await come(past, lambda e: isinstance(e, RunEnd) and e.pod == "lead", times=2)
        check_order(replayed)
        began = durable(live)[0]
        again = durable(replayed)
        assert sorted(again[again.index(began) :]) == sorted(durable(live))


async def come(events: Subscription, last: Any, times: int) -> list[Event]:
    """What comes, up to so many events that are the last ones."""
    found: list[Event] = []
    async with asyncio.timeout(30):
        async for event in events:
            found.append(event)
            times -= bool(last(event))
            if not times:
                break
    return found


@pytest.mark.parametrize("store", [MemoryStore, AwaitedStore])
async def test_who_comes_in_the_middle_misses_nothing_and_gets_nothing_twice(
    reach: Reached, store: type[SessionStore]
) -> None:
    cast = tree(gated=True)
    async with playing(reach, cast, store()) as (system, pod):
        with pod.subscribe(RunStart, children=True) as starts, pod.subscribe((ChildEnded, RunEnd)) as own:
            run = pod.run("go")
            await until(starts, of(RunStart, "lead.reader.helper"))
            with pod.subscribe(since=0, children=True) as late:
                cast.go.set()
                await run
                await both_known(own)
                found = await come(late, lambda e: isinstance(e, RunEnd) and e.pod == "lead", times=2)
        check_order(found)
        assert {each.pod for each in found} == {"lead", "lead.reader", "lead.reader.helper"}
        for name in ("lead", "lead.reader", "lead.reader.helper"):
            numbers = [each.seq for each in found if each.durable and each.pod == name]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
        with system.subscribe("lead", since=0, children=True) as past:
            everything = await come(past, lambda e: isinstance(e, RunEnd) and e.pod == "lead", times=2)
        assert sorted(durable(found)) == sorted(durable(everything))


async def test_since_leaves_out_sub_agents_that_had_ended_by_then_and_takes_numbers_by_name(
    reach: Reached,
) -> None:
    cast = tree()
    cast.parts["lead"] += [spawn("writer"), say("again"), say("I know")]
    cast.parts["writer"] = [say("written")]
    async with playing(reach, cast) as (_, pod):
        with pod.subscribe((ChildEnded, RunEnd)) as own:
            await pod.run("go")
            ended = await until(own, of(ChildEnded, "lead"))
            await until(own, of(RunEnd, "lead"))
            await pod.run("once more")
            await until(own, of(ChildEnded, "lead"))
            await until(own, of(RunEnd, "lead"))
        last = lambda e: isinstance(e, ChildEnded) and e.name == "writer"  # noqa: E731
        with pod.subscribe(since=ended.seq, children=True) as past:
            assert {each.pod for each in await come(past, last, 1)} == {"lead", "lead.writer"}
        with pod.subscribe(since=ended.seq - 1, children=True) as past:
            named = {each.pod for each in await come(past, last, 1)}
            assert named == {"lead", "lead.reader", "lead.reader.helper", "lead.writer"}
        after = {"lead": 0, "lead.reader": 3, "lead.reader.helper": 1_000}
        with pod.subscribe(since=after, children=True) as past:
            found = await come(past, last, 1)
        assert min(each.seq for each in found if each.pod == "lead.reader") == 4
        assert "lead.reader.helper" not in {each.pod for each in found}


async def test_a_question_of_a_sub_agent_comes_to_its_parents_handle_and_is_answered_there(
    reach: Reached,
) -> None:
    cast = Cast(
        lead=[spawn(), call("read_pod_output", {"name": "reader", "wait": 20}), say("done"), say("I know")],
        reader=[call("list_pods", {}), say("read")],
    )
    manifest = lead(approval=[{"tool": "list_pods", "policy": "ask"}])
    async with asyncio.timeout(60), PodSystem() as system:
        pod = await system.spawn(manifest, client=cast)
        async with reach(pod) as reached:
            with reached.subscribe((ApprovalRequested, RunEnd), children=True) as events:
                run = reached.run("go")
                asked = await until(events, of(ApprovalRequested))
                assert asked.pod == "lead.reader"
                await reached.approve(asked.approval_id)
                assert (await until(events, of(RunEnd, "lead.reader"))).outcome == "finished"
                await run


async def test_who_is_too_slow_learns_where_to_go_on_in_each_log(reach: Reached) -> None:
    async with playing(reach, tree()) as (system, pod):
        events = system._bus.subscribe("lead", size=4, children=True)
        with pod.subscribe((ChildEnded, RunEnd)) as own:
            await pod.run("go")
            await both_known(own)
        lagged = events.drain()[0]
        assert isinstance(lagged, Lagged)
        assert isinstance(lagged.since, dict)
        assert set(lagged.since) == {"lead", "lead.reader", "lead.reader.helper"}
        with pod.subscribe(since=lagged.since, children=True) as past:
            again = await come(past, lambda e: isinstance(e, RunEnd) and e.pod == "lead", times=2)
        check_order(again)


async def test_who_waits_for_sub_agents_waits_for_the_run_that_their_end_starts_too(reach: Reached) -> None:
    cast = Cast(lead=[spawn(), say("working on it"), say("it is 42")], reader=[..., say("forty-two")])
    async with playing(reach, cast) as (_, pod):
        assert await pod.wait_for_sub_agents()
        assert (await pod.run("go")).text == "working on it"
        assert (await pod.describe()).sub_agents == ("lead.reader",)
        assert not await pod.wait_for_sub_agents(timeout=0)
        waiting = pod.wait_for_sub_agents()
        cast.go.set()
        assert await waiting
        assert (await pod.history())[-1].text == "it is 42"
        assert (await pod.describe()).sub_agents == ()


async def test_nobody_waits_for_sub_agents_of_a_pod_that_is_paused_or_stops(reach: Reached) -> None:
    cast = Cast(lead=[spawn(), ..., say("no more")], reader=[..., say("no more")])
    async with playing(reach, cast) as (_, pod):
        with pod.subscribe(RunStart, children=True) as starts:
            run = pod.run("go")
            await until(starts, of(RunStart, "lead.reader"))
        waiting = pod.wait_for_sub_agents()
        await pod.pause()
        assert (await run).outcome == "paused"
        assert not await waiting
        assert not await pod.wait_for_sub_agents()
        resumed = pod.resume()
        waiting = pod.wait_for_sub_agents()
        await pod.stop()
        with pytest.raises(PodStopped):
            await waiting
        assert (await resumed).outcome == "cancelled"
