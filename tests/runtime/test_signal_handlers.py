"""What a signal's handler asks of a pod is taken in at once, though its loop sleeps."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from actors.llm.base import Block, Request
from actors.runtime.future import AsyncFuture
from actors.system import PodSystem
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Waits:
    """A model that never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    async def stream(self, _request: Request) -> AsyncIterator[Block]:
        self.asked.set()
        await asyncio.Event().wait()
        yield  # type: ignore[misc]


@pytest.fixture(autouse=True)
def handler_put_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def raise_soon() -> None:
    """Send the signal from a thread, when the loop sleeps."""
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()


async def test_a_handler_wakes_the_loop_that_it_interrupts() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=Waits())
        run = pod.run("go")
        signal.signal(signal.SIGUSR1, lambda *_: pod.cancel())
        raise_soon()
        assert (await asyncio.wait_for(run, 60)).outcome == "cancelled"


async def test_a_handler_that_resolves_a_future_wakes_its_awaiter() -> None:
    future: AsyncFuture[int] = AsyncFuture()
    signal.signal(signal.SIGUSR1, lambda *_: future.set(7))
    raise_soon()
    assert await asyncio.wait_for(future, 60) == 7


def test_a_handler_reaches_a_loop_in_a_thread() -> None:
    client = Waits()
    with PodSystem() as system:
        pod = system.spawn(PLAIN, client=client).get()
        run = pod.run("go")
        assert client.asked.wait(60)
        signal.signal(signal.SIGUSR1, lambda *_: pod.cancel())
        raise_soon()
        assert run.get(timeout=60).outcome == "cancelled"


async def test_a_handler_may_stop_the_system() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=Waits())
        run = pod.run("go")
        signal.signal(signal.SIGUSR1, lambda *_: system.stop())
        raise_soon()
        assert (await asyncio.wait_for(run, 60)).outcome == "paused"
