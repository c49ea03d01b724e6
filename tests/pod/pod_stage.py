"""What the tests of pods share: a client that answers when it is told to, and a pod to play with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, ScriptedClient
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class GatedClient:
    """Answers like a script, each answer only when its gate is opened."""

    model = "gated"

    def __init__(self, replies: list[Reply]) -> None:
        self._script = ScriptedClient(replies)
        self.asked = asyncio.Semaphore(0)
        self.gate = asyncio.Semaphore(0)

    @property
    def requests(self) -> list[Request]:
        return self._script.requests

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.asked.release()
        await self.gate.acquire()
        async for block in self._script.stream(request):
            yield block


class Stage:
    """A pod over a gated client, for a test to play with."""

    def __init__(self, system: PodSystem, pod: Pod, client: GatedClient) -> None:
        self.system, self.pod, self.client = system, pod, client

    async def running(self, text: str = "go") -> Any:
        """A run whose request has reached the model."""
        future = self.pod.run(text)
        await self.client.asked.acquire()
        return future

    def answer(self) -> None:
        self.client.gate.release()


def on_stage(
    replies: list[Reply],
    play: Callable[[Stage], Coroutine[Any, Any, None]],
    manifest: PodManifest = PLAIN,
    **options: Any,
) -> GatedClient:
    """Play it; the client, which knows what it was asked."""

    async def main() -> GatedClient:
        client = GatedClient(replies)
        async with PodSystem() as system:
            pod = await system.spawn(manifest, client=client, **options)
            await asyncio.wait_for(play(Stage(system, pod, client)), 10)
        return client

    return asyncio.run(main())


def texts(items: list[Any]) -> list[str]:
    return [item.text for item in items]
