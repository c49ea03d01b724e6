"""Failing requests within a run: asked for again in one layer, and never an output reported as if it stood."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.llm.base import Block, End, Request, TextChunk
from actors.llm.scripted import ScriptedClient, say
from actors.system import PodSystem
from protocol.errors import ModelError, RunFailed, ScriptExhausted
from protocol.events import Retry, StreamRestart, TextDelta
from protocol.manifest import PodManifest


def busy(seconds: float = 0.0) -> ModelError:
    return ModelError("busy", kind="overloaded", retry_after=seconds)


async def test_an_overloaded_server_is_asked_again_and_the_wait_is_reported() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([busy(), say("ok")]))
        events = [event async for event in pod.stream("go")]
        retries = [e for e in events if isinstance(e, Retry)]
        assert [(r.attempt, r.error.message) for r in retries] == [(1, "busy")]
        assert (await pod.history())[-1].text == "ok"


class Breaking:
    """Breaks off after some words at first, then answers whole."""

    model = "breaking"

    def __init__(self) -> None:
        self.asked = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.asked += 1
        yield TextChunk("half ")
        if self.asked == 1:
            raise ModelError("cut", kind="connection", retry_after=0.0)
        yield TextChunk("whole")
        yield End("end_turn")


async def test_a_stream_that_breaks_is_restarted_and_its_text_is_not_doubled() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=Breaking())
        events = [event async for event in pod.stream("go")]
        published = [
            f"restart {e.attempt}" if isinstance(e, StreamRestart) else f"{e.attempt}:{e.text}"
            for e in events
            if isinstance(e, StreamRestart | TextDelta)
        ]
        assert published == ["1:half ", "restart 1", "2:half ", "2:whole"]
        assert (await pod.history())[-1].text == "half whole"
        assert not any(isinstance(e, Retry) for e in events)


async def test_an_error_that_no_second_attempt_mends_fails_the_run_at_once() -> None:
    client = ScriptedClient([ModelError("no such key", kind="auth", where="h:1")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed) as caught:
            await pod.run("go")
        assert caught.value.failure.details["kind"] == "auth"
        assert caught.value.failure.details["where"] == "h:1"


async def test_a_server_that_asks_for_an_hour_ends_the_run_and_says_when_to_come_back() -> None:
    client = ScriptedClient([ModelError("slow down", kind="rate_limit", retry_after=3600)])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed, match="60 min"):
            await pod.run("go")


async def test_a_script_that_runs_out_is_never_retried() -> None:
    client = ScriptedClient([])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed) as caught:
            await pod.run("go")
        assert isinstance(caught.value.cause, ScriptExhausted)
        assert len(client.requests) == 1
