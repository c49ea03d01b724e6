"""A long life in a small context: one pod, a real llama-server, hundreds of turns with tools.

The model is a tiny random one: what it says is noise. Its template opens a tool call whenever tools are offered and
the last item is not a tool result, and the server's grammar has it write a valid one; so tools, summariser and overflows
are all reached over the wire, by a model that chooses at random. What it cannot show is whether summaries are any good.
Its summariser calls ``write_summary`` only when it happens to, so that some compactions fail, as the plan is for that.

POLYPOD_REAL_TURNS      how many turns (requests of the pod itself), 300 where it is not set
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from pod_stage import check_pairs
from real_kit import BASE_URL, garbled, manifest, needs_server

from actors.pod.handle import Pod
from actors.sessions.repair import check
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import RunFailed
from protocol.events import (
    AssistantMessage,
    CompactDone,
    CompactFailed,
    CompactStart,
    Event,
    Retry,
    ToolResulted,
)
from protocol.manifest import PodManifest

TURNS = int(os.environ.get("POLYPOD_REAL_TURNS", "300"))

pytestmark = [needs_server, pytest.mark.timeout(3600)]

WORDS = ("list", "the", "files", "and", "read", "notes", "in", "json", "agent", "tool", "result", "user")


def window() -> int:
    """The context that the server has for one request, in tokens."""
    reported = httpx.get(f"{BASE_URL.removesuffix('/v1')}/props", timeout=10).json()
    return int(reported["default_generation_settings"]["n_ctx"])


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


class Soak:
    """One pod, what it was asked to do, and what came of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.longest = 0

    def tools(self) -> list[Any]:
        @tool(concurrency="read_only")
        def read_file(path: str) -> str:
            """Read a file."""
            return words(self.rng, self.rng.choice([5, 40, 150, 500]))

        @tool
        def list_files(directory: str) -> str:
            """List the files of a directory."""
            return "\n".join(words(self.rng, 1) for _ in range(self.rng.choice([1, 10, 100])))

        return [read_file, list_files]

    async def go(self, pod: Pod, turns: int) -> None:
        """Runs one after another, until there were so many turns."""
        with pod.subscribe() as reported:
            while self.events["AssistantMessage"] < turns:
                try:
                    result = await pod.run(words(self.rng, self.rng.choice([3, 30, 200])))
                    self.outcomes[result.outcome] += 1
                except RunFailed as failed:
                    self.failed(failed)
                self.note(reported.drain())
                check_pairs(await pod.history())

    def failed(self, failed: RunFailed) -> None:
        """A run may fail because its random summariser wrote no summary, never for want of room."""
        kind = failed.failure.details.get("kind")
        if garbled(failed):
            self.outcomes["garbled by the server"] += 1
        elif "write_summary was never called" in str(failed):
            self.outcomes["no summary"] += 1
        else:
            raise AssertionError(f"{kind}: {failed}") from failed

    def note(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, AssistantMessage | ToolResulted | CompactDone | CompactFailed | Retry):
                self.events[type(event).__name__] += 1
            if isinstance(event, CompactStart):
                self.events[f"CompactStart {event.reason}"] += 1
            if isinstance(event, AssistantMessage) and event.usage is not None:
                self.longest = max(self.longest, event.usage.input_tokens or 0)


def check_sessions(store: SessionStore) -> int:
    """All sessions are sound; gives how many there are."""
    assert list(check(store)) == []
    return len(store.sessions())


def settings(room: int, how: str) -> PodManifest:
    """With thresholds; or with none, so that the server's own overflow errors are all that comes."""
    limits: dict[str, Any] = {"max_tokens": 200, "max_steps": 6, "temperature": 0.8, "output_cap": room // 4}
    if how == "thresholds":
        limits |= {
            "context_window": room,
            "compact_threshold": room * 6 // 10,
            "compact_request_threshold": room * 7 // 10,
            "compact_retained_tokens": room // 8,
        }
    return manifest("openai", **limits)


@pytest.mark.parametrize("how", ["thresholds", "overflows alone"])
async def test_hundreds_of_turns_with_tools_in_a_small_context_never_stop_for_want_of_room(
    tmp_path: Path, how: str
) -> None:
    soak, room = Soak(seed=5), window()
    async with PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        pod = await system.spawn(settings(room, how), tools=soak.tools())
        began = time.monotonic()
        await soak.go(pod, TURNS)
        seconds = time.monotonic() - began
        described = await pod.describe()
        await pod.stop()
        sessions = check_sessions(system.store)
    reported = soak.events
    compactions = reported["CompactDone"] + reported["CompactFailed"]
    print(  # noqa: T201 - the figures are what a person runs it for
        f"\n{how}, {room} tokens of context: {reported['AssistantMessage']} turns, {reported['ToolResulted']} tool results, "
        f"{dict(reported)}, {dict(soak.outcomes)}, {sessions} sessions, longest prompt {soak.longest}, "
        f"{described.usage.total_tokens} tokens, {seconds:.0f} s"
    )
    assert reported["ToolResulted"] > TURNS // 4
    assert reported["CompactDone"] > TURNS // 50
    assert sum(n for kind, n in reported.items() if kind.startswith("CompactStart")) == compactions
    assert sessions == reported["CompactDone"] + 1
