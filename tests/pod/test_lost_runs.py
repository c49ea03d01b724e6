"""A run is lost when the store refuses what another of its pod recorded: what it held is given back, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pod_stage import PLAIN, GatedClient, texts
from test_between import GatedStore
from test_hung_store import RefusingStore

from actors.llm.base import Block, Request, TextChunk
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import ModelError, RunFailed, StoreError
from protocol.events import Alert, TurnStart
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.results import RunResult


async def record(pod: Pod) -> None:
    """Have the pod record something that is none of its run's, as a memory job does."""
    journal = pod.ref.actor_inbox.actor.journal  # type: ignore[attr-defined]
    journal.log.record(Alert, text="of a memory job")
    await journal.commit()


async def refuse(pod: Pod, store: GatedStore) -> None:
    """The store refuses what another than the run recorded."""
    store.shut = True
    commit = asyncio.ensure_future(record(pod))
    await store.arrival()
    store.shut = False
    store.end(StoreError("full"))
    with pytest.raises(StoreError):
        await commit


class Stuck:
    """A client that goes on until it is let go, however often it is cancelled."""

    model = "stuck"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.after = ScriptedClient([say("next")])

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if self.asked.is_set():
            async for block in self.after.stream(request):
                yield block
            return
        self.asked.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue
        self.ended.set()
        yield TextChunk("late", 0)


@pytest.mark.parametrize("how", ["lost", "cancelled", "stopped"])
async def test_what_a_client_that_ignores_its_cancel_held_of_the_budget_is_given_back_once(how: str) -> None:
    store, client = GatedStore(), Stuck()
    async with asyncio.timeout(60), PodSystem(store, grace=0.01, budget={"tokens": 100_000}) as system:
        wanted = PodManifest.of(name="p", tokens=100_000, max_tokens=1000)
        pod = await system.spawn(wanted, client=client)
        run = pod.run("go")
        await client.asked.wait()
        held = budget_of(system)
        assert held.reserved_tokens > 1000
        if how == "lost":
            await refuse(pod, store)
            with pytest.raises(RunFailed, match="full"):
                await run
        else:
            await (pod.cancel() if how == "cancelled" else pod.stop())
            assert (await run).outcome == "cancelled"
        if how != "stopped":  # behind what is not waited for any longer
            assert (await pod.run("next")).text == "next"
        given_back = budget_of(system)
        assert given_back.reserved_tokens == 0
        assert given_back.tokens >= held.reserved_tokens, "it may have been at work all the time"
        client.release.set()
        await client.ended.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert budget_of(system) == given_back


def budget_of(system: PodSystem) -> Any:
    budget = system.budget
    assert budget is not None
    return budget


async def test_words_of_a_notify_whose_run_is_lost_are_reported_as_logged_where_they_are() -> None:
    store, client = RefusingStore(), GatedClient([say("x")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=client)
        store.shut = True
        notified = pod.notify("hello")
        await store.arrival()
        store.shut = False
        store.end()  # the words are durable, and before their run goes on what comes behind is refused
        store.refuses = True
        with pytest.raises(StoreError):
            await record(pod)
        store.refuses = False
        assert await notified is None
        assert texts(await pod.history()) == ["hello"]
        client.gate.release()
        assert (await pod.run("again")).text == "x"
        assert texts(await pod.history()) == ["hello", "again", "x"]


async def test_a_run_that_is_lost_once_its_input_is_durable_begins_no_turn() -> None:
    store, client = RefusingStore(), GatedClient([say("x")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=client)
        with pod.subscribe([TurnStart]) as events:
            store.shut = True
            run = pod.run("go")
            await store.arrival()
            store.shut = False
            store.end()
            store.refuses = True
            with pytest.raises(StoreError):
                await record(pod)
            store.refuses = False
            with pytest.raises(RunFailed):
                await run
            client.gate.release()
            again = await pod.run("again")
            assert [event.run_id for event in events.drain()] == [again.run_id]


async def test_what_a_request_that_was_not_accepted_held_of_the_budget_is_given_back() -> None:
    client = ScriptedClient([ModelError("no such key", kind="auth", retryable=False)])
    async with asyncio.timeout(60), PodSystem(budget={"tokens": 100_000}) as system:
        pod = await system.spawn(PodManifest.of(name="p", max_tokens=1000), client=client)
        with pytest.raises(RunFailed, match="no such key"):
            await pod.run("go")
        assert (budget_of(system).reserved_tokens, budget_of(system).tokens) == (0, 0)


async def test_words_of_a_notify_that_the_store_refuses_are_reported_as_refused() -> None:
    store, client = RefusingStore(), GatedClient([say("x")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=client)
        store.refuses = True
        with pytest.raises(StoreError):
            await pod.notify("hello")
        store.refuses = False
        assert await pod.history() == []
        client.gate.release()
        assert (await pod.run("again")).text == "x"


async def test_words_of_a_notify_whose_run_is_lost_before_they_are_recorded_are_reported_as_refused() -> None:
    store, client = RefusingStore(), GatedClient([say("x" * 4000)])
    wanted = PodManifest.of(name="p", compact_threshold=800, compact_retained_tokens=100)
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(wanted, client=client)
        client.gate.release()
        await pod.run("tell")
        before = await pod.history()
        store.refuses = True  # the compaction that its run would begin with
        with pytest.raises(StoreError):
            await pod.notify("hello")
        store.refuses = False
        assert await pod.history() == before


async def pod_paused_at_its_second_request(
    system: PodSystem, client: GatedClient, *, restored: bool
) -> tuple[Pod, RunResult]:
    pod = await system.spawn(PLAIN, client=client, session="s")
    run = pod.run("go")
    client.gate.release()
    for _ in range(2):
        await client.asked.acquire()
    await pod.pause()
    paused = await run
    if restored:
        await pod.stop()
        pod = await system.spawn(PLAIN, client=client, session="s")
    return pod, paused


@pytest.mark.parametrize("refused", [1, 2])
@pytest.mark.parametrize("restored", [False, True])
async def test_a_paused_run_that_was_to_be_closed_by_runs_that_the_store_refuses_is_paused_still(
    restored: bool, refused: int
) -> None:
    store, client = RefusingStore(), GatedClient([call("no_tool", {}), say("x")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, paused = await pod_paused_at_its_second_request(system, client, restored=restored)
        store.refuses = True
        for run in [pod.run("something else") for _ in range(refused)]:
            with pytest.raises(RunFailed, match="full"):
                await run
        store.refuses = False
        assert (await pod.describe()).state is PodState.PAUSED
        client.gate.release()
        ended = await pod.resume()
        steps = 2 if restored else 3  # the request that the pause cut off is in no record
        assert (ended.text, ended.run_id, ended.steps) == ("x", paused.run_id, steps)


@pytest.mark.parametrize("restored", [False, True])
async def test_a_paused_run_whose_resume_the_store_refuses_is_paused_still(restored: bool) -> None:
    store, client = RefusingStore(), GatedClient([call("no_tool", {}), say("x")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, paused = await pod_paused_at_its_second_request(system, client, restored=restored)
        store.refuses = True
        with pytest.raises(RunFailed, match="full"):
            await pod.resume()
        store.refuses = False
        assert (await pod.describe()).state is PodState.PAUSED
        client.gate.release()
        ended = await pod.resume()
        assert (ended.text, ended.outcome, ended.run_id) == ("x", "finished", paused.run_id)
        assert (await pod.describe()).state is PodState.IDLE
