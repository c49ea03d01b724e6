"""What a pod does in the moments between: a commit under way, a step that ends, a store that refuses."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from pod_stage import PLAIN, GatedClient, Stage, all_of, on_each_store, on_stage, reached, texts  # noqa: F401
from pykka.messages import ProxyCall
from store_kit import Interposed

from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.messages import Proposal
from actors.pod.runs.tool_runner import NOT_RUN
from actors.sessions.answers import settled
from actors.sessions.chain import chained, verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import tool
from protocol import commands
from protocol.errors import (
    CompactionFailed,
    HeadConflict,
    InvalidInput,
    NotPaused,
    NotRunning,
    PodStopped,
    RunFailed,
    SessionCorrupt,
    StoreError,
)
from protocol.events import BudgetExceeded, Lagged, PodFailed, RunEnd, RunStart, StateChanged, UserMessage
from protocol.items import AssistantItem, SystemItem, ToolCall, ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

pytestmark = pytest.mark.usefixtures("on_each_store")


class GatedStore(Interposed, MemoryStore):
    """A store that, while its gate is shut, keeps a batch only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.shut = False
        self.waiting: list[Callable[[Exception | None], None]] = []
        self.arrived = asyncio.Event()

    def _commit(self, work: Callable[[], None]) -> Future[None] | None:
        if not self.shut:
            work()
            return None
        future: Future[None] = Future()

        def end(error: Exception | None) -> None:
            if error is None:
                work()
                future.set_result(None)
            else:
                future.set_exception(error)

        self.waiting.append(end)
        self.arrived.set()
        return future

    async def arrival(self) -> None:
        """Until a batch waits at the gate."""
        while not self.waiting:
            self.arrived.clear()
            await self.arrived.wait()

    def end(self, error: Exception | None = None) -> None:
        """Keep the oldest batch, or refuse it."""
        self.waiting.pop(0)(error)

    def open(self) -> None:
        self.shut = False
        while self.waiting:
            self.end()


def with_gated_store(
    replies: list[Any],
    play: Callable[[Stage, GatedStore], Coroutine[Any, Any, None]],
    manifest: PodManifest = PLAIN,
    **options: Any,
) -> None:
    async def main() -> None:
        store = GatedStore()
        client = GatedClient(replies)
        async with PodSystem(reached(store)) as system:
            pod = await system.spawn(manifest, client=client, **options)
            await asyncio.wait_for(play(Stage(system, pod, client), store), 60)
            store.open()

    asyncio.run(main())


def kinds(items: Sequence[Any]) -> list[type]:
    return [type(item) for item in items]


# -- nothing parts a call from its result --------------------------------------------------------


def test_a_push_while_the_model_answers_with_a_call_waits_for_its_result() -> None:
    @tool
    async def look() -> str:
        return "seen"

    async def play(stage: Stage) -> None:
        run = await stage.running()
        pushed = stage.pod.push_item(UserItem.of("pushed"))
        stage.answer()
        stage.answer()
        await asyncio.gather(run, pushed)
        assert kinds(await stage.pod.history()) == [
            UserItem,
            AssistantItem,
            ToolResult,
            UserItem,
            AssistantItem,
        ]

    on_stage([call("look"), say("b")], play, tools=[look])


def test_a_fork_while_the_model_answers_with_a_call_has_its_result_too() -> None:
    @tool
    async def look() -> str:
        return "seen"

    async def play(stage: Stage) -> None:
        run = await stage.running()
        forked = stage.pod.fork()
        stage.answer()
        session = await forked
        items = replay(await settled(stage.system.store.read(session))).items
        assert kinds(items) == [UserItem, AssistantItem, ToolResult]
        parent = (await settled(stage.system.store.info(session))).parent
        assert parent is not None
        hashes = [entry.hash.hex() for entry in await settled(stage.system.store.read(parent.session_id))]
        assert parent.at_hash in hashes
        stage.answer()
        await run

    on_stage([call("look"), say("b")], play, tools=[look])


def test_words_pushed_behind_a_call_that_was_pushed_give_it_a_result_first() -> None:
    async def play(stage: Stage) -> None:
        seed = ToolCall("1", "look")
        await stage.pod.push_item(AssistantItem((), (seed,)))
        await stage.pod.push_item(UserItem.of("well?"))
        assert kinds(await stage.pod.history()) == [AssistantItem, ToolResult, UserItem]
        await stage.pod.push_item(AssistantItem((), (seed,)))
        await stage.pod.push_item(ToolResult.of(seed, "its own"))
        assert texts(await stage.pod.history())[-1] == "its own"

    on_stage([], play)


