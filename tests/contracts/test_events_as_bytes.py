"""Events as bytes, once: who listens far away gets what the log keeps, and nobody encodes an event again."""

from __future__ import annotations

import asyncio
import socket
import sys
import tracemalloc
from asyncio import StreamReader
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.channel import connect
from actors.pod.handle import Pod
from actors.pod.service import serve_pod
from actors.runtime.events.bus import Bus
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol import channel, commands
from protocol.entries import StoredEntry
from protocol.errors import StoreError, WireError
from protocol.events import (
    Alert,
    Event,
    Lagged,
    RunEnd,
    StateChanged,
    TextDelta,
    ToolProgress,
    ToolResulted,
    UserMessage,
)
from protocol.items import UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.wire import decode_event, encode

SCRIPT = [call("look", {"at": "the sky"}), say("blue as ever", chunks=3)]


@tool(concurrency="read_only")
async def look(at: str, ctx: ToolContext) -> str:
    """Look at something."""
    ctx.progress(f"half of {at}")
    for _ in range(3):  # what a tool reports of a call that has ended is not published
        await asyncio.sleep(0)
    return f"{at} is blue"


class Calls:
    """How often JSON was encoded, and decoded."""

    encoded = 0
    decoded = 0


@contextmanager
def counting() -> Iterator[Calls]:
    """Count what msgspec does on this thread."""
    calls = Calls()

    def count(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            owner = getattr(function, "__self__", None)
            calls.encoded += isinstance(owner, msgspec.json.Encoder)
            calls.decoded += isinstance(owner, msgspec.json.Decoder)

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def elsewhere(pod: Pod) -> AsyncIterator[Pod]:
    """The same pod at the other end of a connection."""
    near, far = socket.socketpair()
    serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
    reached = await connect(*await asyncio.open_connection(sock=near))
    yield reached
    await reached.address.close()  # type: ignore[attr-defined]
    await serving


def play(
    scene: Callable[[PodSystem, Pod], Coroutine[Any, Any, None]],
    script: Sequence[Any] = SCRIPT,
    store: str | SessionStore = "memory:",
) -> None:
    async def main() -> None:
        async with PodSystem(store=store) as system, asyncio.timeout(30):
            manifest = PodManifest.of(name="p")
            pod = await system.spawn(manifest, client=ScriptedClient(script), tools=[look])
            await scene(system, pod)

    asyncio.run(main())


async def until(last: type[Event], events: AsyncIterator[Event]) -> list[Event]:
    """What is notified of a run up to the last event of a kind."""
    published = [await anext(events)]
    while not (type(published[-1]) is last and getattr(published[-1], "new", PodState.IDLE) is PodState.IDLE):
        published.append(await anext(events))
    return published


# -- the same events ------------------------------------------------------------------------------


def test_who_listens_far_away_gets_the_events_that_who_listens_here_gets() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        async with elsewhere(pod) as reached, elsewhere(reached) as further:
            everything = [each.subscribe() for each in (pod, reached, further)]
            some = [each.subscribe({RunEnd, TextDelta, ToolProgress}) for each in (pod, reached, further)]
            await further.describe()  # the subscriptions have arrived
            await pod.run("look up")
            here, there, further_off = [await until(RunEnd, events) for events in everything]
            assert {type(event) for event in here} >= {UserMessage, TextDelta, ToolProgress, ToolResulted}
            assert here == there == further_off
            here, there, further_off = [await until(RunEnd, events) for events in some]
            assert here == there == further_off

            past = [each.subscribe(since=0) for each in (pod, reached, further)]
            here, there, further_off = [await until(RunEnd, events) for events in past]
            assert here == there == further_off
            assert [event.seq for event in here] == list(range(2, here[-1].seq + 1))
            kept = [each.subscribe(UserMessage, since=0) for each in (pod, reached, further)]
            assert len({encode(await anext(events)) for events in kept}) == 1

    play(scene)


def test_what_no_utf8_can_hold_is_mended_where_bytes_are_made_of_it() -> None:
    bus = Bus()
    feeds = [bus.feed(), bus.feed()]
    bus.publish([TextDelta("p", "s", 4, 0.0, text="x\ud800")])
    for feed in feeds:
        assert [decode_event(event) for event in feed.drain()] == [
            TextDelta("p", "s", 4, 0.0, text="x\ufffd")
        ]


def test_a_gap_is_reported_in_its_place_to_who_wants_bytes() -> None:
    bus = Bus()
    feed, chosen, other = bus.feed("p", size=2), bus.feed(None, Alert), bus.feed("other")
    deltas = [TextDelta("p", "s", 4, 0.0, text=str(number)) for number in range(3)]
    alert = Alert("p", "s", 5, 0.0, text="x")
    bus.publish([*deltas, alert])
    published = [decode_event(event) for event in feed.drain()]
    assert isinstance(published[0], Lagged)
    assert (published[0].pod, published[0].missed, published[0].since) == ("p", 2, 4)
    assert published[1:] == [deltas[2], alert]
    assert [decode_event(event) for event in chosen.drain()] == [alert]
    assert other.drain() == []
    assert bus.subscribed_kinds("p")[1] >= {TextDelta}
    for each in (feed, chosen, other):
        each.close()
    assert bus.silent
    assert not bus.fed


# -- once -----------------------------------------------------------------------------------------


async def encodings(pod: Pod, listeners: int, *, far: bool) -> tuple[int, list[Event]]:
    """How often anything is encoded in a run, and what each of so many listeners received."""
    async with AsyncExitStack() as stack:
        reached = [await stack.enter_async_context(elsewhere(pod)) if far else pod for _ in range(listeners)]
        subscriptions = [each.subscribe() for each in reached]
        for each in reached:
            await each.describe()
        with counting() as calls:
            await pod.run("look up")
            published = [await until(StateChanged, events) for events in subscriptions]
        assert all(len(each) == len(published[0]) for each in published)
        return calls.encoded, published[0]


def test_an_event_is_encoded_once_however_many_listen_far_away() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        nobody_far, _ = await encodings(pod, 1, far=False)
        one, published = await encodings(pod, 1, far=True)
        ten, _ = await encodings(pod, 10, far=True)
        transient = sum(not event.durable for event in published)
        assert transient > 5
        assert one - nobody_far == transient
        assert ten == one

    play(scene, [*SCRIPT] * 3)


def test_an_event_that_is_sent_on_from_one_connection_to_another_is_not_encoded_there() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        async with elsewhere(pod) as reached:
            one, _ = await encodings(reached, 1, far=False)
            further, _ = await encodings(reached, 10, far=True)
            assert further == one

    play(scene, [*SCRIPT] * 2)


def test_who_wants_events_and_their_bytes_gets_those_that_the_log_keeps() -> None:
    store = MemoryStore()

    async def scene(system: PodSystem, pod: Pod) -> None:
        nobody, _ = await encodings(pod, 1, far=False)
        with counting() as calls, system.subscribe_encoded() as events:
            await pod.run("look up")
            published = events.drain()
            bodies = [each.body for each in published]
        transient = sum(not each.event.durable for each in published)
        assert transient > 5
        assert calls.encoded == nobody + transient
        assert [decode_event(body) for body in bodies] == [each.event for each in published]
        session_id = (await pod.describe()).session_id
        kept = {entry.seq: entry.body for entry in store.read(session_id)}
        assert all(
            body is kept[each.seq] for each, body in zip(published, bodies, strict=True) if each.durable
        )

    play(scene, [*SCRIPT] * 2, store)


async def frames(pod: Pod, asks: Sequence[channel.ToPod], until: int) -> list[Any]:
    """What the other end sends for ``asks``, up to the answer to the one of that number."""
    near, far = socket.socketpair()
    serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
    reader, writer = await asyncio.open_connection(sock=near)
    for ask in asks:
        writer.write(channel.frame(ask))
    got = [await read(reader)]
    while got[-1].id != until:
        got.append(await read(reader))
    writer.close()
    await serving
    return got


async def read(reader: StreamReader) -> Any:
    length = channel.frame_length(await reader.readexactly(channel.HEAD))
    return channel.decode_from_pod(await reader.readexactly(length))


def test_past_events_are_sent_as_they_are_kept_and_neither_decoded_nor_encoded() -> None:
    store = MemoryStore()

    async def scene(system: PodSystem, pod: Pod) -> None:
        for number in range(300):
            await pod.push_item(UserItem.of(f"{number}"))
        asks = [channel.Follow(1, since=0), channel.Ask(2, commands.Describe())]
        with counting() as calls:
            got = await frames(pod, asks, until=2)
        session_id = msgspec.json.decode(got[-1].value)["session_id"]
        published = [bytes(each.event) for each in got if isinstance(each, channel.Published)]
        assert published == [entry.body for entry in store.read(session_id, after=1)]
        assert len(published) > 300
        assert calls.encoded <= 4  # the asks and the answer
        assert calls.decoded <= 4

        asks = [channel.Follow(1, ("RunEnd", "PodStarted"), since=0), asks[-1]]
        got = await frames(pod, asks, until=2)
        assert [type(decode_event(each.event)).__name__ for each in got[:-1]] == ["PodStarted"]

    play(scene, (), store)


def test_bytes_are_let_go_of_once_all_have_them() -> None:
    bus = Bus()
    feeds = [bus.feed() for _ in range(3)]
    tracemalloc.start()
    try:
        bus.publish([TextDelta("p", "s", 1, 0.0, text="x" * 4_000_000)])
        assert min(len(event) for feed in feeds for event in feed.drain()) > 4_000_000
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


# -- what goes wrong ------------------------------------------------------------------------------


class Failing(MemoryStore):
    """A store that fails where it is read beyond its first entries."""

    broken = False

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        if self.broken and after > 100:
            raise StoreError("gone")
        return super().read(session_id, after=after, limit=limit)


def test_a_replay_that_fails_ends_its_subscription_and_nothing_else() -> None:
    store = Failing()

    async def scene(system: PodSystem, pod: Pod) -> None:
        for number in range(300):
            await pod.push_item(UserItem.of(f"{number}"))
        store.broken = True
        asks = [channel.Follow(1, since=0), channel.Ask(2, commands.History())]
        got = await frames(pod, asks, until=2)
        kinds = [type(each) for each in got]
        assert kinds.count(channel.Published) == 199
        assert kinds[-2:] == [channel.Refusal, channel.Reply]
        async with elsewhere(pod) as reached:
            published = [event async for event in reached.subscribe(since=0)]
            assert len(published) == 199
            assert len(await reached.history()) == 300
        assert system.statistics()["subscriptions"] == 0

    play(scene, (), store)


class Damaged(MemoryStore):
    """A store that has lost the end of one entry."""

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        entries = super().read(session_id, after=after, limit=limit)
        return [replace(entry, body=entry.body[:-9]) if entry.seq == 4 else entry for entry in entries]


def test_a_damaged_entry_is_passed_over_far_away_and_the_connection_stays() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        for text in ("one", "two", "three"):
            await pod.push_item(UserItem.of(text))
        async with elsewhere(pod) as reached:
            events = reached.subscribe(UserMessage, since=0)
            published = [await anext(events) for _ in range(2)]
            assert [event.item.text for event in published] == ["one", "three"]  # type: ignore[attr-defined]
            assert len(await reached.history()) == 3
        events = pod.subscribe(UserMessage, since=0)
        assert (await anext(events)).seq == 3
        with pytest.raises(WireError):
            await anext(events)
        assert (await anext(events)).seq == 5

    play(scene, (), Damaged())
