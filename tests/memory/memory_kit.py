"""What the tests of lasting memory share: staged files, and the calls of a worker that keeps notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.findings import Decision, Extracted
from actors.memory.notes import Note, render
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import Staged, stage
from actors.sessions.chain import verified
from actors.system import PodSystem
from protocol.events import Alert, ConsolidateDone, ConsolidateFailed, ConsolidateStart, Event
from protocol.manifest import PodManifest


def memory_in(folder: Path) -> NotesFolder:
    return NotesFolder(folder / "memory")


def put(
    memory: NotesFolder, chosen: str = "Use tabs", session: str = "s1", start: int = 0, end: int = 2
) -> Path:
    """A staged file that says so."""
    return stage(memory.staging, Staged(session, start, end, Extracted((Decision(chosen, (), "it works"),))))


def put_note(memory: NotesFolder, title: str, body: str, kind: Any = "knowledge") -> Path:
    note = Note(kind, title, body, "2026-01-01", "2026-01-01")
    path = memory.folder / note.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(note))
    return path


def wrote(title: str = "Use tabs", text: str = "- tabs", kind: str = "decisions") -> list[Any]:
    return [call("write_memory", {"kind": kind, "title": title, "text": text}), say("done")]


def staged(memory: NotesFolder) -> list[str]:
    return sorted(path.name for path in memory.staging.glob("*.json"))


def all_notes(memory: NotesFolder) -> dict[str, str]:
    return {path: note.body for path, note in memory.notes().items()}


KINDS = [ConsolidateStart, ConsolidateDone, ConsolidateFailed, Alert]


def played(
    folder: Path, client: Any, play: Callable[..., Any], *, grace: float = 5.0, **settings: Any
) -> list[Event]:
    """A pod over the memory of ``folder`` is played with; what was reported of consolidations."""
    manifest = PodManifest.of(name="p", **{"consolidate_files": 1, "schedule": "manual", **settings})
    client = ScriptedClient(client) if isinstance(client, list) else client

    async def main() -> list[Event]:
        async with PodSystem(memory=folder, memory_grace=grace) as system:
            pod = await system.spawn(manifest, client=client)
            with system.subscribe("p", KINDS) as events:
                await asyncio.wait_for(play(pod), 60)
                session = (await pod.describe()).session_id
                await pod.stop()
                verified(session, system.store.read(session))
                return events.drain()

    return asyncio.run(main())


async def spawn_jobs(pod: Any) -> None:
    await pod.spawn_memory_jobs()
    assert await pod.wait_for_memory_jobs(timeout=60) is True


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]
