"""Memory's pointer beside runs and compactions: it never skips what was not read, nor outlives its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from pykka.messages import ProxyCall

from actors.llm.base import Block, Request
from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.entries import Head, StoredEntry
from protocol.errors import ModelError, RunFailed, StoreError
from protocol.events import CompactDone, Event, ExtractDone, ExtractFailed, ExtractStart
from protocol.items import UserItem
from protocol.manifest import PodManifest

KINDS = [ExtractStart, ExtractDone, ExtractFailed, CompactDone]


class Slow:
    """Answers at once, but for extractions, which wait until they are let go; keeps what those were given."""

    model = "slow"

    def __init__(self) -> None:
        self.asked, self.gate = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.read: list[str] = []
        #: What the next extraction that is let go fails with.
        self.failing: Exception | None = None

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        names = {tool.name for tool in request.tools}
        reply = say("answer", input_tokens=1000)
        if "write_summary" in names:
            first = len(request.items) == 1
            reply = call("write_summary", {"text": "s"}, id="c") if first else say("done")
        elif "write_extracted" in names:
            self.read.append(request.items[0].text)
            self.asked.release()
            await self.gate.acquire()
            failing, self.failing = self.failing, None
            if failing is not None:
                raise failing
        async for block in reply.stream():
            yield block


def play_slow(play: Any, *, store: Any = "memory:", grace: float = 5.0, **settings: Any) -> None:
    async def main() -> None:
        client = Slow()
        manifest = PodManifest.of(name="p", **{"extract_threshold": 1, "schedule": "manual", **settings})
        async with PodSystem(store, memory_grace=grace) as system:
            pod = await system.spawn(manifest, client=client)
            with system.subscribe("p", KINDS) as events:
                await asyncio.wait_for(play(pod, events, client), 60)

    asyncio.run(main())


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_pointer_never_skips_what_the_job_has_not_read() -> None:
    """A job that took the log's length of now with a history of before would skip what came between."""

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("first words")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.run("second words")
        client.gate.release()
        client.gate.release()
        assert await pod.wait_for_memory_jobs(timeout=60)
        assert [e.pointer for e in events.drain() if isinstance(e, ExtractDone)] == [2, 4]
        assert ["first words" in text for text in client.read] == [True, False]
        assert ["second words" in text for text in client.read] == [False, True]

    play_slow(play)


def test_a_compaction_in_mid_run_waits_for_the_job_too() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        run = pod.run("2")
        await pod.describe()
        assert not run.done()
        client.gate.release()
        client.gate.release()  # what the run has said by now is read as well
        assert (await run).text == "answer"
        assert names(events.drain()) == ["ExtractStart", "ExtractDone"] * 2 + ["CompactDone"]
        assert (await pod.describe()).extract_pointer is None

    play_slow(play, compact_request_threshold=100, compact_retained_tokens=0)


def test_a_late_extraction_does_not_write_its_pointer_into_the_new_session() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.compact(retained_tokens=0)
        client.gate.release()
        assert await pod.wait_for_memory_jobs(timeout=60)
        seen = events.drain()
        assert names(seen) == ["ExtractStart", "CompactDone", "ExtractFailed"]
        assert "compacted during a memory extraction" in seen[-1].error
        assert (await pod.describe()).extract_pointer is None

    play_slow(play, grace=0.01)


def test_extraction_goes_on_after_a_compaction() -> None:
    """A pointer that stayed would stand behind the shorter history, and nothing would be read again."""

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        for _ in range(6):
            client.gate.release()
        for number in range(3):
            await pod.run(f"words {number}")
        await pod.try_post_run_extract()
        await pod.compact(retained_tokens=0)
        await pod.run("after the fold")
        await pod.try_post_run_extract()
        history = await pod.history()
        assert (await pod.describe()).extract_pointer == len(history)
        assert "after the fold" in client.read[-1]

    play_slow(play)


def test_a_job_that_a_stop_gives_up_is_reported_as_failed() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.stop()
        assert names(events.drain()) == ["ExtractStart", "ExtractFailed"]
        client.gate.release()

    play_slow(play, grace=0.01)


