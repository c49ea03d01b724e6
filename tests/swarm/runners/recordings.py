"""Recordings of real programs (against a model server that was a script), and what reads them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from actors.swarm.runners.agent_format import AgentTranslator
from actors.swarm.runners.claude_format import ClaudeTranslator
from actors.swarm.runners.codex_format import CodexTranslator
from actors.swarm.runners.gemini_format import GeminiTranslator
from actors.swarm.runners.lines import LineTranslator
from actors.swarm.runners.stream import Recorder
from polypod import AssistantMessage, Event, RunEnd

FOLDER = Path(__file__).parents[2] / "data" / "cli"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def translator_of(name: str, **more: Any) -> LineTranslator:
    """What reads the recording of that name, with a run that has begun."""
    recorder = Recorder("a-1")
    recorder.begin_run("hi")
    if name.startswith("claude"):
        claude = ClaudeTranslator(recorder, **more)
        claude.unanswered = 2 if name in {"claude_two_results", "claude_too_late", "claude_joined"} else 1
        return claude
    if name.startswith("codex"):
        return CodexTranslator(recorder, **more)
    if name.startswith("agent"):
        return AgentTranslator(recorder, **more)
    return GeminiTranslator(recorder, **more)


def printed(name: str) -> bytes:
    return (FOLDER / f"{name}.jsonl").read_bytes()


def read(translator: LineTranslator, pieces: Iterable[bytes], errors: str = "") -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        events += translator.feed(piece)
    for line in errors.splitlines():
        events += translator.feed_errors(line)
    return events + translator.finish()


def events_of(name: str) -> list[Event]:
    errors = FOLDER / f"{name}.stderr"
    said = errors.read_text(encoding="utf-8") if errors.exists() else ""
    return read(translator_of(name), [printed(name)], said)


def plain(events: list[Event]) -> list[Any]:
    """Events without what differs from one reading to the next."""
    found = [msgspec.to_builtins(event) for event in events]
    for event in found:
        for name in ("at", "run_id", "seconds"):
            event.pop(name, None)
    return found


def texts(events: list[Event]) -> list[str]:
    return [event.item.text for event in events if isinstance(event, AssistantMessage) and event.item.text]


def ends(events: list[Event]) -> list[str]:
    return [event.outcome for event in events if isinstance(event, RunEnd)]
