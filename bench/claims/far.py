"""Claim: what an event costs the process of its pod if its subscribers are at the other end of
connections.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Raw

from actors.llm.base import End, TextChunk
from actors.pod.handle import Pod
from actors.pod.service import serve_pod
from actors.system import PodSystem
from bench.claim import Claim
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from protocol import channel, commands
from protocol.events import TextDelta, UserMessage
from protocol.items import UserItem
from protocol.wire import encode

CLAIM = Claim("far", "far subscribers: what an event costs the process of its pod, each on a connection")

_FEW, _SOME, _MANY = 1, 10, 100
_ITEM = UserItem.of("some words " * 900)
_DELTA = TextDelta(pod="bench", session_id="s" * 36, seq=12, at=1.7e9, run_id="r" * 8, text="token ")
_MESSAGE = UserMessage(pod="bench", session_id="s" * 36, seq=12, at=1.7e9, item=_ITEM, source="push")


class _Connection(StreamWriter):
    """A connection whose other end takes everything at once: what is written goes nowhere."""

    def __init__(self, transport: asyncio.WriteTransport, protocol: StreamReaderProtocol) -> None:
        self.reader = StreamReader()
        super().__init__(transport, protocol, self.reader, asyncio.get_running_loop())
        self._answered = asyncio.Event()

    @classmethod
    async def open(cls) -> _Connection:
        """Open a new one."""
        loop = asyncio.get_running_loop()
        nobody = Path("/dev/null").open("wb", buffering=0)  # noqa: ASYNC230, SIM115 - no file, and the transport closes it
        return cls(*await loop.connect_write_pipe(lambda: StreamReaderProtocol(StreamReader()), nobody))

    def write(self, data: Any) -> None:
        super().write(data)
        if b'"type":"Reply"' in data[:40]:
            self._answered.set()

    async def ask(self) -> None:
        """Wait for an answer: everything published before arrives before it."""
        self._answered.clear()
        self.reader.feed_data(channel.frame(channel.Ask(2, commands.Describe())))
        await self._answered.wait()


@asynccontextmanager
async def _followed(pod: Pod, count: int, since: int | None = None) -> AsyncIterator[list[_Connection]]:
    """So many connections that follow ``pod``."""
    connections = [await _Connection.open() for _ in range(count)]
    serving = [asyncio.create_task(serve_pod(pod, each.reader, each)) for each in connections]
    for each in connections:
        each.reader.feed_data(channel.frame(channel.Follow(1, since=since)))
        await each.ask()
    yield connections
    for each in connections:
        each.reader.feed_eof()
    await asyncio.gather(*serving)


async def _deltas(chunks: int, count: int) -> list[Reading]:
    async with PodSystem() as system:
        client = Parrot([*[TextChunk("token ")] * chunks, End("end_turn")])
        pod = await system.spawn(manifest(), client=client)
        async with _followed(pod, count) as connections:
            with Stopwatch() as watch:
                await pod.run("Go on.")
                for each in connections:
                    await each.ask()
    return [watch.each("time of an event", chunks)]


async def _items(items: int, count: int) -> list[Reading]:
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=Parrot())
        async with _followed(pod, count) as connections:
            with Stopwatch() as watch:
                for _ in range(items):
                    await pod.push_item(_ITEM)
                for each in connections:
                    await each.ask()
    return [watch.each("time of an event", items)]


async def _past(items: int, count: int) -> list[Reading]:
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=Parrot())
        for _ in range(items):
            await pod.push_item(_ITEM)
        with Stopwatch() as watch:
            async with _followed(pod, count, since=0):
                pass
    return [watch.each("time of an event", items * count)]


@CLAIM.case("piece of text to 1", full=4000, quick=1000)
def deltas_to_one(chunks: int) -> list[Reading]:
    """A run's pieces of text, to one connection."""
    return asyncio.run(_deltas(chunks, _FEW))


@CLAIM.case("piece of text to 10", full=2000, quick=500)
def deltas_to_some(chunks: int) -> list[Reading]:
    """A run's pieces of text, to ten connections."""
    return asyncio.run(_deltas(chunks, _SOME))


@CLAIM.case("piece of text to 100", full=400, quick=100)
def deltas_to_many(chunks: int) -> list[Reading]:
    """A run's pieces of text, to a hundred connections."""
    return asyncio.run(_deltas(chunks, _MANY))


@CLAIM.case("10 KB to 1", full=2000, quick=500)
def items_to_one(items: int) -> list[Reading]:
    """Items that are pushed and recorded, to one connection."""
    return asyncio.run(_items(items, _FEW))


@CLAIM.case("10 KB to 10", full=1000, quick=300)
def items_to_some(items: int) -> list[Reading]:
    """Items that are pushed and recorded, to ten connections."""
    return asyncio.run(_items(items, _SOME))


@CLAIM.case("10 KB to 100", full=300, quick=100)
def items_to_many(items: int) -> list[Reading]:
    """Items that are pushed and recorded, to a hundred connections."""
    return asyncio.run(_items(items, _MANY))


@CLAIM.case("10 KB from the store", full=2000, quick=500)
def past_items(items: int) -> list[Reading]:
    """Items that were recorded before, to one connection that asks for everything."""
    return asyncio.run(_past(items, _FEW))


def _written(frame: bytes, count: int, connections: int) -> list[Reading]:
    outs = [Path("/dev/null").open("wb", buffering=0) for _ in range(connections)]  # noqa: SIM115 - closed below
    with Stopwatch() as watch:
        for _ in range(count):
            for out in outs:
                out.write(frame)
    for out in outs:
        out.close()
    return [watch.each("time of an event", count)]


def _frame(event: TextDelta | UserMessage) -> bytes:
    return channel.frame(channel.Published(1, Raw(encode(event))))


@CLAIM.case("piece of text to 100", by="writes", kind="floor", full=2000, quick=500)
def writes_of_text(count: int) -> list[Reading]:
    """A hundred writes of a delta's frame."""
    return _written(_frame(_DELTA), count, _MANY)


@CLAIM.case("10 KB to 100", by="writes", kind="floor", full=2000, quick=500)
def writes_of_items(count: int) -> list[Reading]:
    """A hundred writes of an item's frame."""
    return _written(_frame(_MESSAGE), count, _MANY)