# -- words are taken in -----------------------------------------------------------------------------


def test_words_that_a_paused_request_had_are_answered_on_resume() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        stage.pod.steer("2")
        stage.answer()
        await stage.client.asked.acquire()
        await stage.pod.pause()
        assert (await run).outcome == "paused"
        stage.answer()
        assert (await stage.pod.resume()).text == "b"

    on_stage([say("a"), say("b")], play)


def test_words_that_come_while_the_end_of_a_run_becomes_durable_are_answered() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        store.shut = True
        stage.answer()
        await store.arrival()
        steered, published = stage.pod.steer("too late"), stage.pod.notify("news")
        await stage.pod.describe()
        store.open()
        assert (await run).text == "a"
        with pytest.raises(NotRunning):
            await steered
        stage.answer()
        await published
        stage.answer()
        assert (await stage.pod.run("2")).text == "c"
        assert texts(await stage.pod.history()) == ["1", "a", "news", "b", "2", "c"]

    with_gated_store([say("a"), say("b"), say("c")], play)


def test_a_notification_to_a_paused_pod_is_kept_and_received_on_resume() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.paused("1")
        await stage.pod.notify("news")
        assert (await stage.pod.describe()).state is PodState.PAUSED
        stage.answer()
        assert (await stage.pod.resume()).run_id == (await run).run_id
        assert texts(await stage.pod.history()) == ["1", "news", "a"]

    on_stage([say("a")], play)


# -- pause, resume, cancel -----------------------------------------------------------------------


def test_runs_that_wait_behind_a_paused_one_begin_when_it_is_cancelled() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        queued = stage.pod.run("2")
        await stage.pod.pause()
        assert (await run).outcome == "paused"
        await stage.pod.cancel()
        stage.answer()
        assert (await queued).text == "a"

    on_stage([say("a")], play)


def test_a_new_run_on_a_paused_pod_comes_behind_those_that_wait() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        second = stage.pod.run("2")
        await stage.pod.pause()
        await run
        third = stage.pod.run("3")
        stage.answer()
        stage.answer()
        assert [(await second).text, (await third).text] == ["a", "b"]

    on_stage([say("a"), say("b")], play)


def test_a_resume_behind_a_run_that_closed_the_paused_one_is_refused() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        await stage.paused("1")
        store.shut = True
        pushed = stage.pod.push_item(SystemItem.of("note"))
        await store.arrival()
        run, resumed = stage.pod.run("2"), stage.pod.resume()
        await stage.pod.describe()
        store.open()
        await pushed
        stage.answer()
        assert (await run).text == "a"
        with pytest.raises(NotPaused):
            await resumed

    with_gated_store([say("a")], play)


def test_a_resume_behind_a_cancel_of_the_paused_run_is_refused() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        await stage.paused("1")
        store.shut = True
        cancelled, resumed = stage.pod.cancel(), stage.pod.resume()
        await store.arrival()
        assert not cancelled.done()
        store.open()
        await cancelled
        with pytest.raises(NotPaused):
            await resumed

    with_gated_store([], play)


def test_a_cancel_while_the_pause_becomes_durable_drops_the_run() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        store.shut = True
        paused = stage.pod.pause()
        await store.arrival()
        cancelled = stage.pod.cancel()
        await stage.pod.describe()
        store.open()
        await asyncio.gather(paused, cancelled)
        assert (await run).outcome == "paused"
        assert (await stage.pod.describe()).state is PodState.IDLE

    with_gated_store([], play)


def test_a_paused_run_whose_cancel_the_store_refused_can_still_be_resumed() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.paused("1")
        store.shut = True
        cancelled = stage.pod.cancel()
        await store.arrival()
        store.end(StoreError("full"))
        with pytest.raises(StoreError):
            await cancelled
        store.open()
        stage.answer()
        assert (await stage.pod.resume()).run_id == (await run).run_id

    with_gated_store([say("a")], play)


def test_a_cancel_of_the_run_leaves_a_fork_alone() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        stage.pod.steer("more")
        forked = stage.pod.fork()
        store.shut = True
        stage.answer()
        await store.arrival()
        store.end()
        await store.arrival()
        cancelled = stage.pod.cancel()
        await stage.pod.describe()
        store.open()
        assert store.info(await forked).parent is not None
        await cancelled
        assert (await run).outcome == "cancelled"

    with_gated_store([say("a")], play)


