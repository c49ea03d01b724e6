"""A stop cancels memory jobs and waits for their end: nothing of them goes on afterwards, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from memory_kit import memory_in, put, staged

from actors.llm.base import Block, Request
from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.events import ConsolidateFailed, ConsolidateStart, ExtractFailed, ExtractStart
from protocol.manifest import PodManifest


class Waits:
    """Answers runs; helpers wait until they are cancelled, or for the ``last`` of their requests."""

    model = "waits"

    def __init__(self, *, at_once: int = 0) -> None:
        self.asked = asyncio.Event()
        self.open = self.begun = 0
        self._at_once = at_once

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        reply = say("answer")
        if request.tools:
            self.begun += 1
            if self.begun <= self._at_once:
                reply = call("write_extracted", {"decisions": [{"chosen": "tabs"}]}, id="e")
            else:
                self.open += 1
                self.asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.open -= 1
        async for block in reply.stream():
            yield block


def others() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def leave(how: str, system: PodSystem, pod: Pod) -> None:
    """End the pod in one of the ways in which it ends; the system is entered."""
    if how == "pod.stop()":
        await pod.stop()
        assert others() == [], "nothing goes on behind the end of the pod alone"
    elif how == "an exception":
        raise LookupError
    elif how == "system.stop()":
        await system.stop()


WAYS = ("pod.stop()", "system.stop()", "leaving", "an exception")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("at_once", [0, 1], ids=["while it is asked", "once it has called its tool"])
def test_an_extraction_is_cancelled_and_nothing_of_it_goes_on(tmp_path: Path, how: str, at_once: int) -> None:
    async def main() -> None:
        client = Waits(at_once=at_once)
        with contextlib.suppress(LookupError):
            async with PodSystem(memory=tmp_path, memory_grace=0.1) as system:
                pod = await system.spawn(PodManifest.of(name="p", extract_threshold=1), client=client)
                events = system.subscribe("p", [ExtractStart, ExtractFailed])
                await pod.run("hello")
                await client.asked.wait()
                await leave(how, system, pod)
        assert client.open == 0
        assert others() == []
        assert [type(event) for event in events.drain()] == [ExtractStart, ExtractFailed]

    asyncio.run(main())
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("how", WAYS)
async def test_a_consolidation_is_cancelled_and_nothing_of_it_goes_on(tmp_path: Path, how: str) -> None:
    memory = memory_in(tmp_path)
    put(memory)

    client = Waits()
    with contextlib.suppress(LookupError):
        async with PodSystem(memory=memory.folder, memory_grace=0.1) as system:
            manifest = PodManifest.of(name="p", consolidate_files=1, schedule="manual")
            pod = await system.spawn(manifest, client=client)
            events = system.subscribe("p", [ConsolidateStart, ConsolidateFailed])
            await pod.spawn_memory_jobs()
            await client.asked.wait()
            await leave(how, system, pod)
    assert client.open == 0
    assert others() == []
    assert [type(event) for event in events.drain()] == [ConsolidateStart, ConsolidateFailed]
    assert len(staged(memory)) == 1
    assert not (memory.machinery / "lease.json").exists()


async def test_a_model_that_cannot_be_cancelled_holds_a_stop_for_a_bounded_time_only(tmp_path: Path) -> None:
    class Stubborn(Waits):
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            if request.tools:
                self.asked.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                await go.wait()
            async for block in say("answer").stream():
                yield block

    go = asyncio.Event()

    client = Stubborn()
    async with PodSystem(memory=tmp_path, grace=0.1, memory_grace=0.1) as system:
        pod = await system.spawn(PodManifest.of(name="p", extract_threshold=1), client=client)
        await pod.run("hello")
        await client.asked.wait()
        await asyncio.wait_for(pod.stop(), 60)
    go.set()
    await asyncio.wait(others())
