"""What is said to a pod in one burst, or while something becomes durable, does what it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from pod_stage import PLAIN, GatedClient, Stage, on_stage
from test_between import GatedStore

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import PodBusy, RunFailed, StoreError
from protocol.events import Alert, CompactDone, CompactFailed, CompactStart
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.manifest import PodManifest


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

    asyncio.run(asyncio.wait_for(main(), 20))


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

    asyncio.run(asyncio.wait_for(main(), 20))


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

    asyncio.run(asyncio.wait_for(main(), 20))


def test_words_that_come_while_a_run_ends_before_a_full_queue_are_refused_and_the_pod_lives() -> None:
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
            with pytest.raises(PodBusy):
                await late
            for _ in rest:
                client.gate.release()
            assert [(await each).text for each in rest] == [str(n + 1) for n in range(32)]

    asyncio.run(asyncio.wait_for(main(), 20))


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

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_commit_ends_only_when_its_own_entries_are_durable() -> None:
    async def main() -> None:
        store = GatedStore()
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([]))
            journal = pod.ref.actor_inbox.actor._journal  # type: ignore[attr-defined]
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

    asyncio.run(asyncio.wait_for(main(), 20))


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
                journal = pod.ref.actor_inbox.actor._journal  # type: ignore[attr-defined]
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
                told = [type(await anext(events)).__name__ for _ in range(2)]
            assert told == ["CompactStart", "CompactFailed"]

    asyncio.run(asyncio.wait_for(main(), 20))


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

    asyncio.run(asyncio.wait_for(main(), 20))
