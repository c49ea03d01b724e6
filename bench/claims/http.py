"""Claim: the cost of a turn over HTTP, from a server on loopback in a process of its own: what a stream of
chunks costs us.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import aiohttp
import msgspec

# Imported here because otherwise all streams wait while the first request loads it, and the last ones begin
# when the first have ended: then the round before the measured one leaves fewer connections than there are
# streams.
import actors.llm.http.direct_transport  # noqa: F401
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.openai.client import OpenAIClient
from actors.pod.handle import Pod
from actors.system import PodSystem
from bench.claim import Claim, Measure, at_most, at_most_times
from bench.claims.turn import read_along
from bench.measure import Stopwatch
from bench.models import manifest
from bench.results import Reading, Target
from bench.server import CHUNKS, WORDS, port

CLAIM = Claim("http", f"HTTP turn: {CHUNKS} chunks from a server on loopback, session and events on")

_TEXT = WORDS * CHUNKS
_BODY = {"model": "bench", "messages": [{"role": "user", "content": "Say something."}]}
_AT_ONCE = (1, 64, 512)
_FORMAT = {False: "", True: ", Anthropic's format"}
_LINES = "asyncio streams"
_RHYTHMS = {"each": "chunk by chunk", "burst": "all in one burst", "paced": "paced"}

#: Sets up so many streams, and returns a function that runs one turn on the stream with a number.
SetUp = Callable[[str, int], Any]


def _measured(work: Callable[[str, int, int], Awaitable[list[Reading]]], path: str, at_once: int) -> Measure:
    def measure(turns: int) -> list[Reading]:
        url = f"http://127.0.0.1:{port()}/{path}/v1"
        return asyncio.run(work(url, at_once, max(1, turns // at_once)))  # type: ignore[arg-type]

    return measure


async def _timed(turn: Callable[[int], Awaitable[None]], at_once: int, each: int) -> list[Reading]:
    async def turns(number: int, count: int) -> None:
        for _ in range(count):
            await turn(number)

    await asyncio.gather(*(turns(number, 1) for number in range(at_once)))  # opens the connections
    with Stopwatch() as watch:
        await asyncio.gather(*(turns(number, each) for number in range(at_once)))
    return [watch.each("time of a turn", at_once * each)]


def _with_pods(*, streaming: bool, messages: bool = False, subscribed: bool = False) -> Any:
    async def work(url: str, at_once: int, each: int) -> list[Reading]:
        async with PodSystem() as system, read_along(system) if subscribed else nullcontext():
            wanted = manifest(model="anthropic/bench" if messages else "llama_cpp/bench", base_url=url)
            whole = AnthropicClient if messages else OpenAIClient
            client = None if streaming else whole(url, "bench", streaming=False)
            pods: list[Pod] = [await system.spawn(wanted, client=client) for _ in range(at_once)]

            async def turn(number: int) -> None:
                result = await pods[number].run("Say something.")
                assert result.text == _TEXT

            readings = await _timed(turn, at_once, each)
            if client is not None:
                await client.aclose()
            return readings

    return work


def measured_streams(rhythm: str, at_once: int) -> Measure:
    """So many pods at once, each with a stream of its own."""
    return _measured(_with_pods(streaming=True), rhythm, at_once)


# -- floors ----------------------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str = ""
    text: str = ""


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None


class _Chunk(msgspec.Struct):
    """What a reader needs of a chunk, or of a whole answer, in either format."""

    choices: list[_Choice] = []
    delta: _Delta | None = None
    content: list[_Delta] = []

    @property
    def words(self) -> str:
        """The text in it."""
        if self.delta is not None:
            return self.delta.text
        if self.content:
            return self.content[0].text
        held = None if not self.choices else self.choices[0].delta or self.choices[0].message
        return "" if held is None else held.content


_decode = msgspec.json.Decoder(_Chunk).decode


def _text_of(block: bytes) -> str:
    """The words of one SSE event."""
    at = block.find(b"data: {")
    return _decode(block[at + 6 :]).words if at >= 0 else ""


def _path(url: str, *, messages: bool) -> str:
    return f"{url}/messages" if messages else f"{url}/chat/completions"


async def _with_aiohttp(
    url: str, at_once: int, each: int, *, streaming: bool = True, messages: bool = False
) -> list[Reading]:
    body = json.dumps({**_BODY, "stream": streaming}).encode()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def turn(_: int) -> None:
            async with session.post(_path(url, messages=messages), data=body) as response:
                if not streaming:
                    assert _decode(await response.read()).words == _TEXT
                    return
                held = b""
                text: list[str] = []
                while data := await response.content.readany():
                    *blocks, held = (held + data).split(b"\n\n")
                    text += map(_text_of, blocks)
                assert "".join(text) == _TEXT

        return await _timed(turn, at_once, each)


class _Raw(asyncio.Protocol):
    """A connection that sends a request and reads the events of its answer, without an HTTP library."""

    def __init__(self) -> None:
        self._held = b""
        self._text: list[str] = []
        self._done: asyncio.Future[str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[str]:
        """Send; returns a future of the text."""
        self._done = asyncio.get_running_loop().create_future()
        self._text.clear()
        self.transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._text.append(_text_of(line))
        if self._held == b"" and lines[-2:] == [b"0\r", b"\r"]:
            assert self._done is not None
            self._done.set_result("".join(self._text))


#: Bytes that a floor reads at a time, as ours does. The 256 KB of asyncio are fresh pages with each read in
#: one process and none in the next, as the allocator has it, and a chunk takes twice as long in the first.
_READ = 64 * 1024


def _read_in_small_pieces(transport: asyncio.BaseTransport) -> None:
    transport.max_size = _READ  # type: ignore[attr-defined]


async def _with_sockets(url: str, at_once: int, each: int, *, messages: bool = False) -> list[Reading]:
    loop = asyncio.get_running_loop()
    number, request = _request(url, messages=messages)
    opened = [await loop.create_connection(_Raw, "127.0.0.1", number) for _ in range(at_once)]
    for transport, _ in opened:
        _read_in_small_pieces(transport)

    async def turn(number: int) -> None:
        assert await opened[number][1].ask(request) == _TEXT

    readings = await _timed(turn, at_once, each)
    for transport, _ in opened:
        transport.close()
    return readings


async def _with_asyncio_streams(
    url: str, at_once: int, each: int, *, messages: bool = False
) -> list[Reading]:
    """The reader and writer of the standard library, a line at a time, without an HTTP library."""
    number, request = _request(url, messages=messages)
    opened = [await asyncio.open_connection("127.0.0.1", number) for _ in range(at_once)]
    for _, writer in opened:
        _read_in_small_pieces(writer.transport)

    async def turn(number: int) -> None:
        reader, writer = opened[number]
        writer.write(request)
        text: list[str] = []
        while (line := await reader.readline()) != b"0\r\n":
            text.append(_text_of(line))
        await reader.readline()
        assert "".join(text) == _TEXT

    readings = await _timed(turn, at_once, each)
    for _, writer in opened:
        writer.close()
    return readings


def _request(url: str, *, messages: bool) -> tuple[int, bytes]:
    """The port, and the bytes of a whole request."""
    _, _, host, path = _path(url, messages=messages).split("/", 3)
    body = json.dumps({**_BODY, "stream": True}).encode()
    head = f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return int(host.split(":")[1]), head.encode() + body


def _add(case: str, path: str, at_once: int, *, messages: bool, streaming: bool, **options: Any) -> None:
    """Add one case with its floors, in one of the formats."""
    ours = _with_pods(streaming=streaming, messages=messages)
    CLAIM.case(case, **options)(_measured(ours, path, at_once))
    options.pop("targets", None)
    work = partial(_with_aiohttp, streaming=streaming, messages=messages)
    CLAIM.case(case, by="aiohttp", kind="floor", **options)(_measured(work, path, at_once))
    if streaming:
        raw = partial(_with_sockets, messages=messages)
        CLAIM.case(case, by="sockets", kind="floor", **options)(_measured(raw, path, at_once))
    if path == "paced":
        lines = partial(_with_asyncio_streams, messages=messages)
        CLAIM.case(case, by=_LINES, kind="floor", **options)(_measured(lines, path, at_once))


def _add_streams(rhythm: str, at_once: int, *, messages: bool) -> None:
    paced = rhythm == "paced"  # waits of a second each, not work
    full = 4 * at_once if at_once > 100 or paced else 200
    quick = at_once if at_once > 100 or paced else max(20, at_once)
    _add(
        f"{at_once} at once, {_RHYTHMS[rhythm]}{_FORMAT[messages]}",
        rhythm,
        at_once,
        messages=messages,
        streaming=True,
        full=full,
        quick=quick,
        tiny=at_once,
        rounds=1 if paced else 2,
        warm_up=1,
        targets=_targets(at_once, paced=paced),
    )


def _targets(at_once: int, *, paced: bool) -> dict[str, Target]:
    if paced:
        return {} if at_once == 1 else {"time of a turn": at_most_times(1.5, _LINES)}
    return {"time of a turn": at_most(0.55e-3)} if at_once == 512 else {}


def _add_whole(at_once: int, *, messages: bool) -> None:
    _add(
        f"{at_once} at once, not streamed{_FORMAT[messages]}",
        "whole",
        at_once,
        messages=messages,
        streaming=False,
        full=max(4 * at_once, 400),
        quick=max(at_once, 50),
        tiny=at_once,
        rounds=2,
        warm_up=1,
    )


CLAIM.case(
    "512 at once, chunk by chunk, a subscriber",
    full=2048,
    quick=512,
    tiny=512,
    rounds=2,
    warm_up=1,
    targets={"time of a turn": at_most(0.75e-3)},
)(_measured(_with_pods(streaming=True, subscribed=True), "each", 512))

for _number in _AT_ONCE:
    for _messages in (False, True):
        for _rhythm in _RHYTHMS:
            _add_streams(_rhythm, _number, messages=_messages)
        _add_whole(_number, messages=_messages)
