"""Claim: one event to a hundred subscribers, published and read."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

import pykka

from actors.llm.base import End, TextChunk
from actors.runtime.events.bus import Bus
from actors.system import PodSystem
from bench.claim import Claim, at_least
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from protocol.events import TextDelta

CLAIM = Claim("fanout", "fan-out: events to 100 subscribers, published and read")

_SUBSCRIBERS = 100
_TARGET = {"deliveries": at_least(2e6)}
_EVENT = TextDelta(pod="bench", session_id="s", seq=1, at=0.0, run_id="r", text="token")


@CLAIM.case("of one pod", full=5000, quick=1000, targets=_TARGET)
def of_one_pod(events: int) -> list[Reading]:
    """A hundred subscriptions to the one pod that publishes."""
    return _published("bench", events)


@CLAIM.case("of all pods", full=5000, quick=1000, targets=_TARGET)
def of_all_pods(events: int) -> list[Reading]:
    """A hundred subscriptions to everything."""
    return _published(None, events)


def _published(pod: str | None, events: int) -> list[Reading]:
    bus = Bus()
    subscriptions = [bus.subscribe(pod) for _ in range(_SUBSCRIBERS)]
    with Stopwatch() as watch:
        for _ in range(events):
            bus.publish([_EVENT])
        seen = sum(len(subscription.drain()) for subscription in subscriptions)
    assert seen == events * _SUBSCRIBERS
    return [watch.rate("deliveries", seen, "cpu")]


@CLAIM.case("of a run, read as it goes", full=2000, quick=500)
def of_a_run(chunks: int) -> list[Reading]:
    """A pod streams an answer to a hundred tasks that read it event by event."""
    return asyncio.run(_followed(chunks))


@CLAIM.case("made and closed", full=10_000, quick=2000, targets={"subscriptions": at_least(2e4)})
def made_and_closed(count: int) -> list[Reading]:
    """Subscriptions that are all open at once: a third to all pods, a third to one pod, a third to
    one kind.
    """
    bus = Bus()
    with Stopwatch() as watch:
        subscriptions = [
            bus.subscribe("bench" if number % 3 == 1 else None, TextDelta if number % 3 == 2 else None)
            for number in range(count)
        ]
        bus.publish([_EVENT])
        for subscription in subscriptions:
            subscription.close()
    assert bus.silent
    return [watch.rate("subscriptions", count, "cpu")]


async def _followed(chunks: int) -> list[Reading]:
    seen = 0

    async def follow(events: Any) -> None:
        nonlocal seen
        async for _ in events:
            seen += 1

    async with PodSystem() as system:
        client = Parrot([*[TextChunk("token ")] * chunks, End("end_turn")])
        pod = await system.spawn(manifest(), client=client)
        subscriptions = [pod.subscribe() for _ in range(_SUBSCRIBERS)]
        readers = [asyncio.create_task(follow(events)) for events in subscriptions]
        with Stopwatch() as watch:
            await pod.run("Go on.")
            for events in subscriptions:
                events.close()
            await asyncio.gather(*readers)
    assert seen >= chunks * _SUBSCRIBERS
    return [watch.rate("deliveries", seen, "cpu")]


@CLAIM.case("of one pod", by="deques", kind="floor", full=5000, quick=1000)
def deques(events: int) -> list[Reading]:
    """A hundred deques, each appended to and popped from."""
    queues: list[deque[TextDelta]] = [deque() for _ in range(_SUBSCRIBERS)]
    with Stopwatch() as watch:
        for _ in range(events):
            for queue in queues:
                queue.append(_EVENT)
        read: list[list[TextDelta]] = []
        for queue in queues:
            taken = []
            while queue:
                taken.append(queue.popleft())
            read.append(taken)
    return [watch.rate("deliveries", sum(map(len, read)))]


async def _queued(chunks: int) -> list[Reading]:
    seen = 0

    async def follow(queue: asyncio.Queue[TextDelta | None]) -> None:
        nonlocal seen
        while await queue.get() is not None:
            seen += 1

    queues: list[asyncio.Queue[TextDelta | None]] = [asyncio.Queue() for _ in range(_SUBSCRIBERS)]
    readers = [asyncio.create_task(follow(queue)) for queue in queues]
    with Stopwatch() as watch:
        for _ in range(chunks):
            for queue in queues:
                queue.put_nowait(_EVENT)
        for queue in queues:
            queue.put_nowait(None)
        await asyncio.gather(*readers)
    assert seen == chunks * _SUBSCRIBERS
    return [watch.rate("deliveries", seen, "cpu")]


@CLAIM.case("of a run, read as it goes", by="asyncio queues", kind="floor", full=2000, quick=500)
def queued(chunks: int) -> list[Reading]:
    """A hundred asyncio queues, each filled and read by a task."""
    return asyncio.run(_queued(chunks))


class _Reader(pykka.ThreadingActor):
    """A subscriber on a thread of its own."""

    def __init__(self, last: int, done: threading.Barrier) -> None:
        super().__init__()
        self._left = last
        self._done = done

    def on_receive(self, message: Any) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0:
            self._done.wait()


@CLAIM.case("of one pod", by="pykka threads", kind="peer", full=500, quick=100)
def pykka_threads(events: int) -> list[Reading]:
    """A hundred pykka actors, each sent every event."""
    done = threading.Barrier(_SUBSCRIBERS + 1)
    readers = [_Reader.start(events, done) for _ in range(_SUBSCRIBERS)]
    with Stopwatch() as watch:
        for _ in range(events):
            for reader in readers:
                reader.tell(_EVENT)
        done.wait()
    pykka.ActorRegistry.stop_all()
    return [watch.rate("deliveries", events * _SUBSCRIBERS, "cpu")]
