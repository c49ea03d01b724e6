"""Memory's pointer beside runs and compactions: it never skips what was not read, nor outlives its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.llm.base import Block, Request
from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import ModelError
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
        async for block in reply.stream():
            yield block


def played(play: Any, **settings: Any) -> None:
    async def main() -> None:
        client = Slow()
        manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual", **settings)
        async with PodSystem() as system:
            pod = await system.spawn(manifest, client=client)
            with system.subscribe("p", KINDS) as events:
                await asyncio.wait_for(play(pod, events, client), 10)

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
        assert await pod.wait_for_memory_jobs(timeout=5)
        assert [e.pointer for e in events.drain() if isinstance(e, ExtractDone)] == [2, 4]
        assert ["first words" in text for text in client.read] == [True, False]
        assert ["second words" in text for text in client.read] == [False, True]

    played(play)


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

    played(play, compact_request_threshold=100, compact_retained_tokens=0)


def test_a_late_extraction_does_not_write_its_pointer_into_the_new_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.pod.extracting.JOB_GRACE", 0.01)

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.compact(retained_tokens=0)
        client.gate.release()
        assert await pod.wait_for_memory_jobs(timeout=5)
        seen = events.drain()
        assert names(seen) == ["ExtractStart", "CompactDone", "ExtractFailed"]
        assert "compacted while it was read" in seen[-1].error
        assert (await pod.describe()).extract_pointer is None

    played(play)


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

    played(play)


def test_a_job_that_a_stop_gives_up_is_told_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pod.remembering.JOB_GRACE", 0.01)

    async def play(pod: Pod, events: Any, client: Slow) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.stop()
        assert names(events.drain()) == ["ExtractStart", "ExtractFailed"]
        client.gate.release()

    played(play)


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
def test_what_a_small_model_cannot_read_at_once_is_read_in_portions_and_none_is_skipped(
    settings: dict[str, int],
) -> None:
    async def main() -> None:
        client = Small(2000)
        manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual", **settings)
        async with PodSystem() as system:
            pod = await system.spawn(manifest, client=client)
            for number in range(100):
                await pod.push_item(UserItem.of(f"fact {number}. " + "x" * 300))
            with pod.subscribe([ExtractDone]) as told:
                await pod.try_post_run_extract()
                pointers = [event.pointer for event in told.drain()]  # type: ignore[attr-defined]
            assert pointers == sorted(set(pointers))
            assert pointers[-1] == (await pod.describe()).extract_pointer == 100
            assert len(pointers) > 3
            text = "\n".join(client.read)
            assert all(text.count(f"fact {number}. ") == 1 for number in range(100))

    asyncio.run(main())


class Exit(Slow):
    """Ends the interpreter in an extraction, as far as it is let."""

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if any(tool.name == "write_extracted" for tool in request.tools):
            raise SystemExit(1)
        async for block in super().stream(request):
            yield block


def test_a_client_that_exits_the_interpreter_ends_nothing_but_the_job() -> None:
    async def main() -> None:
        manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")
        async with PodSystem() as system:
            pod = await system.spawn(manifest, client=Exit())
            await pod.run("1")
            with pod.subscribe(KINDS) as told:
                await pod.try_post_run_extract()
                assert names(told.drain()) == ["ExtractStart", "ExtractFailed"]
            assert (await pod.run("2")).text == "answer"

    asyncio.run(main())
