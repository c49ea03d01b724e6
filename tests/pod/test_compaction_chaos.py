"""Compaction and extraction under any model, any server and cancels at any moment: live and as the log replays it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from pod_stage import check_pairs

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.sessions.repair import check
from actors.system import PodSystem
from protocol.errors import ModelError, PolypodError
from protocol.events import (
    CompactDone,
    CompactFailed,
    CompactStart,
    DurableEvent,
    Event,
    ExtractDone,
    ExtractFailed,
    ExtractStart,
    SystemMessage,
)
from protocol.items import SystemItem, UserItem
from protocol.manifest import PodManifest

OVERFLOW = ModelError("too long", kind="context_overflow", context_window=4000)
REFUSED = ModelError("no", kind="invalid_request")

#: What a model may do with a request of the pod, and with one of its summariser.
ANSWERS: list[Callable[[], Reply | Exception]] = [
    lambda: say("fine", input_tokens=30, output_tokens=1),
    lambda: say("I decided so because " * 30, input_tokens=900),
    lambda: say("untold"),
    lambda: call("look", {"n": 1}, id=f"c{next(_ids)}", input_tokens=60),
    lambda: call("look", {"n": 700}, id=f"c{next(_ids)}", input_tokens=2500),
    lambda: call("nonesuch", id=f"c{next(_ids)}"),
    lambda: OVERFLOW,
    lambda: REFUSED,
    lambda: RuntimeError("a client's own"),
]
SUMMARISES: list[Callable[[], Reply | Exception]] = [
    lambda: call("write_summary", {"text": "they talked"}, id=f"c{next(_ids)}", input_tokens=20),
    lambda: call("write_summary", {"text": "at length, " * 500}, id=f"c{next(_ids)}"),
    lambda: call("write_summary", {"wrong": 1}, id=f"c{next(_ids)}"),
    lambda: call("add_reference", {"path": "a.txt"}, id=f"c{next(_ids)}"),
    lambda: say("I would rather not"),
    lambda: OVERFLOW,
    lambda: REFUSED,
    lambda: RuntimeError("a client's own"),
]
#: And with one of its extractor.
EXTRACTS: list[Callable[[], Reply | Exception]] = [
    lambda: say("nothing of note"),
    lambda: call("write_extracted", {}, id=f"c{next(_ids)}", input_tokens=10),
    lambda: call("write_extracted", {"wrong": 1}, id=f"c{next(_ids)}"),
    lambda: OVERFLOW,
    lambda: REFUSED,
    lambda: RuntimeError("a client's own"),
]
_ids = itertools.count()


class Chaos:
    """Does what the test drew for it, each request in its turn; ``hold`` has it wait to be let go."""

    model = "chaos"

    def __init__(self, moods: list[tuple[int, bool]]) -> None:
        self._moods = iter(moods)
        self.calm = False
        self.gate = asyncio.Semaphore(0)
        self.words = ""

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        worker = next((each.name for each in request.tools if each.name.startswith("write_")), None)
        items = list(request.items)
        check_pairs(items)
        if worker is None:
            newest = next((each for each in reversed(items) if isinstance(each, UserItem)), None)
            assert newest is not None
            assert newest.text == self.words, "the newest words of the user are shown as they were said"
        mood, hold = (0, False) if self.calm else next(self._moods, (0, False))
        if hold and not self.calm:
            await self.gate.acquire()
        if worker is not None and mood < 2 and not isinstance(items[-1], UserItem):
            reply: Reply | Exception = say("done")
        else:
            choices = {"write_summary": SUMMARISES, "write_extracted": EXTRACTS}.get(worker or "", ANSWERS)
            reply = choices[mood % len(choices)]()
        if isinstance(reply, Exception):
            raise reply
        async for block in reply.stream():
            yield block


def look(n: int) -> str:
    return "what was seen " * n


def check_order(events: Sequence[Event]) -> None:
    """Each start has exactly one end, before the next start; what a compaction brings is reported within."""
    start: CompactStart | None = None
    brought: list[str] = []
    for event in events:
        if isinstance(event, CompactStart):
            assert start is None, "a compaction began within another"
            start, brought = event, []
        elif isinstance(event, SystemMessage) and start is not None:
            brought.append(event.item.text.partition("]")[0])
        elif isinstance(event, CompactDone):
            assert start is not None
            assert brought[0] == "[Compacted context summary"
            assert brought[-1] == "[Session TaskStore snapshot"
            assert event.new_session_id == event.session_id != start.session_id
            if start.reason != "manual" and (event.before or 0) > 2000:
                assert (event.after or 0) < (event.before or 0)
            start = None
        elif isinstance(event, CompactFailed):
            assert start is not None
            assert brought == []
            assert event.session_id == start.session_id
            start = None
    assert start is None, "a compaction never ended"


def check_jobs(events: Sequence[Event]) -> None:
    """One extraction at a time, each with one end; its pointer only moves on within a session."""
    started: ExtractStart | None = None
    read: dict[str, int] = {}
    for event in events:
        if isinstance(event, ExtractStart):
            assert started is None
            started = event
        elif isinstance(event, ExtractDone):
            assert started is not None
            assert event.pointer > read.get(event.session_id, 0) == (started.pointer or 0)
            read[event.session_id] = event.pointer
            started = None
        elif isinstance(event, ExtractFailed):
            assert started is not None
            started = None
    assert started is None


#: The commands there are; ``words`` of a run are the newest there are when its request is made.
COMMANDS: dict[str, Callable[[Pod, str], Any]] = {
    "run": lambda pod, words: pod.run(words),
    "push": lambda pod, _: pod.push_item(SystemItem.of("note " * 300)),
    "cancel": lambda pod, _: pod.cancel(),
    "compact": lambda pod, _: pod.compact(),
    "due": lambda pod, _: pod.try_pre_run_compact(),
    "remember": lambda pod, _: pod.spawn_memory_jobs(),
}


async def answered(asked: list[Any], client: Chaos) -> None:
    """Wait for all answers; what is not done is refused by an error of ours."""
    for each in asked:
        while not each.done():
            client.gate.release()
            await asyncio.to_thread(int)  # threads that read and compose have their turn too
        with contextlib.suppress(PolypodError):
            each.get(timeout=0)
    asked.clear()


steps = st.lists(
    st.tuples(st.sampled_from([*COMMANDS, *["run"] * 4, "let go"]), st.integers(0, 30)),
    min_size=2,
    max_size=14,
)
moods = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=30)
LIMITS: list[dict[str, int]] = [
    {},
    {"compact_threshold": 50, "compact_retained_tokens": 0},
    {"compact_threshold": 1000, "context_window": 4096},
    {"compact_request_threshold": 20},
    {"compact_request_threshold": 80, "compact_retained_tokens": 0},
    {"compact_threshold": 500, "compact_request_threshold": 1000, "compact_retained_tokens": 100},
    {"context_window": 1000},
    {"extract_threshold": 1},
    {"extract_threshold": 200, "compact_threshold": 500, "compact_retained_tokens": 0},
]


async def play(plan: list[tuple[str, int]], drawn: list[tuple[int, bool]], wanted: dict[str, int]) -> None:
    client, store = Chaos(drawn), MemoryStore()
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(name="p", max_steps=8, **wanted), client=client, tools=[look])
        asked: list[Any] = []
        with system.subscribe("p") as published:
            for number, (name, pause) in enumerate(plan):
                if name == "run":
                    await answered(asked, client)
                    client.words = f"words {number}"
                if name == "let go":
                    client.gate.release()
                else:
                    asked.append(COMMANDS[name](pod, client.words))
                for _ in range(pause):
                    await asyncio.sleep(0)
            client.calm = True
            await answered(asked, client)
            await answered([pod.wait_for_memory_jobs()], client)
            history = await pod.history()
            live = published.drain()
        with system.subscribe("p", since=0) as again:
            replayed = [event for event in again.drain() if event.durable]
        for events in (live, replayed):
            check_order(events)
            check_jobs(events)
        described = await pod.describe()
        assert (described.extract_pointer or 0) <= len(history)
        durable = [event for event in live if isinstance(event, DurableEvent)]
        assert durable == (replayed[-len(durable) :] if durable else [])
        check_pairs(history)
    assert list(check(store)) == []


@pytest.mark.slow
@settings(max_examples=times(40))
@given(steps, moods, st.sampled_from(LIMITS))
def test_every_compaction_and_extraction_that_starts_ends_once_live_and_replayed(
    plan: list[tuple[str, int]], drawn: list[tuple[int, bool]], wanted: dict[str, int]
) -> None:
    asyncio.run(asyncio.wait_for(play(plan, drawn, wanted), 60))
