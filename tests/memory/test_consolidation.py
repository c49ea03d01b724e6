"""Memory's second phase as a pod has it done: detached, reported, and never the worse for a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from memory_kit import KINDS, all_notes, memory_in, names, played, put, put_note, spawn_jobs, staged, wrote

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.ledger import Ledger, read_ledger
from actors.memory.notes_folder import NotesFolder
from actors.system import PodSystem
from protocol.events import Alert, ConsolidateDone, ConsolidateFailed, ConsolidateStart, Event
from protocol.manifest import PodManifest


@pytest.fixture
def memory(tmp_path: Path) -> NotesFolder:
    return memory_in(tmp_path)


FOUND = {
    "decisions": [{"chosen": "Use tabs", "rationale": "taste"}],
    "discussions": [],
    "attempts": [],
    "requests": [],
}


def test_after_a_run_what_was_extracted_is_worked_into_notes(memory: NotesFolder) -> None:
    replies = [say("yes"), call("write_extracted", FOUND), say("done"), *wrote()]

    async def play(pod: Any) -> None:
        await pod.run("tabs or spaces?")
        assert await pod.wait_for_memory_jobs(timeout=60) is True

    reported = played(memory.folder, replies, play, schedule="after_run", extract_threshold=1)
    start, done = reported
    assert isinstance(start, ConsolidateStart)
    assert start.files == 1
    assert start.size > 0
    assert done == ConsolidateDone(**{**_plain(done), "files": 1, "notes": 1, "mechanical": False})
    assert all_notes(memory) == {"decisions/use-tabs.md": "- tabs"}
    assert staged(memory) == []
    note = memory.notes()["decisions/use-tabs.md"]
    assert note.sources[0].endswith(":0-2")
    assert not (memory.machinery / "lease.json").exists()


def _plain(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_below_the_thresholds_and_at_zero_nothing_is_asked_or_reported(memory: NotesFolder) -> None:
    put(memory)
    assert played(memory.folder, [], spawn_jobs, consolidate_files=2) == []
    assert played(memory.folder, [], spawn_jobs, consolidate_files=0) == []
    assert len(staged(memory)) == 1


def test_the_worker_is_given_what_was_found_and_which_notes_there_are(memory: NotesFolder) -> None:
    put_note(memory, "Build times", "- slow")
    put(memory, "Use tabs")
    client = ScriptedClient(wrote())
    played(memory.folder, client, spawn_jobs)
    asked = client.requests[0].items[0].text
    assert "[decisions] Use tabs" in asked
    assert "- knowledge/build-times.md: Build times" in asked
    tools = {spec.name for spec in client.requests[0].tools}
    assert tools == {"write_memory", "replace_memory", "delete_memory", "read_memory", "search_memory"}


def test_what_the_linter_refuses_goes_back_to_the_worker(memory: NotesFolder) -> None:
    put(memory)
    client = ScriptedClient(
        [
            call("write_memory", {"kind": "poem", "title": "x", "text": "y"}),
            call("write_memory", {"kind": "summary", "title": "", "text": "y"}),
            call("replace_memory", {"path": "../../etc/passwd", "text": "y"}),
            call("delete_memory", {"path": "knowledge/build.md", "merged_into": "knowledge/build.md"}),
            *wrote(),
        ]
    )
    put_note(memory, "Build", "- slow")
    assert names(played(memory.folder, client, spawn_jobs)) == ["ConsolidateStart", "ConsolidateDone"]
    results = [item for item in client.requests[-1].items if hasattr(item, "is_error")]
    assert [result.is_error for result in results] == [True, True, True, True, False]
    assert "invalid arguments for write_memory" in results[0].text
    assert "there is no note '../../etc/passwd'" in results[2].text
    assert sorted(all_notes(memory)) == ["decisions/use-tabs.md", "knowledge/build.md"]


def test_the_worker_reads_searches_replaces_and_merges_notes(memory: NotesFolder) -> None:
    put_note(memory, "Build", "- slow")
    put_note(memory, "Linker", "- it is the linker")
    put(memory)
    client = ScriptedClient(
        [
            call("search_memory", {"query": "linker"}),
            call("read_memory", {"path": "knowledge/linker.md"}),
            call("replace_memory", {"path": "knowledge/build.md", "text": "- slow: the linker"}),
            call("delete_memory", {"path": "knowledge/linker.md", "merged_into": "knowledge/build.md"}),
            say("done"),
        ]
    )
    _, done = played(memory.folder, client, spawn_jobs)
    assert isinstance(done, ConsolidateDone)
    assert (done.notes, done.left) == (3, 1)  # what was found had come into no note
    assert all_notes(memory) == {
        "decisions/use-tabs.md": "- Use tabs\n  Why: it works",
        "knowledge/build.md": "- slow: the linker",
    }
    results = [item.text for item in client.requests[-1].items if hasattr(item, "is_error")]
    assert results[0] == "- knowledge/linker.md: Linker"
    assert "- it is the linker" in results[1]


def test_a_worker_that_writes_nothing_deletes_nothing(memory: NotesFolder) -> None:
    put(memory)
    before = staged(memory)
    _, failed = played(memory.folder, [say("nothing to do")], spawn_jobs)
    assert isinstance(failed, ConsolidateFailed)
    assert "wrote no notes" in failed.error
    assert staged(memory) == before


@pytest.mark.parametrize("when", ["at once", "after it has written"])
def test_a_worker_that_fails_changes_nothing_and_keeps_all(memory: NotesFolder, when: str) -> None:
    put(memory)
    before = staged(memory)
    replies: list[Any] = [ValueError("no")] if when == "at once" else [wrote()[0], ValueError("no")]
    _, failed = played(memory.folder, replies, spawn_jobs)
    assert isinstance(failed, ConsolidateFailed)
    assert staged(memory) == before
    assert all_notes(memory) == {}
    assert read_ledger(memory).attempts == 1


def test_a_failing_model_does_not_keep_memory_from_being_consolidated(memory: NotesFolder) -> None:
    put(memory, "Use tabs")

    async def again_and_again(pod: Any) -> None:
        for _ in range(5):
            await spawn_jobs(pod)

    reported = played(memory.folder, [ValueError("no")] * 3, again_and_again)
    assert names(reported) == ["ConsolidateStart", "ConsolidateFailed"] * 3 + [
        "ConsolidateStart",
        "ConsolidateDone",
    ]
    done = reported[-1]
    assert isinstance(done, ConsolidateDone)
    assert done.mechanical
    assert all_notes(memory) == {"decisions/use-tabs.md": "- Use tabs\n  Why: it works"}
    assert read_ledger(memory) == Ledger()


def test_a_consolidation_goes_on_until_nothing_is_due_and_then_ends(memory: NotesFolder) -> None:
    for number in range(4):
        put(memory, f"{number} " + "x" * 600, start=number)
    replies = [reply for number in range(4) for reply in wrote(f"n{number}", f"- {number} " + "x" * 600)]
    reported = played(memory.folder, _Unending(replies), spawn_jobs, context_window=600)
    assert names(reported) == ["ConsolidateStart", "ConsolidateDone"] * 4
    assert staged(memory) == []
    assert len(all_notes(memory)) == 4


class _Unending(ScriptedClient):
    """A script of which replies may be left."""

    def check(self) -> None:
        """Whatever is left is fine."""


def test_a_damaged_staged_file_is_reported_once_and_does_not_stand_in_the_way(memory: NotesFolder) -> None:
    put(memory)
    (memory.staging / "0.json").write_text("{}")
    reported = played(memory.folder, wrote(), spawn_jobs)
    assert names(reported) == ["ConsolidateStart", "Alert", "ConsolidateDone"]
    assert staged(memory) == []
    assert played(memory.folder, [], spawn_jobs) == []


def test_a_folder_that_cannot_be_used_is_an_alert_and_no_more(memory: NotesFolder) -> None:
    put(memory)
    memory.machinery.write_text("a file in the way")

    async def play(pod: Any) -> None:
        await spawn_jobs(pod)
        assert (await pod.run("go")).text == "fine"

    (alert,) = played(memory.folder, [say("fine")], play)
    assert isinstance(alert, Alert)
    assert alert.text == "memory could not be consolidated"


class Stuck:
    """Answers runs, and never a consolidation."""

    model = "stuck"

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if request.tools:
            self.asked.set()
            await asyncio.Event().wait()
        async for block in say("answer").stream():
            yield block


def left_stuck(memory: NotesFolder) -> list[Event]:
    """What was reported of a consolidation that never ends, and of its pod's stop."""
    put(memory)
    client = Stuck()

    async def play(pod: Any) -> None:
        await pod.spawn_memory_jobs()
        await client.asked.wait()
        assert (await pod.run("go")).text == "answer"
        assert await pod.wait_for_memory_jobs(timeout=0.01) is False

    return played(memory.folder, client, play, grace=0.05)


