"""A store that does not answer holds nobody for ever: not a stop, not a defect, not a memory job's end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pod_stage import PLAIN, GatedClient, all_of, on_each_store, reached  # noqa: F401
from pykka.messages import ProxyCall
from test_between import GatedStore

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import PodStopped, RunFailed, StoreError
from protocol.events import CompactFailed, CompactStart, Event, ExtractDone, PodEnded, PodFailed, RunEnd
from protocol.manifest import PodManifest

pytestmark = pytest.mark.usefixtures("on_each_store")

#: So that a test of a store that never answers ends soon.
SOON = {"grace": 0.05, "memory_grace": 0.05, "store_grace": 0.05}


def play_to_the_end(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Play it to its end: no task goes on behind it, and no error went unseen."""
    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(60):
            await play()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())
    gc.collect()
    assert unhandled == []


def defect(pod: Pod) -> None:
    pod.ref.tell(ProxyCall(attr_path=["nothing"], args=(), kwargs={}))


async def waiting_at_the_store(system: PodSystem, store: GatedStore) -> tuple[Pod, Any]:
    """A pod whose run's first commit is at a store that does not answer."""
    pod = await system.spawn(PLAIN, client=GatedClient([say("a")]))
    store.shut = True
    run = pod.run("go")
    await store.arrival()
    return pod, run


async def kept(system: PodSystem) -> list[Event]:
    with system.subscribe("p", since=0) as events:
        return await all_of(events)


def test_a_stop_does_not_wait_for_ever_and_all_who_ask_are_answered() -> None:
    async def main() -> None:
        store = GatedStore()
        async with PodSystem(reached(store), **SOON) as system:
            pod, run = await waiting_at_the_store(system, store)
            queued, pushed, forked = pod.run("next"), pod.compact(), pod.fork()
            assert await pod.stop()
            for asked in (run, queued, pushed, forked):
                with pytest.raises(PodStopped):
                    await asked

    play_to_the_end(main)


def test_a_defect_while_a_commit_is_under_way_ends_the_pod_and_nothing_waits_on() -> None:
    async def main() -> None:
        store = GatedStore()
        async with PodSystem(reached(store), **SOON) as system:
            pod, run = await waiting_at_the_store(system, store)
            queued = pod.run("next")
            defect(pod)
            stopped = pod.stop()
            for asked in (run, queued):
                with pytest.raises((RunFailed, PodStopped)):
                    await asked
            await stopped
            assert not pod.ref.is_alive()

    play_to_the_end(main)


def test_a_defect_while_a_commit_is_under_way_that_is_kept_has_all_its_ends() -> None:
    async def main() -> None:
        store = GatedStore()
        async with PodSystem(reached(store)) as system:
            pod, run = await waiting_at_the_store(system, store)
            defect(pod)
            stopped = pod.stop()
            with pytest.raises(RunFailed):
                await run
            store.open()
            await stopped
            ends = [event for event in await kept(system) if isinstance(event, RunEnd | PodFailed)]
            assert [type(event) for event in ends] == [PodFailed]
            session = ends[-1].session_id
            resumed = await system.spawn(PLAIN, client=ScriptedClient([say("b")]), resume=session)
            result = await resumed.resume()
            assert (result.outcome, result.text) == ("finished", "b")

    play_to_the_end(main)


@pytest.mark.parametrize("answers", [True, False])
def test_a_stop_while_the_end_of_an_extraction_is_at_the_store(tmp_path: Path, answers: bool) -> None:
    async def main() -> None:
        store, found = GatedStore(), call("write_extracted", {"requests": [{"intent": "a story"}]})
        client = GatedClient([say("x" * 4000), found, say("noted")])
        for _ in range(3):
            client.gate.release()
        wanted = PodManifest.of(name="p", extract_threshold=100, schedule="manual")
        async with PodSystem(reached(store), memory=tmp_path, **SOON) as system:
            pod = await system.spawn(wanted, client=client)
            await pod.run("tell")
            await pod.spawn_memory_jobs()
            for _ in range(2):
                await client.asked.acquire()
            store.shut = True  # its start is durable: a request was sent
            await client.asked.acquire()
            await store.arrival()
            stopped = pod.stop()
            if answers:
                store.open()
            assert await stopped
            published = [type(event) for event in await kept(system)]
            assert (ExtractDone in published, PodEnded in published) == (answers, answers)

    play_to_the_end(main)
    # Where the store never answered nobody knows what it keeps, so what was found stays there too.
    assert len(list(tmp_path.rglob("*.json"))) == 1


class Slow:
    """Answers in a script's words, but for the last request: that one ends only some time after its cancel."""

    model = "slow"

    def __init__(self, replies: list[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._script, self._left, self._loop = ScriptedClient(replies), len(replies), loop
        self.asked_last, self.ended = asyncio.Event(), asyncio.Event()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if self._left:
            self._left -= 1
            async for block in self._script.stream(request):
                yield block
            return
        self.asked_last.set()
        try:
            await asyncio.Event().wait()
        finally:
            let_go = asyncio.Event()
            self._loop.call_later(0.02, let_go.set)
            await let_go.wait()
            self.ended.set()


def test_a_stop_past_a_store_that_never_answers_leaves_no_memory_job_behind(tmp_path: Path) -> None:
    async def main() -> None:
        store = GatedStore()
        client = Slow([say("x" * 4000)], asyncio.get_running_loop())
        wanted = PodManifest.of(name="p", extract_threshold=100, schedule="manual")
        async with PodSystem(store, memory=tmp_path, **SOON) as system:
            pod = await system.spawn(wanted, client=client)
            await pod.run("tell")
            await pod.spawn_memory_jobs()
            await client.asked_last.wait()
            store.shut = True
            run = pod.run("go")
            await store.arrival()
            await pod.stop()
            assert client.ended.is_set()
            with pytest.raises(PodStopped):
                await run

    play_to_the_end(main)


def test_a_resume_whose_first_commit_is_refused_writes_nothing_and_gives_its_session_back() -> None:
    async def main() -> None:
        store, client = RefusingStore(), GatedClient([say("x" * 4000), say("never")])
        async with PodSystem(reached(store), grace=0.05) as system:
            pod = await system.spawn(PLAIN, client=client)
            client.gate.release()
            session = (await pod.run("tell")).session_id
            compacted = pod.compact()  # leaves a start without an end behind
            for _ in range(2):
                await client.asked.acquire()
            store.refuses = True
            defect(pod)
            with pytest.raises(PodStopped):
                await compacted
            await pod.stop()
            before = store.read(session)
            for _ in range(2):
                with pytest.raises(StoreError, match="full"):
                    await system.spawn(PLAIN, client=client, resume=session)
                assert store.holder(session) is None
                store.refuses = False  # at once: what is given to it from now on is kept
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert store.read(session) == before
                store.refuses = True
            store.refuses = False
            last = await system.spawn(PLAIN, client=ScriptedClient([say("b")]), resume=session)
            assert store.read(session)[: len(before)] == before
            with last.subscribe([CompactStart, CompactFailed], since=0) as events:
                assert [type(event) for event in await all_of(events)] == [CompactStart, CompactFailed]
            assert (await last.run("again")).text == "b"

    play_to_the_end(main)


class RefusingStore(GatedStore):
    """A store that is full as long as it ``refuses``."""

    refuses = False

    def append(self, *args):  # type: ignore[no-untyped-def]
        if self.refuses:
            raise StoreError("full")
        return super().append(*args)
