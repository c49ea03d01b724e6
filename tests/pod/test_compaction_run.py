"""Compaction as a pod's users meet it: by command, by threshold, in mid-run, after an overflow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from compaction_stage import OVERFLOW, SUMMARY, of_compactions, play_script

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.sessions.chain import verified
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import CompactionFailed, RunFailed
from protocol.events import CompactDone, CompactFailed, CompactStart, SystemMessage
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem
from protocol.manifest import PodManifest
from protocol.scope import Scope


def test_a_compaction_opens_a_new_session_and_publishes_start_then_done() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        old = (await pod.describe()).session_id
        new = await pod.compact(retained_tokens=0)
        seen = events.drain()
        assert of_compactions(seen) == ["CompactStart", "CompactDone"]
        (done,) = [e for e in seen if isinstance(e, CompactDone)]
        assert done.new_session_id == new == (await pod.describe()).session_id != old
        introduced = [e.item.text for e in seen if isinstance(e, SystemMessage)]
        assert introduced[0].startswith("[Compacted context summary]\nwhat was")
        assert introduced[1].startswith("[Session TaskStore snapshot]")
        assert len(introduced) == 2
        parent = system.store.info(new).parent
        assert (parent.kind, parent.session_id) == ("compacted_from", old)
        verified(new, system.store.read(new))
        assert [e.seq for e in seen if e.durable] == sorted({e.seq for e in seen if e.durable})

    play_script([say("a"), *SUMMARY], play)


def test_retained_items_stay_and_are_not_reported_again() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.push_item(SystemItem.of("a rule"))
        await pod.run("1")
        events.drain()
        await pod.compact(retained_tokens=8000)
        texts = [e.item.text for e in events.drain() if isinstance(e, SystemMessage)]
        assert "a rule" not in texts
        assert [i.text for i in await pod.history()][1:-1] == ["a rule", "1", "a"]

    play_script([say("a"), *SUMMARY], play)


def test_a_summariser_that_writes_nothing_fails_the_compaction_and_leaves_the_session() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        before = await pod.describe()
        with pytest.raises(CompactionFailed, match=r"write_summary was never called"):
            await pod.compact()
        seen = events.drain()
        assert of_compactions(seen) == ["CompactStart", "CompactFailed"]
        assert "write_summary was never called" in next(e for e in seen if isinstance(e, CompactFailed)).error
        assert (await pod.describe()).session_id == before.session_id
        assert [i.text for i in await pod.history()] == ["1", "a"]

    play_script([say("a"), say(""), say(" ")], play)


def test_an_empty_history_has_nothing_to_compact() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        with pytest.raises(CompactionFailed, match="nothing to compact"):
            await pod.compact()
        assert await pod.try_pre_run_compact() is None
        assert of_compactions(events.drain()) == []

    play_script([], play, compact_threshold=1)


def test_before_a_run_the_threshold_fires_without_any_measured_usage() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("a first long enough question")
        assert await pod.try_pre_run_compact() is None
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]

    play_script([say("an answer"), *SUMMARY], play, compact_threshold=5)


def test_a_failing_compaction_before_a_run_does_not_fail_the_run() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("a first long enough question")
        assert (await pod.run("2")).text == "b"
        assert of_compactions(events.drain()) == ["CompactStart", "CompactFailed"]

    play_script([say("an answer"), ValueError("no summariser"), say("b")], play, compact_threshold=5)


def test_in_mid_run_the_request_waits_for_the_compaction_and_is_sent_once() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        result = await pod.run("2")
        assert (result.text, result.outcome) == ("second", "finished")
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]
        assert len(client.requests) == 4
        items = list(client.requests[-1].items)
        assert items[0].text.startswith("[Compacted context summary]")
        assert any(isinstance(item, UserItem) and item.text == "2" for item in items)

    replies: list[Reply] = [say("first", input_tokens=1000, output_tokens=5), *SUMMARY, say("second")]
    play_script(replies, play, compact_request_threshold=100, compact_retained_tokens=0)


def test_unset_and_zero_thresholds_never_fire() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        await pod.try_pre_run_compact()
        await pod.run("2")
        assert of_compactions(events.drain()) == []

    for settings in ({}, {"compact_threshold": 0, "compact_request_threshold": 0}):
        play_script([say("a", input_tokens=10**6), say("b")], play, **settings)


def test_an_overflow_is_answered_by_one_compaction_and_the_same_request() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        assert (await pod.run("2")).text == "b"
        seen = events.drain()
        assert of_compactions(seen) == ["CompactStart", "CompactDone"]
        assert [e.reason for e in seen if isinstance(e, CompactStart)] == ["overflow"]

    play_script([say("a"), OVERFLOW, *SUMMARY, say("b")], play)


def test_a_second_overflow_of_the_same_request_ends_the_run() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        with pytest.raises(RunFailed) as caught:
            await pod.run("2")
        assert caught.value.failure.details["kind"] == "context_overflow"

    play_script([say("a"), OVERFLOW, *SUMMARY, OVERFLOW], play)


async def test_a_summariser_that_overflows_at_every_size_gives_way_to_an_extractive_summary() -> None:
    class Full:
        model = "full"

        def __init__(self) -> None:
            self.asked = 0

        async def stream(self, request: Any) -> Any:
            self.asked += 1
            if request.tools:
                raise OVERFLOW
            async for block in say("noted").stream():
                yield block

    client = Full()
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=client)
        with system.subscribe("p") as events:
            await pod.run("remember the number 4711")
            await pod.compact(retained_tokens=0)
            assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]
        assert "4711" in " ".join(item.text for item in await pod.history())


async def test_cancelling_a_compaction_publishes_that_it_failed() -> None:
    class Hanging:
        model = "hanging"

        def __init__(self) -> None:
            self.reached = asyncio.Event()

        async def stream(self, request: Any) -> Any:
            if request.tools:
                self.reached.set()
                await asyncio.Event().wait()
            async for block in say("an answer of some words").stream():
                yield block

    client = Hanging()
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p", compact_threshold=1), client=client)
        await pod.run("1")
        with system.subscribe("p") as events:
            run = pod.run("2")
            await client.reached.wait()
            await pod.cancel()
            assert (await run).outcome == "cancelled"
            assert of_compactions(events.drain()) == ["CompactStart", "CompactFailed"]


def test_resume_follows_compactions_to_the_tip_unless_exactly_that_session_is_meant() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        old = (await pod.describe()).session_id
        await pod.compact(retained_tokens=0)
        middle = (await pod.describe()).session_id
        new = await pod.compact(retained_tokens=0)
        assert middle != new
        await pod.stop()
        tip = await system.spawn(PodManifest.of(name="t"), client=client, resume=old)
        exact = await system.spawn(PodManifest.of(name="e"), client=client, resume=old, exact=True)
        assert (await tip.describe()).session_id == new
        assert (await exact.describe()).session_id == old
        assert isinstance((await exact.history())[1], AssistantItem)

    play_script([say("a"), *SUMMARY, *SUMMARY], play)


def test_three_failures_open_the_breaker_and_a_manual_success_closes_it() -> None:
    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("a first question of some words")
        for _ in range(4):
            await pod.try_pre_run_compact()
        assert of_compactions(events.drain()) == ["CompactStart", "CompactFailed"] * 3
        await pod.compact(retained_tokens=0)
        await pod.run("another question of some words")
        await pod.try_pre_run_compact()
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"] * 2

    failures = [ValueError("no")] * 3
    play_script([say("a"), *failures, *SUMMARY, say("b"), *SUMMARY], play, compact_threshold=5)


async def test_a_session_compacted_in_mid_run_and_killed_restores_as_that_run_paused() -> None:
    replies = [say("first", input_tokens=1000), *SUMMARY]
    async with PodSystem() as system:
        manifest = PodManifest.of(name="p", compact_request_threshold=100, compact_retained_tokens=0)
        pod = await system.spawn(manifest, client=ScriptedClient(replies))
        await pod.run("1")
        with pytest.raises(RunFailed):
            await pod.run("2")  # the script ends where the request would have been sent
        entries = system.store.read((await pod.describe()).session_id)
        cut = [e for e in entries if b'"type":"RunEnd"' not in e.body]
        assert replay(cut).open_run is not None


def test_a_file_that_a_summariser_marks_twice_is_at_hand_once(tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("the whole plan")

    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        await pod.run("1")
        await pod.compact(retained_tokens=0)
        required = [item.text for item in await pod.history() if item.text.startswith("[Required file]")]
        assert required == ["[Required file] plan.txt\nthe whole plan"]

    mark = call("mark_read_required", {"path": "plan.txt"})
    scope = Scope.writable(str(tmp_path))
    play_script([say("a"), mark, mark, *SUMMARY], play, pwd=str(tmp_path), scope=scope)


@pytest.mark.parametrize("asks", ["compact", "try_pre_run_compact"])
def test_a_compaction_that_is_asked_for_in_mid_run_leaves_the_model_the_results_it_has_not_seen(
    asks: str,
) -> None:
    reached, seen = asyncio.Event(), asyncio.Event()

    @tool
    async def look() -> str:
        reached.set()
        await seen.wait()
        return "it says 4711 " * 50

    async def play(pod: Any, events: Any, client: Any, system: Any) -> None:
        run = pod.run("what do you see?")
        await reached.wait()
        compacted = getattr(pod, asks)()
        await pod.describe()
        seen.set()
        await compacted
        assert (await run).text == "4711"
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]
        results = [item.text for item in client.requests[-1].items if isinstance(item, ToolResult)]
        assert results == ["it says 4711 " * 50]

    script = [call("look"), *SUMMARY, say("4711")]
    play_script(script, play, tools=[look], compact_threshold=5, compact_retained_tokens=0)