# -- a store that refuses ------------------------------------------------------------------------


def test_a_compaction_whose_start_the_store_refuses_fails() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        await stage.pod.push_item(UserItem.of("much"))
        store.shut = True
        compacted, tried = stage.pod.compact(), stage.pod.push_item(UserItem.of("more"))
        await store.arrival()
        store.end(StoreError("full"))
        with pytest.raises(CompactionFailed, match="full"):
            await compacted
        store.open()
        await tried

    with_gated_store([], play)


def test_a_run_that_the_store_refused_from_its_start_leaves_no_run_open() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        store.shut = True
        run = stage.pod.run("1")
        await store.arrival()
        store.end(StoreError("full"))
        with pytest.raises(RunFailed):
            await run
        store.open()
        stage.answer()
        await stage.pod.run("2")
        published = await all_of(stage.system.subscribe("p", [RunStart, RunEnd], since=0))
        assert kinds(published) == [RunStart, RunEnd]
        assert published[0].run_id == published[1].run_id

    with_gated_store([say("a")], play)


def test_a_subscriber_sees_every_change_of_state_though_the_store_refuses() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        with stage.pod.subscribe(StateChanged) as events:
            store.shut = True
            run = stage.pod.run("1")
            await store.arrival()
            store.end(StoreError("full"))
            with pytest.raises(RunFailed):
                await run
            published = [event for event in events.drain() if isinstance(event, StateChanged)]
        assert [(e.old, e.new) for e in published] == [
            (PodState.IDLE, PodState.RUNNING),
            (PodState.RUNNING, PodState.IDLE),
        ]

    with_gated_store([], play)


def test_nobody_sees_what_is_not_durable_yet() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        before = await stage.pod.describe()
        store.shut = True
        run = stage.pod.run("1")
        await store.arrival()
        assert await stage.pod.history() == []
        assert (await stage.pod.describe()).head == before.head
        store.open()
        stage.answer()
        await run

    with_gated_store([say("a")], play)


# -- stop ----------------------------------------------------------------------------------------


def test_stop_while_the_end_of_a_run_becomes_durable_gives_its_result() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        store.shut = True
        stage.answer()
        await store.arrival()
        stopped = stage.pod.stop()
        await asyncio.sleep(0)
        store.open()
        assert await stopped is True
        assert (await run).outcome == "finished"
        session = (await run).session_id
        entries = store.read(session)
        verified(session, entries)
        assert sum(b'"RunEnd"' in entry.body for entry in entries) == 1

    with_gated_store([say("a")], play)


def test_stop_answers_all_that_waits_behind_a_commit() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        store.shut = True
        first = stage.pod.push_item(UserItem.of("1"))
        await store.arrival()
        waiting = [stage.pod.push_item(UserItem.of("2")), stage.pod.fork(), stage.pod.compact()]
        waiting += [stage.pod.run("3"), stage.pod.notify("4")]
        tried = stage.pod.try_pre_run_compact()
        stopped = [stage.pod.stop(), stage.pod.stop()]
        late = stage.pod.describe()
        await asyncio.sleep(0)
        store.open()
        await first
        assert await asyncio.gather(*stopped) == [True, True]
        for lost in [*waiting, late]:
            with pytest.raises(PodStopped):
                await lost
        assert await tried is None

    with_gated_store([], play)


def test_stop_of_a_pod_whose_tool_will_not_be_cancelled_comes_after_a_grace() -> None:
    began, release = asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        began.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "done"

    async def play(stage: Stage) -> None:
        stage.answer()
        run = await stage.running()
        await began.wait()
        assert await stage.pod.stop() is True
        assert (await run).outcome == "cancelled"
        results = replay(await settled(stage.system.store.read((await run).session_id))).items[2:]
        assert ["outcome unknown" in item.text for item in results] == [True]
        release.set()

    on_stage([call("stubborn")], play, grace=0.05, tools=[stubborn])


async def test_a_stopped_pod_is_collected() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(seconds=1000), client=ScriptedClient([say("a")]))
        await pod.run("1")
        actor = weakref.ref(pod.ref.actor_inbox.actor)  # type: ignore[attr-defined]
        await pod.stop()
        del pod
        await asyncio.sleep(0)
        gc.collect()
        assert actor() is None


# -- resume of sessions --------------------------------------------------------------------------