class Held(MemoryStore):
    """Holds back its answer to a batch that has an entry of ``kind``, once."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = b'"type":"%s"' % kind.encode()
        self.armed, self.reached = False, asyncio.Event()
        self.answer: Future[None] = Future()

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        if not self.armed or not any(self._kind in entry.body for entry in batch):
            return super().append(session_id, after, batch)
        self.armed = False
        self.reached.set()
        self._held = (session_id, after, batch)
        return self.answer

    def keep(self) -> None:
        super().append(*self._held)
        self.answer.set_result(None)


def test_a_job_that_was_given_up_says_no_more_of_what_it_read() -> None:
    """Its pointer would come behind the pod's last entry, and after word that it had failed."""
    store = Held("PodStopped")

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        store.armed = True
        stopped = pod.stop()
        await store.reached.wait()
        client.gate.release()
        store.keep()
        await stopped
        assert names(events.drain()) == ["ExtractStart", "ExtractFailed"]

    play_slow(play, store=store, grace=0.01)


def test_words_that_take_the_place_of_refused_ones_are_read() -> None:
    """A job that read the refused ones would lead the pointer past what was never read."""
    store = Held("UserMessage")

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        store.armed = True
        asked = pod.spawn_memory_jobs()
        refused = pod.run("never kept")  # its words stand in the history when the job begins to read
        await store.reached.wait()
        await client.asked.acquire()
        await asked
        assert "never kept" in client.read[-1]
        store.answer.set_exception(StoreError("full"))
        with pytest.raises(RunFailed):
            await refused
        await pod.run("in their place")
        for _ in range(4):
            client.gate.release()
        await pod.wait_for_memory_jobs()
        assert (await pod.describe()).extract_pointer is None
        await pod.try_post_run_extract()
        assert (await pod.describe()).extract_pointer == 4
        assert "in their place" in client.read[-1]

    play_slow(play, store=store)


def test_a_job_that_lost_to_a_compaction_leaves_no_later_one_out() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await client.asked.acquire()
        await pod.compact(retained_tokens=0)
        client.gate.release()
        await pod.wait_for_memory_jobs()
        client.gate.release()
        await pod.run("2")
        await pod.wait_for_memory_jobs()
        assert names(events.drain())[-2:] == ["ExtractStart", "ExtractDone"]

    play_slow(play, grace=0.1, schedule="after_run")


def test_a_trigger_during_a_job_that_fails_has_it_done_again() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        client.failing = ValueError("no")
        asked = pod.try_post_run_extract()
        client.gate.release()
        await client.asked.acquire()
        client.gate.release()
        await asked
        assert names(events.drain()) == ["ExtractStart", "ExtractFailed", "ExtractStart", "ExtractDone"]
        assert (await pod.describe()).extract_pointer == 2

    play_slow(play)


def test_who_waits_for_memory_jobs_learns_of_a_pod_that_a_defect_ends() -> None:
    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        waiting, asked = pod.wait_for_memory_jobs(), pod.try_post_run_extract()
        pod.ref.tell(ProxyCall(attr_path=["nothing"], args=(), kwargs={}))  # a defect
        assert await waiting is False
        await asked
        client.gate.release()

    play_slow(play)


class Small:
    """A model with little room; keeps what it could read of the history."""

    model = "small"

    def __init__(self, room: int) -> None:
        self._room = room
        self.read: list[str] = []

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        text = request.items[0].text
        if request.tools and len(text) > 4 * self._room:
            raise ModelError("too long", kind="context_overflow")
        if request.tools:
            self.read.append(text)
        async for block in say("nothing of note").stream():
            yield block


@pytest.mark.parametrize("settings", [{}, {"context_window": 4096}])
async def test_what_a_small_model_cannot_read_at_once_is_read_in_portions_and_none_is_skipped(
    settings: dict[str, int],
) -> None:
    client = Small(2000)
    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual", **settings)
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        for number in range(100):
            await pod.push_item(UserItem.of(f"fact {number}. " + "x" * 300))
        with pod.subscribe([ExtractDone]) as reported:
            await pod.try_post_run_extract()
            pointers = [event.pointer for event in reported.drain()]  # type: ignore[attr-defined]
        assert pointers == sorted(set(pointers))
        assert pointers[-1] == (await pod.describe()).extract_pointer == 100
        assert len(pointers) > 3
        text = "\n".join(client.read)
        assert all(text.count(f"fact {number}. ") == 1 for number in range(100))


class Ending(Slow):
    """Ends the interpreter, or what runs, in an extraction, as far as it is let."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if any(tool.name == "write_extracted" for tool in request.tools):
            raise self._error
        async for block in super().stream(request):
            yield block


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_a_client_that_would_end_the_interpreter_ends_nothing_but_the_job(error: BaseException) -> None:
    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=Ending(error))
        await pod.run("1")
        with pod.subscribe(KINDS) as reported:
            await asyncio.wait_for(pod.try_post_run_extract(), 60)
            assert names(reported.drain()) == ["ExtractStart", "ExtractFailed"]
        assert (await pod.run("2")).text == "answer"
