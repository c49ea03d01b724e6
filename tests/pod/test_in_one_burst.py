"""What is said to a pod in one burst, or while something becomes durable, does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pod_stage import PLAIN, GatedClient, Stage, on_each_store, on_stage, texts  # noqa: F401
from test_between import GatedStore

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.runtime.interruptible import Interruptible
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import PodStopped, RunFailed, StoreError
from protocol.events import (
    Alert,
    CompactDone,
    CompactFailed,
    CompactStart,
    RunStart,
    ToolStart,
    TurnEnd,
    TurnStart,
)
from protocol.items import AssistantItem, ToolCall, ToolResult, UserItem
from protocol.manifest import PodManifest

pytestmark = pytest.mark.usefixtures("on_each_store")


async def paused(system: PodSystem, client: GatedClient) -> Pod:
    """A pod whose run is paused in its first request."""
    pod = await system.spawn(PLAIN, client=client)
    run = pod.run("go")
    await client.asked.acquire()
    await pod.pause()
    assert (await run).outcome == "paused"
    return pod


@pytest.mark.parametrize(("what", "outcome"), [("pause", "paused"), ("cancel", "cancelled")])
def test_an_end_right_behind_a_resume_ends_it(what: str, outcome: str) -> None:
    async def main() -> None:
        client = GatedClient([say("a")])
        async with PodSystem() as system:
            pod = await paused(system, client)
            resumed, ended = pod.resume(), getattr(pod, what)()
            await ended
            assert (await resumed).outcome == outcome

    asyncio.run(asyncio.wait_for(main(), 60))


def test_words_right_behind_a_resume_join_its_run() -> None:
    async def main() -> None:
        client = GatedClient([say("a"), say("b")])
        async with PodSystem() as system:
            pod = await paused(system, client)
            resumed, steered = pod.resume(), pod.steer("and this")
            client.gate.release()
            client.gate.release()
            await steered
            assert (await resumed).outcome == "finished"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_notify_behind_a_cancel_of_a_paused_run_starts_one() -> None:
    async def main() -> None:
        store, client = GatedStore(), GatedClient([say("a")])
        async with PodSystem(store) as system:
            pod = await paused(system, client)
            store.shut = True
            cancelled = pod.cancel()
            await store.arrival()
            notified = pod.notify("wake up")
            await pod.describe()
            store.open()
            await cancelled
            await notified
            await client.asked.acquire()
            client.gate.release()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_words_that_come_while_a_run_ends_before_a_full_queue_join_the_next_run() -> None:
    async def main() -> None:
        store, client = GatedStore(), GatedClient([say(str(n)) for n in range(33)])
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=client)
            first = pod.run("0")
            await client.asked.acquire()
            rest = [pod.run(str(n + 1)) for n in range(32)]
            await pod.describe()
            store.shut = True
            client.gate.release()
            await store.arrival()
            late = pod.notify("late")
            await pod.describe()
            store.open()
            assert (await first).text == "0"
            for _ in rest:
                client.gate.release()
            assert await late is None
            assert [(await each).text for each in rest] == [str(n + 1) for n in range(32)]
            assert texts(await pod.history())[:5] == ["0", "0", "1", "late", "1"]

    asyncio.run(asyncio.wait_for(main(), 60))


async def idle_at_work(system: PodSystem, store: GatedStore, client: GatedClient) -> tuple[Pod, Any]:
    """A pod without a run whose pushed item is on its way to the store."""
    pod = await system.spawn(PLAIN, client=client)
    store.shut = True
    pushed = pod.push_item(UserItem.of("pushed"))
    await store.arrival()
    return pod, pushed


async def test_notifications_to_an_idle_pod_that_has_something_under_way_start_one_run_together() -> None:
    store, client = GatedStore(), GatedClient([say("a"), say("b")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, pushed = await idle_at_work(system, store, client)
        published = [pod.notify(text) for text in ("1", "2", "3")]
        await pod.describe()
        with pod.subscribe(RunStart) as events:
            store.open()
            await pushed
            for each in published:
                assert await each is None
            client.gate.release()
            client.gate.release()
            assert (await pod.run("go")).text == "b"
            assert [event.reason for event in events.drain()] == ["notify", "run"]
        assert texts(await pod.history()) == ["pushed", "1", "2", "3", "a", "go", "b"]


async def test_a_notification_joins_the_run_that_waits_for_what_is_under_way() -> None:
    store, client = GatedStore(), GatedClient([say("a"), say("b")])
    client.gate.release()
    client.gate.release()
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, pushed = await idle_at_work(system, store, client)
        first, second, published = pod.run("first"), pod.run("second"), pod.notify("by the way")
        await pod.describe()
        store.open()
        await asyncio.gather(pushed, published)
        assert [(await first).text, (await second).text] == ["a", "b"]
        assert texts(await pod.history()) == ["pushed", "first", "by the way", "a", "second", "b"]


@pytest.mark.parametrize("behind", [0, 1])
async def test_a_notification_to_a_run_that_is_dropped_before_it_begins_is_not_lost(behind: int) -> None:
    store, client = GatedStore(), GatedClient([say("a")])
    client.gate.release()
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, pushed = await idle_at_work(system, store, client)
        async with pod.stream("dropped") as stream:
            published = [pod.notify(text) for text in ("1", "2")]
            others = [pod.run("other") for _ in range(behind)]
            await pod.describe()
        assert (await stream.result).outcome == "cancelled"
        store.open()
        await asyncio.gather(pushed, *published)
        for each in others:
            assert (await each).text == "a"
        assert texts(await pod.history())[: 3 + behind] == ["pushed", *(["other"] * behind), "1", "2"]
        await client.asked.acquire()
        assert client.asked.locked(), "one run has them all"


async def test_a_stop_answers_notifications_that_wait_for_a_run_to_begin() -> None:
    store, client = GatedStore(), GatedClient([say("a")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod, pushed = await idle_at_work(system, store, client)
        published = [pod.notify(text) for text in ("1", "2")]
        stopped = pod.stop()
        store.open()
        await asyncio.gather(pushed, stopped)
        for each in published:
            with pytest.raises(PodStopped):
                await each


async def test_a_turn_ends_once_with_its_calls_and_never_where_they_were_not_run() -> None:
    @tool
    async def one() -> str:
        return "1"

    store, client = GatedStore(), GatedClient([call("one"), say("a"), call("one")])
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=client, tools=[one])
        with pod.subscribe([TurnStart, TurnEnd]) as events:
            client.gate.release()
            client.gate.release()
            await pod.run("go")
            assert [(type(each), each.turn) for each in events.drain()] == [
                (TurnStart, 1),
                (TurnEnd, 1),
                (TurnStart, 2),
                (TurnEnd, 2),
            ]
            run = pod.run("again")
            for _ in range(3):
                await client.asked.acquire()
            store.shut = True
            client.gate.release()
            await store.arrival()  # the answer, before its call is begun
            cancelled = pod.cancel()
            await pod.describe()
            store.open()
            await cancelled
            assert (await run).outcome == "cancelled"
            assert [type(each) for each in events.drain()] == [TurnStart]


def test_a_client_that_forgets_a_cancel_of_its_own_does_not_end_what_comes_later() -> None:
    class Forgetful:
        """Cancels its task for a time-out, tries again, and never takes the cancel back."""

        model = "forgetful"

        def __init__(self) -> None:
            self.script = ScriptedClient([call("one"), say("done")])
            self.forgot = False

        async def stream(self, request: Request) -> AsyncIterator[Block]:
            if not self.forgot:
                self.forgot = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            async for block in self.script.stream(request):
                yield block

    @tool
    async def one() -> str:
        await asyncio.sleep(0)
        return "1"

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PLAIN, client=Forgetful(), tools=[one])
            assert (await pod.run("go")).text == "done"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_commit_ends_only_when_its_own_entries_are_durable() -> None:
    async def main() -> None:
        store = GatedStore()
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([]))
            journal = pod.ref.actor_inbox.actor.journal  # type: ignore[attr-defined]
            store.shut = True
            commits = []
            for word in ("first", "second", "third"):
                journal.log.record(Alert, text=word)
                commits.append(asyncio.ensure_future(journal.commit()))
                await asyncio.sleep(0)
            store.end()  # of the first; the others go together
            await commits[0]
            await store.arrival()
            await pod.describe()
            assert [each.done() for each in commits] == [True, False, False]
            store.shut = False
            store.end(StoreError("full"))
            for each in commits[1:]:
                with pytest.raises(StoreError):
                    await each

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_compaction_of_a_run_that_is_lost_has_its_end() -> None:
    async def main() -> None:
        store = GatedStore()
        client = GatedClient([say("x" * 4000), call("write_summary", {"text": "s"}), say("b")])
        wanted = PodManifest.of(name="p", compact_threshold=800, compact_retained_tokens=100)
        async with PodSystem(store, grace=0.1) as system:
            pod = await system.spawn(wanted, client=client)
            client.gate.release()
            await pod.run("tell")
            await client.asked.acquire()
            with system.subscribe("p", (CompactStart, CompactFailed, CompactDone)) as events:
                run = pod.run("two")
                await client.asked.acquire()  # by the summariser
                journal = pod.ref.actor_inbox.actor.journal  # type: ignore[attr-defined]
                store.shut = True
                journal.log.record(Alert, text="of a memory job")
                refused = asyncio.ensure_future(journal.commit())
                await store.arrival()
                store.shut = False
                store.end(StoreError("full"))
                with pytest.raises(StoreError):
                    await refused
                with pytest.raises(RunFailed):
                    await run
                published = [type(await anext(events)).__name__ for _ in range(2)]
            assert published == ["CompactStart", "CompactFailed"]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_calls_that_are_pushed_behind_a_runs_own_are_not_run() -> None:
    ran: list[str] = []

    @tool
    async def look(what: str) -> str:
        ran.append(what)
        return "seen"

    async def play(stage: Stage) -> None:
        run = await stage.running()
        pushed = stage.pod.push_item(AssistantItem((), (ToolCall("9", "look", {"what": "pushed"}),)))
        stage.answer()
        await pushed
        stage.answer()
        assert (await run).text == "b"
        assert ran == ["own"]
        results = [item for item in await stage.pod.history() if isinstance(item, ToolResult)]
        assert [(each.call_id, each.is_error) for each in results][-1] == ("9", True)

    on_stage([call("look", {"what": "own"}), say("b")], play, tools=[look])


def test_runs_of_one_burst_ask_their_models_in_the_order_of_the_burst() -> None:
    class Noting(ScriptedClient):
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            asked.append(request.system)
            async for block in super().stream(request):
                yield block

    asked: list[str | None] = []

    async def main() -> None:
        async with PodSystem() as system:
            names = [f"p{number}" for number in range(5)]
            pods = [
                await system.spawn(PodManifest.of(name=name, system_prompt=name), client=Noting([say("a")]))
                for name in names
            ]
            await asyncio.gather(*[pod.run("go") for pod in pods])
            assert asked == names

    asyncio.run(asyncio.wait_for(main(), 60))


def test_calls_that_are_pushed_to_a_paused_run_are_closed_when_it_goes_on_and_not_run() -> None:
    ran: list[str] = []

    @tool
    async def look(what: str) -> str:
        ran.append(what)
        await asyncio.Event().wait()
        return "seen"

    async def main() -> None:
        client = ScriptedClient([call("look", {"what": "own"}), say("b"), say("c")])
        async with PodSystem() as system:
            pod = await system.spawn(PLAIN, client=client, tools=[look])
            with system.subscribe("p", ToolStart) as events:
                run = pod.run("go")
                await anext(events)
            await pod.pause()
            assert (await run).outcome == "paused"
            await pod.push_item(AssistantItem((), (ToolCall("9", "look", {"what": "pushed"}),)))
            assert (await pod.resume()).text == "b"
            await pod.run("and now?")
            assert ran == ["own"]
            history = await pod.history()
            pushed = [type(item) for item in history].index(AssistantItem, 3)
            answered = history[pushed + 1]
            assert isinstance(answered, ToolResult)
            assert (answered.call_id, answered.is_error) == ("9", True)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_runs_that_wait_begin_one_after_the_other_and_not_within_each_other() -> None:
    depths: list[int] = []

    class Deep(ScriptedClient):
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            depths.append(len(inspect.stack(0)))
            async for block in super().stream(request):
                yield block

    async def main() -> None:
        async with PodSystem() as system:
            pod = await paused(system, GatedClient([say("a")]))
            session = (await pod.describe()).session_id
            await pod.stop()
            pod = await system.spawn(PLAIN, client=Deep([say("b")] * 8), resume=session)
            holder = pod.ref.actor_inbox.actor.runs.history_lock  # type: ignore[attr-defined]
            busy = Interruptible(pod.ref.actor_inbox.actor.runs)  # type: ignore[attr-defined]
            assert holder.line_up(busy) is None  # as a fork does that takes long
            runs = [pod.run(str(number)) for number in range(8)]
            await pod.describe()
            holder.leave(busy)
            await asyncio.gather(*runs)
            assert len(depths) == 8
            assert max(depths) - min(depths) < 8

    asyncio.run(asyncio.wait_for(main(), 60))
