"""Claim: a slow subscriber with a full queue costs the publisher nothing more, keeps no memory, and loses
nothing durable.
"""

from __future__ import annotations

import asyncio
from collections import deque

from actors.llm.base import End, TextChunk
from actors.runtime.events.bus import QUEUE_SIZE, Bus
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from protocol.events import DurableEvent, Lagged, TextDelta

CLAIM = Claim("slow", "slow subscriber: one that does not read, with its queue full")

_EVENT = TextDelta(pod="bench", session_id="s", seq=1, at=0.0, run_id="r", text="token")


@CLAIM.case("publish to a full queue", full=100_000, quick=20_000)
def publish_to_a_full_queue(events: int) -> list[Reading]:
    """Every event drops the oldest in the queue; the subscriber is notified once."""
    bus = Bus()
    slow = bus.subscribe("bench")
    for _ in range(QUEUE_SIZE):
        bus.publish([_EVENT])
    with Stopwatch() as watch:
        for _ in range(events):
            bus.publish([_EVENT])
    queued = bus.statistics()["queued"]
    gaps = [event for event in slow.drain() if isinstance(event, Lagged)]
    assert [lagged.missed for lagged in gaps] == [events]
    return [watch.each("time of a publish", events), Reading("events kept", "count", queued)]


@CLAIM.case("publish to a full queue", by="deque with a bound", kind="floor", full=500_000, quick=100_000)
def bounded_deque(events: int) -> list[Reading]:
    """A deque that silently drops its oldest element."""
    queue: deque[TextDelta] = deque([_EVENT] * QUEUE_SIZE, QUEUE_SIZE)
    with Stopwatch() as watch:
        for _ in range(events):
            queue.append(_EVENT)
    return [watch.each("time of a publish", events), Reading("events kept", "count", len(queue))]


@CLAIM.case("durable events lost", full=50_000, quick=20_000, tiny=10, targets={"lost": at_most(0)})
def durable_events_lost(chunks: int) -> list[Reading]:
    """A run floods the queue with deltas; whoever subscribes again from where it lagged gets every durable
    event.
    """
    return asyncio.run(_flooded(chunks))


async def _flooded(chunks: int) -> list[Reading]:
    async with PodSystem() as system:
        client = Parrot([*[TextChunk("token ")] * chunks, End("end_turn")])
        pod = await system.spawn(manifest(), client=client)
        slow = pod.subscribe()
        await pod.run("Go on.")
        seen: set[int] = set()
        with Stopwatch() as watch:
            events = slow.drain()
            if isinstance(events[0], Lagged):
                since = events[0].since
                assert isinstance(since, int)
                events += pod.subscribe(since=since).drain()
            seen |= {event.seq for event in events if isinstance(event, DurableEvent)}
        last = system.get(pod.name).ref.actor_inbox.actor.durable_position()[1]  # type: ignore[attr-defined]
    lost = [seq for seq in range(3, last + 1) if seq not in seen]  # 1 and 2 are from before
    return [Reading("lost", "count", len(lost)), watch.each("time to catch up", 1)]
