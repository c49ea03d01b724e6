"""A model that plays a script for each pod of a tree, and what its tests wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, call
from actors.runtime.events.subscription import Subscription
from protocol.events import Event
from protocol.manifest import PodManifest


class Cast:
    """A model that plays a script a pod, by the first word of its system prompt; ``...`` waits for ``go``."""

    model = "cast"

    def __init__(self, **parts: list[Reply | Any]) -> None:
        self.parts = {name: list(replies) for name, replies in parts.items()}
        self.go = asyncio.Event()
        self.requests: list[Request] = []

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.requests.append(request)
        part = self.parts[(request.system or "lead").split()[0]]
        if part[0] is ...:
            await self.go.wait()
            part.pop(0)
        reply = part.pop(0)
        async for block in reply.stream():
            yield block


def spawn(name: str = "reader", **more: Any) -> Reply:
    return call("spawn_pod", {"name": name, "instruction": name, "task": "count", **more})


def lead(**more: Any) -> PodManifest:
    return PodManifest.of(name="lead", system_prompt="lead", tools={"builtin": ["pods", "files"]}, **more)


async def until(events: Subscription, wanted: Callable[[Event], bool]) -> Any:
    async with asyncio.timeout(20):
        async for event in events:
            if wanted(event):
                return event
    raise AssertionError("it never came")


def of(kind: type[Event], pod: str | None = None) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind) and pod in (None, event.pod)
