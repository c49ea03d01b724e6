"""Mail that is delivered for who awaits an answer: it overtakes no run, and interrupts none in its steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, say
from actors.pod.handle import Pod
from actors.runtime.actor import AsyncActor
from actors.system import PodSystem
from protocol.errors import ScriptLeftover
from protocol.items import UserItem
from protocol.manifest import PodManifest


class Echo(AsyncActor):
    def on_receive(self, message: Any) -> Any:
        return message


async def test_a_run_that_was_asked_for_first_begins_first() -> None:
    class Watching(ScriptedClient):
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            item = request.items[-1]
            assert isinstance(item, UserItem)
            asked.append(item.text)
            async for block in super().stream(request):
                yield block

    asked: list[str] = []

    client = Watching([say("1"), say("2")])
    async with PodSystem() as system:
        one = await system.spawn(PodManifest.of(name="one"), client=client)
        two = await system.spawn(PodManifest.of(name="two"), client=client)
        first = one.run("first")
        await two.history()
        await asyncio.gather(two.run("second"), first)
    assert asked == ["first", "second"]


@pytest.mark.parametrize(("how", "outcome"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_client_that_awaits_an_actor_is_interrupted_where_it_waits(how: str, outcome: str) -> None:
    class Meddling(ScriptedClient):
        async def stream(self, request: Request) -> AsyncIterator[Block]:
            await asyncio.sleep(0)
            asked.append(getattr(pods[0], how)())
            await echo[0].ask("x", block=False)
            async for block in super().stream(request):
                yield block

    pods: list[Pod] = []
    asked: list[Any] = []
    echo: list[Any] = []

    async def main() -> None:
        echo.append(Echo.start())
        async with PodSystem() as system, asyncio.timeout(60):
            client = Meddling([say("never said")])
            pods.append(await system.spawn(PodManifest.of(name="p"), client=client))
            result = await pods[0].run("go")
            await asked[0]
            assert (result.outcome, result.text) == (outcome, "")

    with pytest.raises(ScriptLeftover):
        asyncio.run(main())
