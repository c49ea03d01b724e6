"""A server on loopback that sends exactly the bytes a test wants, when it wants, and remembers what it got."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

import msgspec

import actors.llm.http.direct_transport  # noqa: F401 - so that no first request waits for its import


class Received(NamedTuple):
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)


class Exchange:
    """One request under answer: send pieces, let the test step in between, cut the connection."""

    def __init__(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.received = received
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each as a network chunk of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    def abort(self) -> None:
        """Cut the connection the hard way."""
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    async def wait_until_gone(self) -> None:
        """Wait until the client has let go of the connection."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()


Script = bytes | Callable[[Exchange], Awaitable[None]]


class RawServer:
    """Answers each request with the next script; the last one is used again and again.

    ``connections`` counts how often anybody connected, ``received`` holds the requests in order.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._scripts = list(scripts)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.received: list[Received] = []
        self.connections = 0
        self.arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, port: int = 0) -> None:
        """Listen, at ``port`` where one is given."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                await self._exchange(await _request(reader), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.received.append(received)
        async with self.arrived:
            self.arrived.notify_all()
        if isinstance(script, bytes):
            writer.write(script)
            await writer.drain()
        else:
            await script(Exchange(received, reader, writer))

    async def has_received(self, count: int) -> None:
        """Wait until that many requests have come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)


def reply(
    body: bytes, status: str = "200 OK", kind: str = "application/json", *headers: str, close: bool = False
) -> bytes:
    """A whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream_reply(body: bytes) -> bytes:
    """A stream in one chunk."""
    return STREAM_HEAD + chunk(body) + STREAM_END


def error_reply(status: str, message: str, kind: str = "", *headers: str) -> bytes:
    return reply(
        msgspec.json.encode({"error": {"message": message, "type": kind}}),
        status,
        "application/json",
        *headers,
    )
