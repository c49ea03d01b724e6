"""What a crash, a second writer and a refusing store do to a pod: nothing is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from crash_child import LONG, Child, manifest, tools
from pod_stage import GatedClient

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.chain import verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.replay import open_calls, replay
from actors.sessions.store import SessionInfo
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict, NotPaused, RunFailed, SessionInUse, StoreError
from protocol.events import CompactDone, Event, ExtractDone, RunEnd, RunStart, SessionForked
from protocol.items import AssistantItem, ToolResult
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.wire import decode_entry


def resume_after(
    child: Child,
    scene: str,
    replies: list[Reply],
    play: Callable[[PodSystem, Pod, ScriptedClient], Coroutine[Any, Any, None]],
) -> None:
    """Kill the child and play with its pod, restored in this process."""
    child.kill()

    async def main() -> None:
        client = ScriptedClient(replies)
        async with PodSystem(f"sqlite:{child.store}", memory=child.store.parent / "memory") as system:
            pod = await system.spawn(
                manifest(scene), client=client, tools=tools(child.file, hang=False), resume=child.session
            )
            await play(system, pod, client)
            tip = (await pod.describe()).session_id
            verified(tip, system.store.read(tip))

    asyncio.run(main())


def kinds_of(system: PodSystem, session: str) -> list[str]:
    return [type(decode_entry(entry.body)).__name__ for entry in system.store.read(session)]


def test_a_killed_pod_resumes_where_it_was_and_runs_no_tool_twice(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.kill()
    ran = []

    @tool
    async def append(word: str) -> str:
        ran.append(word)
        return "written"

    async def main() -> None:
        client = ScriptedClient([say("done")])
        async with PodSystem(f"sqlite:{child.store}") as system:
            pod = await system.spawn(
                PodManifest.of(name="child"), client=client, tools=[append], resume=child.session
            )
            assert (await pod.describe()).state is PodState.PAUSED
            result = await pod.resume()
            assert (result.text, result.outcome) == ("done", "finished")
            results = [item for item in await pod.history() if isinstance(item, ToolResult)]
            assert [r.call_id for r in results] == ["a", "b", "c"]
            assert [r.is_error for r in results] == [False, False, True]
            assert "outcome unknown" in results[2].text
            verified(child.session, system.store.read(child.session))

    asyncio.run(main())
    assert ran == []
    assert child.ran == ["one", "two", "hang"]


def test_a_pod_killed_while_its_model_answers_resumes_with_that_request(tmp_path: Path) -> None:
    child = Child(tmp_path, "stream")

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        assert (await pod.describe()).state is PodState.PAUSED
        assert [item.text for item in await pod.history()] == ["go", "", "written"]
        result = await pod.resume()
        assert (result.text, result.outcome) == ("done", "finished")
        assert len(client.requests) == 1
        assert [item.text for item in client.requests[0].items] == ["go", "", "written", "done"][:3]

    resume_after(child, "stream", [say("done")], play)
    assert child.ran == ["one"]


def test_a_pod_killed_within_a_batch_keeps_what_has_ended_and_answers_the_rest_without_running_it(
    tmp_path: Path,
) -> None:
    child = Child(tmp_path, "batch")
    assert child.ran == ["one", "hang", "three"]

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        assert (await pod.describe()).state is PodState.PAUSED
        assert [item.text for item in await pod.history()] == ["go", "", "written", "written"]
        assert (await pod.resume()).text == "done"
        for items in (client.requests[0].items, await pod.history()):
            results = [item for item in items if isinstance(item, ToolResult)]
            assert [(r.call_id, r.is_error) for r in results] == [
                ("a", False),
                ("b", True),
                ("c", False),
                ("d", True),
            ]
            assert all("outcome unknown" in r.text for r in (results[1], results[3]))

    resume_after(child, "batch", [say("done")], play)
    assert child.ran == ["one", "hang", "three"]


def test_a_pod_killed_within_a_compaction_has_its_old_history_and_compacts_when_it_goes_on(
    tmp_path: Path,
) -> None:
    child = Child(tmp_path, "compaction")

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        before = await pod.describe()
        assert (before.state, before.session_id) == (PodState.PAUSED, child.session)
        assert kinds_of(system, child.session)[-2:] == ["CompactFailed", "PodStarted"]
        assert len(await pod.history()) == 3
        result = await pod.resume()
        assert (result.text, result.outcome) == ("done", "finished")
        parent = system.store.info(result.session_id).parent
        assert parent is not None
        assert (parent.kind, parent.session_id) == ("compacted_from", child.session)
        assert kinds_of(system, child.session).count("CompactStart") == 2
        assert kinds_of(system, result.session_id).count("CompactDone") == 1

    replies = [call("write_summary", {"text": "A story was told."}), say("noted"), say("done")]
    resume_after(child, "compaction", replies, play)
    assert child.ran == ["story"]


def test_a_pod_killed_while_its_memory_is_read_has_it_read_after_its_next_run(tmp_path: Path) -> None:
    child = Child(tmp_path, "memory")

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        before = await pod.describe()
        assert (before.state, before.extract_pointer) == (PodState.IDLE, None)
        assert kinds_of(system, child.session)[-4:] == [
            "RunEnd",
            "ExtractStart",
            "ExtractFailed",
            "PodStarted",
        ]
        assert (await pod.run("more")).text == "next"
        assert await pod.wait_for_memory_jobs(timeout=60)
        assert (await pod.describe()).extract_pointer == 4
        staged = list((tmp_path / "memory" / "staging").iterdir())
        assert [path.suffix for path in staged] == [".json"]

    found = {"requests": [{"intent": "a story"}]}
    resume_after(child, "memory", [say("next"), call("write_extracted", found), say("noted")], play)


def test_a_compaction_of_a_killed_pods_history_answers_its_open_calls_first(tmp_path: Path) -> None:
    child = Child(tmp_path)

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.compact(10_000)
        assert not open_calls(
            [item for item in await pod.history() if isinstance(item, AssistantItem | ToolResult)]
        )
        assert (await pod.resume()).text == "done"
        results = [item for item in client.requests[-1].items if isinstance(item, ToolResult)]
        assert [r.call_id for r in results] == ["a", "b", "c"]
        assert "outcome unknown" in results[2].text

    replies = [call("write_summary", {"text": "Words were written."}), say("noted"), say("done")]
    resume_after(child, "tool", replies, play)


async def test_a_run_on_a_killed_pods_session_starts_anew(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.kill()

    async with PodSystem(f"sqlite:{child.store}") as system:
        pod = await system.spawn(
            PodManifest.of(name="child"), client=ScriptedClient([say("new")]), resume=child.session
        )
        assert (await pod.run("never mind")).text == "new"
        with pytest.raises(NotPaused):
            await pod.resume()
        ends = system.subscribe("child", RunEnd, since=0).drain()
        assert [e.outcome for e in ends if isinstance(e, RunEnd)] == ["cancelled", "finished"]


def test_a_second_process_on_a_session_is_refused_and_learns_who_has_it(tmp_path: Path) -> None:
    child = Child(tmp_path)

    async def main() -> None:
        client = ScriptedClient([])
        async with PodSystem(f"sqlite:{child.store}") as system:
            with pytest.raises(SessionInUse) as caught:
                await system.spawn(PodManifest.of(), client=client, resume=child.session)
            assert caught.value.pid == child.process.pid
            assert system.pods() == []
        assert client.requests == []

    try:
        asyncio.run(main())
    finally:
        child.kill()


async def test_two_pods_of_one_process_cannot_have_one_session() -> None:
    async with PodSystem() as system:
        first = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([]))
        session = (await first.describe()).session_id
        with pytest.raises(SessionInUse, match="'a'"):
            await system.spawn(PodManifest.of(name="b"), client=ScriptedClient([]), resume=session)
        await first.stop()
        second = await system.spawn(PodManifest.of(name="b"), client=ScriptedClient([]), resume=session)
        assert (await second.describe()).session_id == session


class FailingStore(MemoryStore):
    """A store that refuses appends while ``error`` is set."""

    error: Exception | None = None

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        if self.error is not None:
            raise self.error
        return super().append(session_id, after, batch)


class LateStore(FailingStore):
    """The same, reporting what came of an append only later, as a store on a slow disk does."""

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        future: Future[None] = Future()
        loop = asyncio.get_running_loop()
        try:
            super().append(session_id, after, batch)
        except Exception as error:  # noqa: BLE001 - whatever the store would raise
            loop.call_soon(future.set_exception, error)
        else:
            loop.call_soon(future.set_result, None)
        return future


stores = pytest.mark.parametrize("kind", [FailingStore, LateStore])


@stores
async def test_a_store_that_refuses_fails_the_run_and_the_pod_lives_on(kind: type[FailingStore]) -> None:
    store = kind()
    client = ScriptedClient([say("lost"), say("kept")])
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=client)
        with system.subscribe("p") as events:
            store.error = StoreError("the disk is full")
            with pytest.raises(RunFailed, match="disk is full") as caught:
                await pod.run("1")
            assert isinstance(caught.value.cause, StoreError)
            assert [e for e in events.drain() if e.durable] == []
            assert await pod.history() == []
            with pytest.raises(StoreError):
                await pod.push_item(ToolResult("x", "x"))
            store.error = None
            result = await pod.run("2")
        assert result.text == "lost"
        assert [item.text for item in await pod.history()] == ["2", "lost"]
        session = result.session_id
        verified(session, store.read(session))
        assert (await pod.run("3")).text == "kept"


@stores
async def test_a_store_that_fails_at_the_end_of_a_run_gives_nobody_a_result(
    kind: type[FailingStore],
) -> None:
    store = kind()

    @tool
    async def fill() -> str:
        store.error = StoreError("full")
        return "ok"

    client = ScriptedClient([call("fill"), say("again")])
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[fill])
        with pytest.raises(RunFailed):
            await pod.run("1")
        store.error = None
        assert (await pod.run("2")).text == "again"
        results = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert ["outcome unknown" in r.text for r in results] == [True]


@stores
async def test_a_pod_that_finds_its_session_taken_goes_on_in_a_fork(kind: type[FailingStore]) -> None:
    class Taken(kind):  # type: ignore[valid-type,misc]
        def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
            self.error = HeadConflict("moved on") if session_id == self.taken else None
            return super().append(session_id, after, batch)

        taken = ""

    store = Taken()
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("a"), say("b")]))
        await pod.run("1")
        old = store.taken = (await pod.describe()).session_id
        with system.subscribe("p") as events:
            result = await pod.run("2")
            published: list[Event] = events.drain()
        assert result.text == "b"
        assert result.session_id != old
        assert [item.text for item in await pod.history()] == ["1", "a", "2", "b"]
        forks = [e for e in published if isinstance(e, SessionForked)]
        assert [f.new_session_id for f in forks] == [result.session_id]
        parent = store.info(result.session_id).parent
        assert parent is not None
        assert (parent.kind, parent.session_id) == ("forked_from", old)
        verified(result.session_id, store.read(result.session_id))
        kept = replay(store.read(result.session_id))
        assert kept.seconds == pytest.approx((await pod.describe()).seconds)


async def test_a_pod_that_must_not_fork_is_refused() -> None:
    store = FailingStore()
    async with PodSystem(store, on_conflict="refuse") as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("a")]))
        store.error = HeadConflict("moved on")
        with pytest.raises(RunFailed, match="moved on"):
            await pod.run("1")
        store.error = None
        assert (await pod.run("2")).text == "a"


class HeldStore(MemoryStore):
    """A store that answers an append in which memory was read only when it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Future[None] = Future()
        self.arrived = asyncio.Event()

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        super().append(session_id, after, batch)
        if not any(b'"ExtractDone"' in entry.body for entry in batch):
            return None
        self.arrived.set()
        return self.held


