"""What the tests of pods share: a client that answers when it is asked to, and a pod to play with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from store_kit import AwaitedStore

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, ScriptedClient
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from protocol.events import Event
from protocol.items import AssistantItem, Item, ToolResult
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")
#: Stores that a stage may stand on: ``on_each_store`` has a module's tests played on both.
STORES: dict[str, Callable[[], SessionStore]] = {"at once": MemoryStore, "awaited": AwaitedStore}
_store = ContextVar("store", default=STORES["at once"])


@pytest.fixture(params=list(STORES))
def on_each_store(request) -> Iterator[None]:
    token = _store.set(STORES[request.param])
    yield
    _store.reset(token)


def reached(store: SessionStore) -> SessionStore:
    """A store as the stage's is reached: at once, or awaited."""
    return AwaitedStore(store) if _store.get() is AwaitedStore else store


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

    async def paused(self, text: str = "go") -> Any:
        """A run that was paused while its request was at the model."""
        run = await self.running(text)
        await self.pod.pause()
        assert (await run).outcome == "paused"
        return run

    def answer(self) -> None:
        self.client.gate.release()


def on_stage(
    replies: list[Reply],
    play: Callable[[Stage], Coroutine[Any, Any, None]],
    manifest: PodManifest = PLAIN,
    *,
    grace: float = 1.0,
    **options: Any,
) -> GatedClient:
    """Play it; the client, which knows what it was asked."""

    async def main() -> GatedClient:
        client = GatedClient(replies)
        async with PodSystem(_store.get()(), grace=grace) as system:
            pod = await system.spawn(manifest, client=client, **options)
            await asyncio.wait_for(play(Stage(system, pod, client)), 60)
        return client

    return asyncio.run(main())


def texts(items: list[Any]) -> list[str]:
    return [item.text for item in items]


async def all_of(events: Subscription) -> list[Event]:
    """What a subscription has to say, also of a store that has to be awaited."""
    published = events.drain()
    for _ in range(20):
        await asyncio.sleep(0)
        published += events.drain()
    return published


def check_pairs(items: Sequence[Item]) -> None:
    """Every call has exactly one result, in order, and nothing stands between."""
    due: list[str] = []
    for item in items:
        if isinstance(item, ToolResult):
            assert due, "a result without its call"
            assert item.call_id == due.pop(0)
        else:
            assert not due, f"{type(item).__name__} before the result of {due}"
            due = [each.id for each in item.calls] if isinstance(item, AssistantItem) else []
    assert not due, f"no result of {due}"