async def test_a_session_that_cannot_be_read_is_let_go_again() -> None:
    store = MemoryStore()
    store.create("broken", "p", None, chained([b'{"type":"Nonesuch"}']), claim=False)
    async with PodSystem(store) as system:
        for _ in range(2):
            with pytest.raises(SessionCorrupt, match="entry 1"):
                await system.spawn(PodManifest.of(), client=ScriptedClient([]), resume="broken")
        assert system.pods() == []
    assert store.holder("broken") is None


async def test_a_resumed_pods_budget_counts_what_it_used_before() -> None:
    store, manifest = MemoryStore(), PodManifest.of(tokens=100)
    client = ScriptedClient([say("a", input_tokens=90, output_tokens=9)])
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=client)
        session = (await pod.run("1")).session_id
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=client, resume=session)
        assert (await pod.run("2")).outcome == "budget"


# -- what comes from outside ---------------------------------------------------------------------


def test_content_that_is_none_is_refused_and_the_pod_lives_on() -> None:
    async def play(stage: Stage) -> None:
        for refused in (
            stage.pod.run([object()]),  # type: ignore[list-item]
            stage.pod.push_item(UserItem("plain")),  # type: ignore[arg-type]
            stage.pod.push_item("plain"),  # type: ignore[arg-type]
            stage.pod.ref.ask(commands.Run("plain"), block=False),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidInput):
                await refused
        stage.answer()
        assert (await stage.pod.run(["fi", "ne"])).text == "a"
        assert texts(await stage.pod.history()) == ["fine", "a"]

    on_stage([say("a")], play)


def test_a_command_that_nobody_waits_for_and_cannot_be_done_ends_no_pod() -> None:
    async def play(stage: Stage) -> None:
        stage.pod.ref.tell(commands.Resume())
        stage.pod.ref.tell(commands.Steer(UserItem.of("x").content))
        stage.pod.ref.tell("no command")
        assert (await stage.pod.describe()).state is PodState.IDLE

    on_stage([], play)


# -- streams -------------------------------------------------------------------------------------


def test_leaving_the_stream_of_a_queued_run_cancels_that_run_and_no_other() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.running("1")
        async with stage.pod.stream("2") as stream:
            pass
        assert (await stream.result).outcome == "cancelled"
        stage.answer()
        assert (await first).outcome == "finished"
        assert texts(await stage.pod.history()) == ["1", "a"]

    on_stage([say("a")], play)


def test_a_stream_on_a_stopped_pod_raises_pod_stopped() -> None:
    async def play(stage: Stage) -> None:
        await stage.pod.stop()
        with pytest.raises(PodStopped):
            await anext(stage.pod.stream("1"))
        async with stage.pod.stream("1"):
            pass

    on_stage([], play)


def test_a_stream_that_is_left_when_its_pod_has_stopped_is_quiet() -> None:
    async def play(stage: Stage) -> None:
        async with stage.pod.stream("1"):
            await stage.client.asked.acquire()
            stopped = stage.pod.stop()
        assert await stopped is True

    on_stage([], play)


def test_a_slow_reader_of_a_stream_learns_what_it_missed() -> None:
    async def play(stage: Stage) -> None:
        stream = stage.pod.stream("1")
        stage.answer()
        await stream.result
        events = [event async for event in stream]
        assert isinstance(events[0], Lagged)
        assert isinstance(events[-1], RunEnd)
        assert events[0].missed + len(events) > 12_000

    on_stage([say("x" * 12_000, chunks=12_000)], play)


def test_a_stream_that_was_dropped_leaves_no_subscription() -> None:
    async def play(stage: Stage) -> None:
        async for event in stage.pod.stream("1"):
            if isinstance(event, UserMessage):
                break
        del event
        gc.collect()
        assert stage.system.statistics()["subscriptions"] == 0
        stage.answer()

    on_stage([say("a")], play)


# -- steps that are not wanted any more ----------------------------------------------------------


def test_a_run_that_is_cancelled_or_paused_at_once_ends() -> None:
    async def play(stage: Stage) -> None:
        run, cancelled = stage.pod.run("1"), stage.pod.cancel()
        await cancelled
        assert (await run).outcome == "cancelled"
        run, paused = stage.pod.run("2"), stage.pod.pause()
        await paused
        assert (await run).outcome == "paused"
        run, stopped = stage.pod.run("3"), stage.pod.stop()
        assert await stopped is True
        assert (await run).outcome == "cancelled"
        assert stage.client.requests == []

    on_stage([], play)