class Ending:
    """Answers runs, and would end the interpreter, or what runs, in a consolidation."""

    model = "ending"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if request.tools:
            raise self._error
        async for block in say("answer").stream():
            yield block


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_a_client_that_would_end_the_interpreter_ends_nothing_but_the_consolidation(
    memory: NotesFolder, error: BaseException
) -> None:
    async def play(pod: Any) -> None:
        await spawn_jobs(pod)
        assert (await pod.run("go")).text == "answer"

    put(memory)
    reported = played(memory.folder, Ending(error), play)
    assert names(reported) == ["ConsolidateStart", "ConsolidateFailed"]
    assert isinstance(reported[-1], ConsolidateFailed)
    assert "its client" in reported[-1].error
    assert len(staged(memory)) == 1


def test_runs_go_on_while_memory_is_consolidated_and_waiting_is_bounded(memory: NotesFolder) -> None:
    reported = left_stuck(memory)
    assert names(reported) == ["ConsolidateStart", "ConsolidateFailed"]
    assert len(staged(memory)) == 1


def test_a_pod_keeps_its_history_while_memory_is_consolidated(memory: NotesFolder) -> None:
    put(memory)
    client = Stuck()

    async def play(pod: Any) -> None:
        assert await pod.passivate() is True
        await pod.spawn_memory_jobs()
        await client.asked.wait()
        assert await pod.passivate() is False

    assert names(played(memory.folder, client, play, grace=0.05)) == ["ConsolidateStart", "ConsolidateFailed"]