class GatedByTask(GatedClient):
    """Answers a job, a summariser and a run, each by a script and with a gate of its own."""

    def __init__(self) -> None:
        super().__init__([])
        self.summariser = asyncio.Semaphore(0)
        found = call("write_extracted", {"requests": [{"intent": "a story"}]})
        summary = call("write_summary", {"text": "A story was told."})
        self._of_task = {
            "write_extracted": ScriptedClient([found, say("noted")]),
            "write_summary": ScriptedClient([summary, say("noted")]),
        }
        self._script = ScriptedClient([say(LONG), say("done")])

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        task = request.tools[0].name if request.tools else ""
        script = self._of_task.get(task, self._script)
        self.asked.release()
        await (self.summariser if task == "write_summary" else self.gate).acquire()
        async for block in script.stream(request):
            yield block


def test_no_request_is_sent_before_its_input_where_memory_is_kept_beside_a_compaction() -> None:
    async def main() -> None:
        store, client = HeldStore(), GatedByTask()
        wanted = PodManifest.of(
            name="p",
            compact_threshold=800,
            compact_retained_tokens=100,
            extract_threshold=100,
            schedule="manual",
        )
        async with PodSystem(store, memory_grace=0.1) as system:
            pod = await system.spawn(wanted, client=client)
            client.gate.release()
            await pod.run("tell me a story")
            await pod.spawn_memory_jobs()
            with system.subscribe("p", (RunStart, CompactDone, ExtractDone)) as events:
                run = pod.run("another")  # compacts first, and that waits for the job
                for _ in range(2):  # the job, whose end is not durable yet
                    client.gate.release()
                await store.arrived.wait()
                for _ in range(2):
                    client.summariser.release()
                for _ in range(5):
                    await client.asked.acquire()
                for _ in range(20):  # until the compaction, all of whose answers are there, stands behind it
                    await asyncio.sleep(0)
                store.held.set_result(None)
                client.gate.release()
                assert (await run).text == "done"
                assert [type(event) for event in events.drain()] == [ExtractDone, CompactDone, RunStart]
            texts = [item.text for item in client.requests[-1].items]
            assert texts[-1] == "another"
            assert len(client.requests) == 2

    asyncio.run(asyncio.wait_for(main(), 60))


class HiccupStore(MemoryStore):
    """A store that cannot say once what follows a session."""

    asked = 0

    def successors(self, session_id: str) -> list[SessionInfo]:
        self.asked += 1
        if self.asked == 2:
            raise StoreError("the disk had a hiccup")
        return super().successors(session_id)


def test_a_resume_that_fails_behind_its_claim_gives_it_back() -> None:
    async def main() -> None:
        store = HiccupStore()
        async with PodSystem(store) as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([]))
            session = (await pod.describe()).session_id
            await pod.stop()
            with pytest.raises(StoreError, match="hiccup"):
                await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([]), resume=session)
            assert store.holder(session) is None
            await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([]), resume=session)

    asyncio.run(asyncio.wait_for(main(), 60))
