"""What little workers take counts as their pod's: in its usage, its cost and its budget, never in its occupancy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.entries import Head, StoredEntry
from protocol.errors import CompactionFailed, HeadConflict, ModelError, RunFailed
from protocol.events import (
    BudgetExceeded,
    CompactDone,
    CompactFailed,
    CompactStart,
    ConsolidateDone,
    ExtractDone,
    ExtractFailed,
    RunEnd,
    UsageUpdate,
)
from protocol.items import UserItem
from protocol.manifest import PodManifest
from protocol.usage import Usage

SUMMARY = [
    call("write_summary", {"text": "what was"}, input_tokens=300, output_tokens=30),
    say("done", input_tokens=340, output_tokens=4),
]
SUMMARY_USAGE = Usage(640, 34)
NOTES = [
    call("write_extracted", {}, input_tokens=200, output_tokens=20),
    say("done", input_tokens=230, output_tokens=2),
]
OVERFLOW = ModelError("too long", kind="context_overflow")


def play_script(replies: list[Any], play: Any, *, store: Any = "memory:", **settings: Any) -> None:
    async def main() -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(PodManifest.of(name="p", **settings), client=ScriptedClient(replies))
            with system.subscribe("p") as events:
                await asyncio.wait_for(play(pod, events, system), 60)

    asyncio.run(main())


def of_kind(events: Sequence[Any], *kinds: type) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


def test_a_compaction_by_hand_counts_for_the_pod_and_for_no_run() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        first = await pod.run("1")
        await pod.compact(retained_tokens=0)
        assert first.usage == Usage(10, 1)
        described = await pod.describe()
        assert described.usage == system.totals.usage == Usage(650, 35)
        assert described.occupancy < 100, "what the summariser was sent is not part of the history"
        (done,) = of_kind(events.drain(), CompactDone)
        assert done.usage == SUMMARY_USAGE

    play_script([say("a", input_tokens=10, output_tokens=1), *SUMMARY], play)


@pytest.mark.parametrize("when", ["compact_threshold", "compact_request_threshold"])
def test_a_compaction_within_a_run_belongs_to_the_runs_usage(when: str) -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        events.drain()
        result = await pod.run("2")
        seen = events.drain()
        assert result.usage == of_kind(seen, RunEnd)[0].usage == Usage(690, 36)
        assert [each.run_usage for each in of_kind(seen, UsageUpdate)] == [SUMMARY_USAGE, Usage(690, 36)]
        assert of_kind(seen, CompactDone)[0].run_id == result.run_id
        assert (await pod.describe()).usage == Usage(1690, 37)

    replies = [
        say("first", input_tokens=1000, output_tokens=1),
        *SUMMARY,
        say("second", input_tokens=50, output_tokens=2),
    ]
    play_script(replies, play, **{when: 100, "compact_retained_tokens": 0})


def test_a_failed_compactions_calls_count_too() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        with pytest.raises(CompactionFailed):
            await pod.compact()
        assert of_kind(events.drain(), CompactFailed)[0].usage == Usage(60, 6)
        assert (await pod.describe()).usage == Usage(70, 7)

    lazy = [say("", input_tokens=30, output_tokens=3)] * 2
    play_script([say("a", input_tokens=10, output_tokens=1), *lazy], play)


def test_an_extractions_calls_count_for_the_pod_and_not_for_the_run_beside_it() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        await pod.try_post_run_extract()
        assert of_kind(events.drain(), ExtractDone)[0].usage == Usage(430, 22)
        described = await pod.describe()
        assert described.usage == Usage(440, 23)
        assert described.occupancy < 100
        assert (await pod.run("2")).usage == Usage(20, 2)

    answers = [say("a", input_tokens=10, output_tokens=1), *NOTES, say("b", input_tokens=20, output_tokens=2)]
    play_script(answers, play, extract_threshold=1, schedule="manual")


def test_unknown_usage_of_workers_is_marked_and_never_nought() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        await pod.compact(retained_tokens=0)
        used = (await pod.describe()).usage
        assert (used.input_tokens, used.output_tokens, used.incomplete) == (10, 1, True)
        assert of_kind(events.drain(), CompactDone)[0].usage == Usage()

    unmeasured = [call("write_summary", {"text": "s"}), say("ok")]
    play_script([say("a", input_tokens=10, output_tokens=1), *unmeasured], play)


def test_what_workers_took_is_in_the_log_and_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'pods.db'}"
    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual", tokens=1_000_000)
    lazy = [say("", input_tokens=30, output_tokens=3)] * 2
    script = [say("a", input_tokens=10, output_tokens=1), *NOTES, *lazy, *SUMMARY, *NOTES]

    async def first() -> tuple[str, Usage]:
        async with PodSystem(url) as system:
            pod = await system.spawn(manifest, client=ScriptedClient(script))
            session = (await pod.run("1")).session_id
            await pod.try_post_run_extract()
            with pytest.raises(CompactionFailed):
                await pod.compact()
            await pod.compact(retained_tokens=0)
            await pod.try_post_run_extract()
            return session, (await pod.describe()).usage

    async def second(session: str, used: Usage) -> None:
        async with PodSystem(url) as system:
            pod = await system.spawn(manifest, client=ScriptedClient([]), resume=session)
            assert (
                (await pod.describe()).usage == used == Usage(10 + 430 + 60 + 640 + 430, 1 + 22 + 6 + 34 + 22)
            )

    asyncio.run(second(*asyncio.run(first())))


def test_a_run_ends_with_its_budget_where_its_compaction_would_break_that() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        result = await pod.run("2")
        assert (result.outcome, result.usage) == ("budget", Usage())
        seen = events.drain()
        names = [type(each).__name__ for each in of_kind(seen, CompactStart, CompactFailed, BudgetExceeded)]
        assert names == ["CompactStart", "CompactFailed", "BudgetExceeded"]
        assert "budget" in of_kind(seen, CompactFailed)[0].error
        assert (await pod.describe()).usage == Usage(1000, 1)

    play_script(
        [say("a", input_tokens=1000, output_tokens=1)], play, compact_request_threshold=100, tokens=1500
    )


def test_a_memory_job_that_would_break_the_budget_is_not_begun() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        await pod.try_post_run_extract()
        assert "budget" in of_kind(events.drain(), ExtractFailed)[0].error

    answer = say("a", input_tokens=90, output_tokens=1)
    play_script([answer], play, extract_threshold=1, schedule="manual", tokens=100)


def test_what_workers_took_is_gone_from_the_budget() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        await pod.compact(retained_tokens=0)
        assert (await pod.run("2")).outcome == "budget"
        (exceeded,) = of_kind(events.drain(), BudgetExceeded)
        assert exceeded.used == 685
        assert exceeded.used + exceeded.reserved > exceeded.limit

    play_script([say("a", input_tokens=10, output_tokens=1), *SUMMARY], play, tokens=6000, max_tokens=5400)


def test_a_request_that_was_refused_for_its_length_takes_nothing_of_the_budget() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.push_item(UserItem.of("x" * 400))
        for _ in range(5):  # at its estimate each would take 100 tokens and more
            with pytest.raises(RunFailed):
                await pod.run("y")
        assert of_kind(events.drain(), BudgetExceeded) == []

    once = [
        OVERFLOW,
        call("write_summary", {"text": "s"}, input_tokens=1),
        say("ok", input_tokens=1),
        OVERFLOW,
    ]
    play_script([*once, *[OVERFLOW, *once[1:3], OVERFLOW] * 4], play, tokens=6000)


def test_usage_is_in_the_history_at_once_so_that_a_run_is_measured_while_it_goes_on() -> None:
    """Usage that entered the history only at run end could not be seen by the checks within the run."""

    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        assert (await pod.run("1")).text == "done at last"
        (start,) = of_kind(events.drain(), CompactStart)
        assert (start.reason, start.occupancy > 1000) == ("request_threshold", True)

    script = [call("nonesuch", input_tokens=1000, output_tokens=1), *SUMMARY, say("done at last")]
    play_script(script, play, compact_request_threshold=900)


class TakenStore(MemoryStore):
    """Somebody else takes the session just when the answer is to be kept."""

    taken = False

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Future[None] | None:
        if not self.taken and any(b'"type":"AssistantMessage"' in entry.body for entry in batch):
            self.taken = True
            raise HeadConflict("taken")
        return super().append(session_id, after, batch)


def test_what_a_call_took_is_counted_once_in_the_branch_of_a_session_that_was_taken() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        session = (await pod.run("1")).session_id
        used = (await pod.describe()).usage
        await pod.stop()
        again = await system.spawn(PodManifest.of(name="q"), client=ScriptedClient([]), resume=session)
        assert (await again.describe()).usage == used == Usage(10, 1)

    play_script([say("a", input_tokens=10, output_tokens=1)], play, store=TakenStore())


def test_what_workers_took_is_the_same_after_the_pod_has_rested() -> None:
    async def play(pod: Pod, events: Any, system: PodSystem) -> None:
        await pod.run("1")
        await pod.try_post_run_extract()
        await pod.compact(retained_tokens=0)
        used = (await pod.describe()).usage
        assert await pod.passivate()
        await pod.history()
        assert (await pod.describe()).usage == used == Usage(10 + 430 + 640, 1 + 22 + 34)

    script = [say("a", input_tokens=10, output_tokens=1), *NOTES, *SUMMARY]
    play_script(script, play, extract_threshold=1, schedule="manual")


async def test_a_consolidations_calls_count_for_the_pod_and_outlive_a_rest(tmp_path: Path) -> None:
    found = {"decisions": [{"chosen": "Use tabs", "rationale": "taste"}]}
    note = {"kind": "decisions", "title": "Use tabs", "text": "- tabs"}
    script = [
        say("a", input_tokens=10, output_tokens=1),
        call("write_extracted", found, input_tokens=200, output_tokens=20),
        say("done", input_tokens=230, output_tokens=2),
        call("write_memory", note, input_tokens=400, output_tokens=40),
        say("done", input_tokens=450, output_tokens=4),
    ]
    settings = {"extract_threshold": 1, "consolidate_files": 1, "schedule": "manual"}

    async with PodSystem(memory=tmp_path) as system:
        pod = await system.spawn(PodManifest.of(name="p", **settings), client=ScriptedClient(script))
        await pod.run("tabs or spaces?")
        with pod.subscribe(ConsolidateDone) as events:
            await pod.spawn_memory_jobs()
            assert await pod.wait_for_memory_jobs(timeout=60)
            (done,) = events.drain()
        assert done.usage == Usage(850, 44)  # type: ignore[attr-defined]
        used = (await pod.describe()).usage
        assert used == Usage(10 + 430 + 850, 1 + 22 + 44)
        assert await pod.passivate()
        await pod.history()
        assert (await pod.describe()).usage == used
