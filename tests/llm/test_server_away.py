"""A server that is away for a while: its pods wait for it as long as their runs may, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from llm_server import RawServer, stream_reply
from ports import unused_port

from actors.llm.http.contract import HttpSettings
from actors.llm.http.endpoint import Endpoint
from actors.llm.http.http_pool import HttpPool
from actors.llm.openai.client import OpenAIClient
from actors.llm.retry import GiveUp, RetryPolicy, Wait, decide
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.system import PodSystem
from protocol.errors import ModelError, RunFailed
from protocol.events import Retry
from protocol.manifest import PodManifest

BACK = stream_reply(
    b"data: %b\n\ndata: [DONE]\n\n"
    % msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": "back"}, "finish_reason": "stop"}]})
)


async def wait_for_refusals(events: Subscription, pods: list[Pod], times: int) -> None:
    """Wait until each pod has said so many times that its request is sent again."""
    reported = dict.fromkeys([pod.name for pod in pods], 0)
    async for event in events:
        reported[event.pod] += 1
        if min(reported.values()) >= times:
            return


def away(pods: int, *, known: bool, **settings: Any) -> list[str]:
    """The texts of runs that begin while their server is away, which is back after more retries than a
    request has attempts.
    """

    async def main() -> list[str]:
        server = RawServer(BACK)
        await server.start(unused_port())  # nobody else is there while it is away
        http = HttpPool(HttpSettings(cooldown=0.02))
        client = OpenAIClient(server.url, "m", http=http)
        async with PodSystem() as system:
            all_ = [await system.spawn(PodManifest.of(**settings), client=client) for _ in range(pods)]
            if known:
                assert (await all_[0].run("hello")).text == "back"
            await server.stop()
            with system.subscribe(kinds=Retry) as events:
                runs = [pod.run("hi") for pod in all_]
                await asyncio.wait_for(wait_for_refusals(events, all_, 5), 60)
            await server.start(server.port)
            texts = [(await run).text for run in runs]
        await http.aclose()
        await server.stop()
        return texts

    return asyncio.run(main())


@pytest.mark.slow
def test_all_who_wait_for_a_server_that_is_away_are_answered_when_it_is_back() -> None:
    assert away(16, known=False, seconds=30) == ["back"] * 16


def test_one_alone_waits_for_a_server_that_has_answered_before() -> None:
    assert away(1, known=True) == ["back"]


async def test_a_run_waits_no_longer_than_its_deadline_and_says_why() -> None:
    server = RawServer(BACK)
    await server.start(unused_port())
    http = HttpPool(HttpSettings(cooldown=0.02))
    client = OpenAIClient(server.url, "m", http=http)
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        assert (await pod.run("hello")).text == "back"
        await server.stop()
        pod = await system.spawn(PodManifest.of(seconds=0.6), client=client)
        try:
            result = await pod.run("hi")
        except RunFailed as failed:
            assert f"127.0.0.1:{server.port}" in str(failed)  # noqa: PT017 - or its time was up in an attempt
        else:
            assert result.outcome == "budget"
    await http.aclose()


def failure(**facts: Any) -> ModelError:
    return ModelError("away", kind="connection", counts=False, **facts)


def test_without_a_deadline_a_server_that_is_away_is_waited_for_a_minute() -> None:
    assert isinstance(decide(0, failure(), now=50.0, began=0.0), Wait)
    assert isinstance(decide(0, failure(retry_after=2.0), now=59.0, began=0.0), GiveUp)
    shorter = RetryPolicy(patience=10.0)
    assert isinstance(decide(0, failure(), now=10.0, began=0.0, policy=shorter), GiveUp)


def test_with_a_deadline_it_is_waited_for_until_then() -> None:
    assert isinstance(decide(9, failure(), now=110.0, began=0.0, deadline=120.0), Wait)
    assert isinstance(decide(0, failure(), now=120.0, began=0.0, deadline=120.0), GiveUp)


def test_a_refusal_of_the_breaker_and_a_failed_probe_use_up_no_attempt() -> None:
    async def main() -> list[bool]:
        door = Endpoint("h:1", trip_after=2, cooldown=0.0)
        counted = []
        for _ in range(3):
            entry = await door.enter()
            error = ModelError("refused", kind="connection")
            entry.failed(error)
            entry.leave()
            counted.append(error.counts)
        shut = Endpoint("h:1", trip_after=1)
        entry = await shut.enter()
        entry.failed(ModelError("refused", kind="connection"))
        entry.leave()
        with pytest.raises(ModelError) as refused:
            await shut.enter()
        return [*counted, refused.value.counts]

    assert asyncio.run(main()) == [True, True, False, False]