def test_a_compaction_that_begins_while_its_run_is_cancelled_asks_no_model() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        await stage.pod.push_item(UserItem.of("much " * 100))
        store.shut = True
        run = stage.pod.run("1")
        await store.arrival()
        cancelled = stage.pod.cancel()
        await stage.pod.describe()
        store.open()
        await cancelled
        assert (await run).outcome == "cancelled"
        assert stage.client.requests == []

    manifest = PodManifest.of(name="p", compact_threshold=10)
    with_gated_store([], play, manifest=manifest)


def test_a_pod_can_be_described_while_it_goes_on_in_a_fork_that_is_refused() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        await stage.pod.push_item(UserItem.of("kept"))
        store.shut = True
        pushed = stage.pod.push_item(UserItem.of("lost"))
        await store.arrival()
        store.end(HeadConflict("moved on"))
        await store.arrival()
        before = await stage.pod.describe()
        store.end(StoreError("full"))
        with pytest.raises(StoreError):
            await pushed
        after = await stage.pod.describe()
        assert (after.session_id, after.head) == (before.session_id, before.head)
        assert texts(await stage.pod.history()) == ["kept"]

    with_gated_store([], play)


def test_a_fork_goes_on_from_what_is_kept_and_not_from_what_memory_has_just_recorded() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        stage.answer()
        await run
        await stage.client.asked.acquire()  # the job has begun
        kept = (await stage.pod.describe()).head
        forked = stage.pod.fork()
        stage.pod.ref.tell(Proposal("", None, 0, 0, StoreError("lost")))
        store.shut = True
        await store.arrival()
        store.end(StoreError("full"))
        await store.arrival()
        store.open()
        parent = store.info(await forked).parent
        assert parent is not None
        stage.answer()
        assert parent.at_hash == kept

    with_gated_store([say("a"), say("b")], play, manifest=PodManifest.of(name="p", extract_threshold=1))


def test_a_call_that_was_cancelled_before_it_began_is_not_taken_for_an_earlier_one_of_its_id() -> None:
    @tool
    async def look() -> str:
        return "seen"

    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        stage.answer()
        await stage.client.asked.acquire()
        store.shut = True
        stage.answer()
        await store.arrival()
        cancelled = stage.pod.cancel()
        await stage.pod.describe()
        store.open()
        assert (await run).outcome == "cancelled"
        await cancelled
        assert texts((await stage.pod.history())[-3:]) == ["seen", "", NOT_RUN]

    with_gated_store([call("look", {}, id="1"), call("look", {}, id="1")], play, tools=[look])


# -- the clock -----------------------------------------------------------------------------------


def test_a_run_whose_end_the_store_refuses_takes_its_time_once() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        began = time.monotonic()
        run = await stage.running("1")
        await asyncio.sleep(0.05)  # the time that the model takes
        store.shut = True
        stage.answer()
        await store.arrival()
        store.end(StoreError("full"))
        store.shut = False
        with pytest.raises(RunFailed):
            await run
        budget = stage.pod.ref.actor_inbox.actor.resources.budget  # type: ignore[attr-defined]
        assert 0.05 <= budget.seconds <= time.monotonic() - began

    with_gated_store([say("a")], play, manifest=PodManifest.of(name="p", seconds=1000))


def test_an_alarm_that_rings_while_a_run_ends_leaves_its_end_alone() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        run = await stage.running("1")
        store.shut = True
        stage.answer()
        await store.arrival()
        runs = stage.pod.ref.actor_inbox.actor.runs  # type: ignore[attr-defined]
        runs._play._out_of_time(runs.run)
        store.open()
        assert (await run).outcome == "finished"
        assert stage.pod.subscribe(BudgetExceeded, since=0).drain() == []

    with_gated_store([say("a")], play, manifest=PodManifest.of(name="p", seconds=1000))


def test_a_pod_that_a_defect_ends_leaves_no_alarm_behind() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        actor = stage.pod.ref.actor_inbox.actor  # type: ignore[attr-defined]
        alarm = actor.runs._play._alarm
        stage.pod.ref.tell(ProxyCall(attr_path=["nothing"], args=(), kwargs={}))  # a defect
        with pytest.raises(RunFailed):
            await run
        assert alarm.cancelled()
        failed = stage.pod.subscribe(PodFailed, since=0)
        assert kinds([await anext(failed)]) == [PodFailed]
        with pytest.raises(PodStopped):
            await stage.pod.run("2")

    on_stage([say("a")], play, manifest=PodManifest.of(name="p", seconds=1000))
