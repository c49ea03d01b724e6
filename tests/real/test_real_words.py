"""A hundred turns with a small trained model in a context of 2,048 tokens: what it says is free, that the mechanics hold is not.

It writes words, where the random models write noise, and calls tools rarely and badly: so summaries, findings and
notes come in words, or not at all. What holds whatever it says: no run fails, every compaction and memory job comes
to its end, what was staged comes into notes, and what a user said is found again.

POLYPOD_REAL_WORDS_URL    where a llama-server answers with such a model (SmolLM2 of 135 million parameters will do), with /v1
POLYPOD_REAL_WORDS_TURNS  how many turns, 100 where it is not set
POLYPOD_REAL_WORDS_TOKENS how long an answer may get, 120 tokens where it is not set
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from pod_stage import check_pairs
from test_real_soak import check_sessions

from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import OutputInvalid, RunFailed
from protocol.events import (
    AssistantMessage,
    CompactDone,
    CompactFailed,
    CompactStart,
    ConsolidateDone,
    ConsolidateFailed,
    DurableEvent,
    Event,
    ExtractDone,
    ExtractFailed,
    Retry,
    RunEnd,
    StreamRestart,
    SystemMessage,
)
from protocol.manifest import PodManifest

URL = os.environ.get("POLYPOD_REAL_WORDS_URL", "")
TURNS = int(os.environ.get("POLYPOD_REAL_WORDS_TURNS", "100"))
TOKENS = int(os.environ.get("POLYPOD_REAL_WORDS_TOKENS", "120"))
CONTEXT = 2048

pytestmark = [
    pytest.mark.skipif(not URL, reason="POLYPOD_REAL_WORDS_URL is not set"),
    pytest.mark.timeout(3600),
]

SUBJECTS = ("the harbour", "the harvest", "a lighthouse", "the old bridge", "bread", "a letter", "the tide")
ASKED = (
    "Tell me something about {}.",
    "What would you do with {}?",
    "Remember that {} matters to me, and say why it might.",
    "List three things one should know about {}.",
    "Make a task of it: look after {}.",
)


def manifest(name: str, **settings: Any) -> PodManifest:
    limits = {"context_window": CONTEXT, "max_tokens": TOKENS, "temperature": 0.7, "max_steps": 4}
    return PodManifest.of(
        name=name,
        model="openai/smol",
        base_url=URL,
        system_prompt="You are a friendly helper. Answer in a few sentences.",
        **{**limits, **settings},
    )


def check_ends(events: Iterable[Event]) -> None:
    """Every start has exactly one end."""
    open_: Counter[str] = Counter()
    for event in events:
        if isinstance(event, DurableEvent) and event.starts:
            open_[event.starts] += 1
            assert open_[event.starts] == 1, event
        elif isinstance(event, DurableEvent) and event.ends:
            open_[event.ends] -= 1
            assert open_[event.ends] == 0, event
    assert not +open_


async def asked_all(pod: Pod, rng: random.Random) -> Counter[str]:
    """So many runs, one after another; none may fail."""
    outcomes: Counter[str] = Counter()
    for turn in range(TURNS):
        words = rng.choice(ASKED).format(rng.choice(SUBJECTS))
        if turn % 20 == 10:
            words += " It goes like this: " + " ".join(rng.choices(SUBJECTS, k=150))
        outcomes[(await pod.run(words)).outcome] += 1
        check_pairs(await pod.history())
        occupancy = (await pod.describe()).occupancy
        assert occupancy <= CONTEXT, f"turn {turn}: {occupancy} tokens"
    return outcomes


async def check_restored(system: PodSystem, pod: Pod, wanted: PodManifest) -> None:
    """Stop the pod and have it again from what the store has of it."""
    before, items = await pod.describe(), await pod.history()
    await pod.stop()
    again = await system.spawn(wanted, resume=before.session_id)
    after = await again.describe()
    assert await again.history() == items
    assert (after.session_id, after.usage, after.extract_pointer, after.state) == (
        before.session_id,
        before.usage,
        before.extract_pointer,
        before.state,
    )
    assert after.occupancy <= CONTEXT
    await again.stop()


async def test_a_hundred_turns_with_compactions_extractions_and_a_consolidation_fail_by_nothing(
    tmp_path: Path,
) -> None:
    memory = tmp_path / "memory"

    rng = random.Random(7)
    async with PodSystem(f"sqlite:{tmp_path / 'pods.db'}", memory=memory) as system:
        settings = {
            "compact_threshold": CONTEXT * 5 // 10,
            "compact_request_threshold": CONTEXT * 6 // 10,
            "compact_retained_tokens": CONTEXT // 8,
            "extract_threshold": 600,
            "consolidate_files": 2,
            "tools": {"builtin": ["tasks"]},
        }
        began = time.monotonic()
        pod = await system.spawn(manifest("soak", **settings))
        with pod.subscribe([Retry, StreamRestart]) as again:
            outcomes = await asked_all(pod, rng)
            assert await pod.wait_for_memory_jobs(timeout=600)
            repeated = again.drain()
        seconds = time.monotonic() - began
        await check_restored(system, pod, manifest("soak", **settings))
        events = system.subscribe("soak", since=0).drain()
        sessions = check_sessions(system.store)
        reported = Counter(type(event).__name__ for event in events)
        sources = Counter(event.source for event in events if isinstance(event, CompactDone))
        found = sum(event.staged for event in events if isinstance(event, ExtractDone))
        kept = [event for event in events if isinstance(event, ConsolidateDone)]
        print(  # noqa: T201 - the figures are what a person runs it for
            f"\n{TURNS} turns in {seconds:.0f} s: {dict(outcomes)}, {dict(reported)}, summaries {dict(sources)}, "
            f"{found} findings, {sum(each.notes for each in kept)} notes changed, "
            f"{sum(each.left for each in kept)} left out by the model, "
            f"{sum(each.mechanical for each in kept)} of {len(kept)} without it, {sessions} sessions"
        )
        why = [event.error.message for event in events if isinstance(event, FAILS)]
        assert set(outcomes) <= {"finished", "limit_reached"}, outcomes
        check_ends(events)
        assert not repeated, "the server refused a request"
        refused = [
            event for event in events if isinstance(event, CompactStart) and event.reason == "overflow"
        ]
        assert not refused, "no request was longer than the server takes"
        assert reported["CompactStart"] == reported["CompactDone"] > 0, why
        assert reported["ExtractDone"] > 0, why
        assert reported["ConsolidateDone"] > 0, why
        assert not [event for event in events if isinstance(event, RunEnd) and event.outcome == "failed"], why
        assert list(memory.rglob("*.md")), "what was found has come into notes"
        await check_recall(system, memory)


FAILS = (CompactFailed, ExtractFailed, ConsolidateFailed)


async def check_recall(system: PodSystem, memory: Path) -> None:
    """A new session is brought what memory holds of its first words."""
    notes = await asyncio.to_thread(lambda: sorted(memory.rglob("*.md")))
    note = notes[0]
    pod = await system.spawn(manifest("new", recall_tokens=300))
    words = " ".join(note.stem.replace("-", " ").split()[:8])
    assert (await pod.run(f"What do you know of this: {words}?")).outcome in {"finished", "limit_reached"}
    with pod.subscribe(SystemMessage, since=0) as events:
        brought = [event.item.text for event in events.drain()]
    assert brought, f"nothing of {note}"
    assert brought[0].startswith("[Relevant memory]")
    await pod.stop()


@contextlib.contextmanager
def suppress_misfits() -> Iterator[None]:
    """A run may fail because the model did not answer as asked, and by nothing else."""
    try:
        yield
    except RunFailed as failed:
        if failed.failure.kind != OutputInvalid.__name__:
            raise


class Town(Struct):
    """A town, and how many live there."""

    name: str
    people: int


async def test_a_typed_answer_is_of_its_type_or_fails_as_such() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(manifest("typed"))
        fits = 0
        for town in ("Paris", "Oslo", "Rome"):
            with suppress_misfits():
                words = f"The town is {town} and a million people live there."
                result = await pod.run(words, output=Town)
                assert isinstance(result.output, Town)
                fits += 1
        print(f"\n{fits} of 3 typed answers")  # noqa: T201
        assert fits, "a server that holds a model to a grammar gives some that fit"


async def test_compactions_by_hand_overflows_and_a_killed_session_hold_too(tmp_path: Path) -> None:
    """Without thresholds all that comes is the server's own overflow error."""
    rng = random.Random(3)
    async with PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        pod = await system.spawn(manifest("full"))
        with pod.subscribe([AssistantMessage, CompactStart, CompactDone, CompactFailed]) as events:
            for _ in range(12):
                words = " ".join(rng.choices(SUBJECTS, k=120))
                assert (await pod.run(f"Say something of {words}")).outcome in {
                    "finished",
                    "limit_reached",
                }
            reported = events.drain()
        assert sum(isinstance(event, CompactDone) for event in reported) > 0
        assert not [event for event in reported if isinstance(event, CompactFailed)]
        check_sessions(system.store)
