"""Consolidation and real processes: killed in the middle of it, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from memory_kit import all_notes, memory_in, names, played, put, put_note, spawn_jobs, staged, wrote
from warm import Popen

from actors.memory.ledger import Ledger, read_ledger
from actors.memory.notes_folder import NotesFolder
from protocol.events import ConsolidateDone

#: A process that consolidates, says so at one point of it, and goes on when it is asked to.
CHILD = """
    import asyncio, sys
    from pathlib import Path
    from actors.llm.scripted import ScriptedClient, call, say
    from actors.memory import ledger
    from actors.memory.notes_folder import NotesFolder
    from actors.system import PodSystem
    from protocol.manifest import PodManifest

    folder, where = Path(sys.argv[1]), sys.argv[2]

    def reached(point):
        if point == where:
            print(point, flush=True)
            sys.stdin.readline()

    class Client(ScriptedClient):
        async def stream(self, request):
            reached("asked")
            async for block in super().stream(request):
                yield block

    make, deleted = NotesFolder.make, ledger._delete

    def made(memory, change):
        reached("ledger written")
        make(memory, change)
        reached("one note made")

    def deleting(memory, staged):
        reached("notes made")
        return deleted(memory, staged)

    NotesFolder.make, ledger._delete = made, deleting

    async def main():
        first = call("write_memory", {"kind": "decisions", "title": "One", "text": "- one"}, id="a")
        second = call("write_memory", {"kind": "decisions", "title": "Two", "text": "- two"}, id="b")
        manifest = PodManifest.of(name="child", consolidate_files=1, schedule="manual")
        async with PodSystem(memory=folder) as system:
            pod = await system.spawn(manifest, client=Client([first + second, say("done")]))
            await pod.spawn_memory_jobs()
            await pod.wait_for_memory_jobs()

    asyncio.run(main())
"""


@pytest.fixture
def memory(tmp_path: Path) -> NotesFolder:
    return memory_in(tmp_path)


class Child:
    """Such a process, at the point where it waits."""

    def __init__(self, memory: NotesFolder, where: str) -> None:
        self.process = Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(memory.folder), where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == where

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def finish(self) -> None:
        self.process.communicate("\n" * 9, timeout=60)
        assert self.process.returncode == 0


def test_killed_while_the_model_is_asked_nothing_is_lost(memory: NotesFolder) -> None:
    put(memory)
    Child(memory, "asked").kill()
    assert len(staged(memory)) == 1
    assert all_notes(memory) == {}
    reported = played(memory.folder, wrote(), spawn_jobs)
    assert names(reported) == ["ConsolidateStart", "ConsolidateDone"]
    assert all_notes(memory) == {"decisions/use-tabs.md": "- tabs"}


@pytest.mark.parametrize("where", ["ledger written", "one note made", "notes made"])
def test_killed_while_it_is_written_nothing_is_lost_and_nothing_doubled(
    memory: NotesFolder, where: str
) -> None:
    put(memory, "one and two")
    put_note(memory, "One", "- zero", kind="decisions")
    Child(memory, where).kill()
    late = put(memory, "Use tabs", start=2)
    (done,) = [
        event for event in played(memory.folder, wrote(), spawn_jobs) if isinstance(event, ConsolidateDone)
    ]
    assert done.files == 1, "what the killed process consumed was given to a model again"
    assert all_notes(memory) == {
        "decisions/one.md": "- zero\n- one",
        "decisions/two.md": "- two",
        "decisions/use-tabs.md": "- tabs",
    }
    assert not late.exists()
    assert staged(memory) == []
    assert read_ledger(memory) == Ledger()
    assert not list(memory.folder.rglob("*.part"))


def test_of_two_processes_with_one_memory_exactly_one_consolidates(memory: NotesFolder) -> None:
    put(memory, "one and two")
    child = Child(memory, "asked")
    lease = (memory.machinery / "lease.json").read_text()
    assert f'"pid":{child.process.pid}' in lease
    assert '"pod":"child"' in lease
    assert staged(memory)[0].removesuffix(".json") in lease
    assert played(memory.folder, [], spawn_jobs) == []
    child.finish()
    assert sorted(all_notes(memory)) == ["decisions/one.md", "decisions/two.md"]
    assert staged(memory) == []
    assert played(memory.folder, [], spawn_jobs) == []
