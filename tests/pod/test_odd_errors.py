"""What a client raises that is not an Exception ends what asked it, and nothing else: in runs, compactions and
extractions alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.llm.base import Block, Request
from actors.llm.scripted import say
from actors.system import PodSystem
from protocol.errors import CompactionFailed, RunFailed
from protocol.events import CompactFailed, CompactStart, ExtractFailed, ExtractStart
from protocol.manifest import PodManifest


class OddError(BaseException):
    """Of a library that thinks little of Exception."""


class OddClient:
    """Answers in words; raises ``error`` where a helper agent asks, or everybody."""

    model = "odd"

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.for_all = False

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        if request.is_of_helper or self.for_all:
            raise self.error
        async for block in say("the port is 8080").stream():
            yield block


@pytest.mark.parametrize("error", [OddError("odd"), GeneratorExit(), SystemExit(3), KeyboardInterrupt()])
async def test_an_error_that_is_no_exception_ends_what_asked_the_client_alone(
    tmp_path: Path, error: BaseException
) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    client = OddClient(error)
    manifest = PodManifest.of(memory={"schedule": "after_run", "extract_threshold": 1})
    async with PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
        kinds = [CompactStart, CompactFailed, ExtractStart, ExtractFailed]
        with system.subscribe(kinds=kinds) as events:
            pod = await system.spawn(manifest, client=client)
            assert (await pod.run("one")).outcome == "finished"
            assert await pod.wait_for_memory_jobs(timeout=30)
            with pytest.raises(CompactionFailed, match=type(error).__name__):
                await pod.compact()
            client.for_all = True
            with pytest.raises(RunFailed):
                await pod.run("two")
            client.for_all = False
            assert (await pod.run("three")).outcome == "finished"
            assert await pod.wait_for_memory_jobs(timeout=30)
            kinds_seen = [type(event) for event in events.drain()]
    for start, end in ((CompactStart, CompactFailed), (ExtractStart, ExtractFailed)):
        assert kinds_seen.count(start) == kinds_seen.count(end) > 0
    assert reported == []