def test_a_pod_that_stopped_lets_another_consolidate(memory: NotesFolder) -> None:
    left_stuck(memory)
    assert names(played(memory.folder, wrote(), spawn_jobs)) == ["ConsolidateStart", "ConsolidateDone"]


def test_of_many_pods_with_one_memory_exactly_one_consolidates(memory: NotesFolder) -> None:
    put(memory)
    replies = wrote()

    async def main() -> list[Event]:
        manifest = PodManifest.of(name="p", consolidate_files=1, schedule="manual")
        client = ScriptedClient(replies)
        async with PodSystem(memory=memory.folder) as system:
            pods = [await system.spawn(manifest, client=client) for _ in range(8)]
            with system.subscribe(kinds=KINDS) as events:
                await asyncio.gather(*(pod.spawn_memory_jobs() for pod in pods))
                await asyncio.gather(*(pod.wait_for_memory_jobs(timeout=60) for pod in pods))
                return events.drain()

    assert names(asyncio.run(main())) == ["ConsolidateStart", "ConsolidateDone"]


def test_what_people_write_while_a_note_is_worked_on_is_kept(memory: NotesFolder) -> None:
    path = put_note(memory, "Use tabs", "- tabs", kind="decisions")
    put(memory)

    class Edited(ScriptedClient):
        def stream(self, request: Request) -> AsyncIterator[Block]:
            if len(request.items) == 1:
                path.write_text(path.read_text().replace("- tabs", "- tabs\n- by hand"))
            return super().stream(request)

    played(memory.folder, Edited(wrote(text="- by model")), spawn_jobs)
    assert all_notes(memory) == {"decisions/use-tabs.md": "- tabs\n- by hand\n- by model"}
