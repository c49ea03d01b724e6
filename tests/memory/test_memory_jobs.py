"""Memory's first phase: detached actors that share the pod's head, and a pointer that is never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.chain import verified
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict
from protocol.events import ExtractDone, ExtractFailed, ExtractStart, RunEnd
from protocol.items import UserItem
from protocol.manifest import PodManifest

NOTHING = {"decisions": [], "discussions": [], "attempts": [], "requests": []}
FOUND = {**NOTHING, "decisions": [{"chosen": "SQLite", "rationale": "key sk-abcdefghijklmnopqrstuvwx1234"}]}


def extracted(payload: dict[str, Any]) -> list[Any]:
    return [call("write_extracted", payload), say("done")]


def play_script(replies: list[Any], play: Any, memory: Path | None = None, **settings: Any) -> None:
    settings = {"extract_threshold": 1, "schedule": "manual", **settings}

    async def main() -> None:
        client = ScriptedClient(replies)
        async with PodSystem(memory=memory) as system:
            pod = await system.spawn(PodManifest.of(name="p", **settings), client=client)
            with system.subscribe("p", [ExtractStart, ExtractDone, ExtractFailed]) as events:
                await asyncio.wait_for(play(pod, events, system), 60)

    asyncio.run(main())


def kinds(events: Any) -> list[str]:
    return [type(event).__name__ for event in events.drain()]


def test_an_empty_payload_advances_the_pointer_too() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        assert (await pod.describe()).extract_pointer is None
        assert await pod.try_post_run_extract() is None
        assert (await pod.describe()).extract_pointer == 2
        assert kinds(events) == ["ExtractStart", "ExtractDone"]

    play_script([say("a"), *extracted(NOTHING)], play)


def test_a_worker_that_calls_no_tool_has_found_nothing() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        await pod.try_post_run_extract()
        assert (await pod.describe()).extract_pointer == 2

    play_script([say("a"), say("nothing of note")], play)


def test_what_is_found_is_staged_with_its_source_and_without_secrets(tmp_path: Path) -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        assert await pod.wait_for_memory_jobs(timeout=60) is True
        (file,) = (tmp_path / "staging").iterdir()
        text = file.read_text()
        assert "SQLite" in text
        assert "sk-abcdefg" not in text
        assert (await pod.describe()).session_id in text
        assert file.stat().st_mode & 0o077 == 0

    play_script([say("a"), *extracted(FOUND)], play, memory=tmp_path)


@pytest.mark.parametrize("threshold", [0, None])
def test_a_threshold_that_is_off_keeps_memory_silent(threshold: int | None) -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await pod.try_post_run_extract()
        assert await pod.wait_for_memory_jobs() is True
        assert (await pod.describe()).extract_pointer is None
        assert kinds(events) == []

    settings = {} if threshold is None else {"extract_threshold": threshold}
    play_script([say("a")], play, **({"extract_threshold": 0} | settings))


def test_after_a_run_memory_is_read_by_itself() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        assert await pod.wait_for_memory_jobs(timeout=60) is True
        assert (await pod.describe()).extract_pointer == 2

    play_script([say("a"), *extracted(NOTHING)], play, schedule="after_run")


def test_a_background_extraction_does_not_fork_the_session() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        session = (await pod.describe()).session_id
        await pod.spawn_memory_jobs()
        await pod.wait_for_memory_jobs(timeout=60)
        await pod.run("2")
        assert (await pod.describe()).session_id == session
        verified(session, system.store.read(session))

    play_script([say("a"), *extracted(NOTHING), say("b")], play)


def test_compaction_resets_the_pointer() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        await pod.try_post_run_extract()
        await pod.compact(retained_tokens=0)
        assert (await pod.describe()).extract_pointer is None

    play_script([say("a"), *extracted(NOTHING), call("write_summary", {"text": "s"}), say("ok")], play)


def test_a_failing_extraction_is_reported_and_leaves_the_pointer() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        await pod.run("1")
        assert await pod.try_post_run_extract() is None
        assert (await pod.describe()).extract_pointer is None
        assert kinds(events) == ["ExtractStart", "ExtractFailed"]

    play_script([say("a"), ValueError("no")], play)


def test_after_failures_automatic_extractions_are_left_out_for_a_while() -> None:
    async def play(pod: Any, events: Any, system: Any) -> None:
        for words in ("1", "2", "3"):
            await pod.run(words)
            await pod.wait_for_memory_jobs(timeout=60)
        assert kinds(events) == ["ExtractStart", "ExtractFailed", "ExtractStart", "ExtractDone"]

    replies = [say("a"), ValueError("no"), say("b"), say("c"), *extracted(NOTHING)]
    play_script(replies, play, schedule="after_run")


class Gated:
    """Answers runs at once and extractions only when asked to."""

    model = "gated"

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.gate = asyncio.Semaphore(0)

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if request.tools:
            self.asked.release()
            await self.gate.acquire()
            if any(tool.name == "write_summary" for tool in request.tools):
                reply = call("write_summary", {"text": "s"}, id=str(len(request.items)))
                reply = reply if len(request.items) == 1 else say("done")
            else:
                reply = say("nothing")
        else:
            reply = say("answer")
        async for block in reply.stream():
            yield block


def play_gated(play: Any) -> None:
    async def main() -> None:
        client = Gated()
        manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")
        async with PodSystem() as system:
            pod = await system.spawn(manifest, client=client)
            with system.subscribe("p", [ExtractStart, ExtractDone, ExtractFailed]) as events:
                await asyncio.wait_for(play(pod, events, client), 60)

    asyncio.run(main())


def test_a_trigger_during_a_job_has_the_newest_read_once_it_has_ended() -> None:
    async def play(pod: Any, events: Any, client: Gated) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        await pod.run("2")
        await pod.spawn_memory_jobs()
        client.gate.release()
        client.gate.release()
        assert await pod.wait_for_memory_jobs(timeout=60) is True
        assert (await pod.describe()).extract_pointer == 4

    play_gated(play)


def test_waiting_is_bounded_and_says_so() -> None:
    async def play(pod: Any, events: Any, client: Gated) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        assert await pod.wait_for_memory_jobs(timeout=0.01) is False
        client.gate.release()
        assert await pod.wait_for_memory_jobs(timeout=60) is True

    play_gated(play)


def test_a_compaction_waits_for_the_job_that_reads_what_it_will_fold() -> None:
    async def play(pod: Any, events: Any, client: Gated) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        compacting = pod.compact(retained_tokens=0)
        for _ in range(3):
            client.gate.release()
        await compacting
        assert kinds(events) == ["ExtractStart", "ExtractDone"]
        assert (await pod.describe()).extract_pointer is None

    play_gated(play)


def test_a_stop_waits_for_the_job_and_keeps_its_pointer() -> None:
    async def play(pod: Any, events: Any, client: Gated) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        stopping = pod.stop()
        client.gate.release()
        assert await stopping is True
        assert kinds(events) == ["ExtractStart", "ExtractDone"]

    play_gated(play)


def test_a_pointer_outlives_its_process(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'pods.db'}"
    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")

    async def first() -> str:
        async with PodSystem(url) as system:
            pod = await system.spawn(manifest, client=ScriptedClient([say("a"), *extracted(NOTHING)]))
            await pod.run("1")
            await pod.try_post_run_extract()
            return (await pod.describe()).session_id

    async def second(session: str) -> None:
        async with PodSystem(url) as system:
            pod = await system.spawn(manifest, client=ScriptedClient([]), resume=session)
            assert (await pod.describe()).extract_pointer == 2
            await pod.push_item(UserItem.of("more"))
            assert (await pod.describe()).extract_pointer == 2

    asyncio.run(second(asyncio.run(first())))


async def test_a_pointer_goes_along_into_the_branch_of_a_session_that_was_taken_as_the_job_ended() -> None:
    class TakenStore(MemoryStore):
        taken = False

        def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
            if not self.taken and any(b'"type":"ExtractDone"' in entry.body for entry in batch):
                self.taken = True
                raise HeadConflict("taken")
            return super().append(session_id, after, batch)

    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")
    async with PodSystem(TakenStore()) as system:
        pod = await system.spawn(manifest, client=ScriptedClient([say("a"), *extracted(FOUND)]))
        before = (await pod.run("1")).session_id
        await pod.try_post_run_extract()
        await pod.try_post_run_extract()  # nothing is left to read
        found = await pod.describe()
        assert found.session_id != before
        assert found.extract_pointer == 2


def test_runs_go_on_while_memory_is_read() -> None:
    async def play(pod: Any, events: Any, client: Gated) -> None:
        await pod.run("1")
        await pod.spawn_memory_jobs()
        await client.asked.acquire()
        with pod.subscribe(RunEnd) as ends:
            assert (await pod.run("2")).text == "answer"
            assert len(ends.drain()) == 1
        for _ in range(2):  # what the second run added is read as well
            client.gate.release()
        await pod.wait_for_memory_jobs(timeout=60)
        assert (await pod.describe()).extract_pointer == 4

    play_gated(play)
