"""What the tests of lasting memory share: staged files, and the calls of a worker that keeps notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.compaction.extract import Decision, Extracted
from actors.compaction.notes import Note, render
from actors.llm.scripted import call, say
from actors.pod.lasting import LastingMemory
from actors.pod.staging import Staged, stage


def memory_in(folder: Path) -> LastingMemory:
    return LastingMemory(folder / "memory")


def put(memory: LastingMemory, chosen: str = "Use tabs", session: str = "s1", start: int = 0, end: int = 2) -> Path:
    """A staged file that says so."""
    return stage(memory.staging, Staged(session, start, end, Extracted((Decision(chosen, (), "it works"),))))


def put_note(memory: LastingMemory, title: str, body: str, kind: Any = "knowledge") -> Path:
    note = Note(kind, title, body, "2026-01-01", "2026-01-01")
    path = memory.folder / note.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(note))
    return path


def wrote(title: str = "Use tabs", text: str = "- tabs", kind: str = "decisions") -> list[Any]:
    return [call("write_memory", {"kind": kind, "title": title, "text": text}), say("done")]


def staged(memory: LastingMemory) -> list[str]:
    return sorted(path.name for path in memory.staging.glob("*.json"))


def all_notes(memory: LastingMemory) -> dict[str, str]:
    return {path: note.body for path, note in memory.notes().items()}
