"""What a crash, a second writer and a refusing store do to a pod: nothing is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.chain import verified
from actors.sessions.store import MemoryStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict, NotPaused, RunFailed, SessionInUse, StoreError
from protocol.events import Event, RunEnd, SessionForked
from protocol.items import ToolResult
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

CHILD = """
    import asyncio, pathlib, sys
    from actors.system import PodSystem
    from actors.llm.scripted import ScriptedClient, call, say
    from actors.tools.base import tool
    from protocol.manifest import PodManifest

    @tool
    async def append(word: str) -> str:
        with open(sys.argv[2], "a") as file:
            file.write(word + "\\n")
        if word == "hang":
            print("in the tool", flush=True)
            await asyncio.Event().wait()
        return "written"

    async def main():
        client = ScriptedClient([
            call("append", {"word": "one"}, id="a"),
            call("append", {"word": "two"}, id="b") + call("append", {"word": "hang"}, id="c"),
        ])
        async with PodSystem(f"sqlite:{sys.argv[1]}") as system:
            pod = await system.spawn(PodManifest.of(name="child"), client=client, tools=[append])
            print((await pod.describe()).session_id, flush=True)
            await pod.run("go")

    asyncio.run(main())
"""


class Child:
    """A process whose pod hangs in its third call."""

    def __init__(self, folder: Path) -> None:
        self.store, self.file = folder / "pods.db", folder / "words"
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(self.store), str(self.file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.session = self.process.stdout.readline().strip()
        assert self.process.stdout.readline().strip() == "in the tool"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


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
    assert child.file.read_text().split() == ["one", "two", "hang"]


def test_a_run_on_a_killed_pods_session_starts_anew(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.kill()

    async def main() -> None:
        async with PodSystem(f"sqlite:{child.store}") as system:
            pod = await system.spawn(
                PodManifest.of(name="child"), client=ScriptedClient([say("new")]), resume=child.session
            )
            assert (await pod.run("never mind")).text == "new"
            with pytest.raises(NotPaused):
                await pod.resume()
            ends = system.subscribe("child", RunEnd, since=0).drain()
            assert [e.outcome for e in ends if isinstance(e, RunEnd)] == ["cancelled", "finished"]

    asyncio.run(main())


def test_a_second_process_on_a_session_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
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


def test_two_pods_of_one_process_cannot_have_one_session() -> None:
    async def main() -> None:
        async with PodSystem() as system:
            first = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([]))
            session = (await first.describe()).session_id
            with pytest.raises(SessionInUse, match="'a'"):
                await system.spawn(PodManifest.of(name="b"), client=ScriptedClient([]), resume=session)
            await first.stop()
            second = await system.spawn(PodManifest.of(name="b"), client=ScriptedClient([]), resume=session)
            assert (await second.describe()).session_id == session

    asyncio.run(main())


class FailingStore(MemoryStore):
    """A store that refuses appends while ``error`` is set."""

    error: Exception | None = None

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        if self.error is not None:
            raise self.error
        return super().append(session_id, after, batch)


class LateStore(FailingStore):
    """The same, telling what came of an append only later, as a store on a slow disk does."""

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
def test_a_store_that_refuses_fails_the_run_and_the_pod_lives_on(kind: type[FailingStore]) -> None:
    async def main() -> None:
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

    asyncio.run(main())


@stores
def test_a_store_that_fails_at_the_end_of_a_run_tells_nobody_of_a_result(kind: type[FailingStore]) -> None:
    async def main() -> None:
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

    asyncio.run(main())


@stores
def test_a_pod_that_finds_its_session_taken_goes_on_in_a_fork(kind: type[FailingStore]) -> None:
    class Taken(kind):  # type: ignore[valid-type,misc]
        def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
            self.error = HeadConflict("moved on") if session_id == self.taken else None
            return super().append(session_id, after, batch)

        taken = ""

    async def main() -> None:
        store = Taken()
        async with PodSystem(store) as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("a"), say("b")]))
            await pod.run("1")
            old = store.taken = (await pod.describe()).session_id
            with system.subscribe("p") as events:
                result = await pod.run("2")
                told: list[Event] = events.drain()
            assert result.text == "b"
            assert result.session_id != old
            assert [item.text for item in await pod.history()] == ["1", "a", "2", "b"]
            forks = [e for e in told if isinstance(e, SessionForked)]
            assert [f.new_session_id for f in forks] == [result.session_id]
            parent = store.info(result.session_id).parent
            assert parent is not None
            assert (parent.kind, parent.session_id) == ("forked_from", old)
            verified(result.session_id, store.read(result.session_id))

    asyncio.run(main())


def test_a_pod_that_must_not_fork_is_refused() -> None:
    async def main() -> None:
        store = FailingStore()
        async with PodSystem(store, on_conflict="refuse") as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("a")]))
            store.error = HeadConflict("moved on")
            with pytest.raises(RunFailed, match="moved on"):
                await pod.run("1")
            store.error = None
            assert (await pod.run("2")).text == "a"

    asyncio.run(main())
