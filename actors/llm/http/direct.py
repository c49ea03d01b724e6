"""The transport of requests that go straight to their server: HTTP/1.1 over asyncio's connections.

A model sends an answer in hundreds of pieces, each for itself, so what a piece costs is what a turn costs.
Here the bytes of a piece go from the socket to whoever reads the answer within one call: no task is woken.
Connections are kept for the next request, and there is no limit on their number.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohappyeyeballs

from actors.llm.http.http1 import Framing, Head, HeadReader
from actors.net.certificates import certificates
from actors.net.failures import TransportError, lost, slow_to_reach, unconnected, unresolved

#: How long the end of an answer may lag behind its last event before its connection is given up, in seconds.
SETTLE_SECONDS = 1.0
#: How long a connection is kept that nobody uses, in seconds; servers close theirs after 5 to 75.
KEPT_SECONDS = 15.0
#: How long the addresses of a host are remembered, in seconds.
_RESOLVED_SECONDS = 10.0
#: After so many seconds without a connection the next address of the host is tried beside it (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25
#: Bytes handed to a connection at a time, so that the loop gets its turns while a long history is sent.
_SLICE = 256 * 1024
#: Bytes read from the network at a time.
_READ = 64 * 1024
#: Bytes of an answer that wait for who reads it piece by piece, before no more are taken from the network.
_MOST_WAITING = 256 * 1024

#: As ``getaddrinfo`` gives it.
_Address = Any

#: What takes an answer piece by piece and says when it has enough.
Take = Callable[[bytes], bool]


class Connection(asyncio.Protocol):
    """A connection between two requests; while one is under way its Answer receives what comes."""

    def __init__(self, pool: DirectTransport) -> None:
        self._pool = pool
        self.buffer = pool.buffer
        self.kept_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - nobody asked for it
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - nobody waits for anything
        self._pool.forget(self)

    def take_back(self, *, keep: bool) -> None:
        """Take the connection back from a request that is over: the next one may use it, or it is closed."""
        self.transport.set_protocol(self)
        if keep and not self.transport.is_closing():
            self.transport.resume_reading()
            self._pool.keep(self)
        else:
            self.transport.abort()


class Answer(asyncio.BufferedProtocol):
    """One request and its answer, as ``contract.Response`` says. ``pour`` reads it as ``read`` does, without
    a wait for each piece.
    """

    status: int
    coding: str
    headers: Mapping[str, str]

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._loop = loop
        self._buffer = connection.buffer
        self._head: HeadReader | None = HeadReader()
        self._framing: Framing | None = None
        self._keeps = False
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None
        self._enough = False
        self._waiting: list[bytes] = []
        self._size = 0
        self._unsent: memoryview | None = None
        self._held_back = False
        self._over = False
        self._error: TransportError | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- asking ----------------------------------------------------------------------------------

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the head of the answer. Raises TransportError."""
        self._transport.set_protocol(self)
        if len(body) <= _SLICE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()
        while self._framing is None:
            await self._wait()

    def _send_more(self) -> None:
        while self._unsent is not None and not self._held_back:
            piece, rest = self._unsent[:_SLICE], self._unsent[_SLICE:]
            self._unsent = rest or None
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._held_back = True

    def resume_writing(self) -> None:
        self._held_back = False
        self._send_more()

    # -- what comes ------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - it is always the same
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        framing = self._framing
        try:
            if framing is None:
                self._begin(data)
                return
            piece = framing.feed(data)
        except TransportError as error:
            self._fail(error)
            return
        if piece:
            take = self._take
            if take is None:
                self._hold(piece)
            elif not self._enough and take(piece):
                self._enough = True
                self._wake()
        if framing.over:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        framing = self._framing
        if framing is not None and framing.open_ended and error is None:
            self._end()
        else:
            kept = self._connection.kept_since > 0  # a new one was not closed for being idle
            unanswered = kept and self._head is not None and not self._head.begun
            self._fail(TransportError(lost(), unanswered=unanswered))
        self._connection.connection_lost(error)

    def _begin(self, data: bytes) -> None:
        assert self._head is not None
        read = self._head.feed(data)
        if read is None:
            return
        head, rest = read
        self._head = None
        self._open(head)
        self._wake()
        if rest:
            self.data_received(rest)
        elif head.framing.over:
            self._end()

    def _open(self, head: Head) -> None:
        self.status, self.headers, self._framing, self.coding, self._keeps = head

    def _hold(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size > _MOST_WAITING:
            self._transport.pause_reading()
        self._wake()

    def _end(self) -> None:
        """The body has come whole."""
        assert self._framing is not None
        sent = self._unsent is None and not self._held_back
        self._let_go(keep=self._keeps and sent and not self._framing.surplus)

    def _fail(self, error: TransportError) -> None:
        self._error = error
        self._let_go(keep=False)

    def _let_go(self, *, keep: bool) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.take_back(keep=keep)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        """Wait until something has happened. Raises TransportError where the connection has failed."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- reading ---------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """The bytes that are there, waiting for some where there are none; ``b""`` is the end."""
        while not self._waiting:
            if self._over and self._error is None:
                return b""
            await self._wait()
        return self._take_waiting()

    async def pour(self, take: Take) -> None:
        """Hand over the body as it comes, ``b""`` being its end, until ``take`` has enough."""
        if self._waiting and take(self._take_waiting()):
            return
        self._take = take
        while not self._enough and (self._error is not None or not self._over):
            await self._wait()
        if not self._enough:
            take(b"")

    def _take_waiting(self) -> bytes:
        waiting = self._waiting
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        if self._size > _MOST_WAITING and not self._over:
            self._transport.resume_reading()
        self._size = 0
        return data

    # -- its end ---------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Let the framing's end arrive, so that the connection can be used again; close it if it does not."""
        if not self._over:
            self._take, self._enough = _nothing, True
            self._transport.resume_reading()
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._transport.abort)
        return True

    async def aclose(self) -> None:
        """Let go of the connection, which is closed unless the answer has come whole."""
        self.give_up()

    def give_up(self) -> None:
        """Close the connection, unless the answer has come whole."""
        if not self._over:
            self._let_go(keep=False)


def _nothing(_: bytes) -> bool:
    """Take what nobody wants any more."""
    return True


class DirectTransport:
    """The connections to one server, without redirects, cookies or decoding. Used on one event loop.

    Raises ModelError where the environment names certificates that cannot be used.
    """

    def __init__(self, url: str, *, connect_seconds: float) -> None:
        parts = urlsplit(_ascii(url))
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._tls: ssl.SSLContext | None = certificates() if secure else None
        self._connect_seconds = connect_seconds
        self._loop = asyncio.get_running_loop()
        #: What each read of the network goes into: one of its own would be 256 KB of fresh pages.
        self.buffer = memoryview(bytearray(_READ))
        self._all: set[Connection] = set()
        self._kept: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._resolving: asyncio.Task[list[_Address]] | None = None
        self._resolve_again = 0.0
        self._begun: dict[tuple[str, str], bytes] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request, as soon as its head is there. Raises TransportError."""
        connection = self._kept.pop() if self._kept else await self._connect()
        answer = Answer(connection, self._loop)
        try:
            await answer.ask(self._head(method, url, headers, len(body)), body)
        except BaseException:
            answer.give_up()
            raise
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        if self._loop.is_closed():
            return
        self._stop_sweep()
        if self._resolving is not None:
            self._resolving.cancel()
        for connection in self._all:
            connection.transport.abort()
        if self._all:
            await asyncio.sleep(0)  # that is when they are closed

    # -- kept connections ------------------------------------------------------------------------

    def keep(self, connection: Connection) -> None:
        """Keep the free connection of a request that is over for the next."""
        connection.kept_since = time.monotonic()
        self._kept.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_SECONDS, self._close_unused)

    def forget(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._all.discard(connection)
        if connection in self._kept:
            self._kept.remove(connection)
            if not self._kept:
                self._stop_sweep()

    def _stop_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_unused(self) -> None:
        """Close what nobody has used for long; the one that was used last is taken first, so others age."""
        before = time.monotonic() - KEPT_SECONDS + 0.1
        for connection in self._kept:
            if connection.kept_since < before:
                connection.transport.abort()
        self._kept = [each for each in self._kept if each.kept_since >= before]
        self._sweep = None
        if self._kept:
            self._sweep = self._loop.call_later(KEPT_SECONDS, self._close_unused)

    # -- new connections -------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                opened = await aiohappyeyeballs.start_connection(
                    await self._addresses(),
                    happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
                    interleave=1,
                    loop=self._loop,
                )
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self),
                    sock=opened,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
        except TimeoutError as error:
            raise TransportError(slow_to_reach(error)) from error
        except UnicodeError as error:  # a label of the name is empty or too long
            raise TransportError(unresolved(error)) from error
        except OSError as error:
            raise TransportError(unconnected(error)) from error
        self._all.add(connection)
        return connection

    async def _addresses(self) -> list[_Address]:
        """The addresses of the host; who asks while they are looked up waits for the same answer."""
        try:
            return socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            pass  # it is a name
        if self._resolving is None or (self._resolving.done() and time.monotonic() > self._resolve_again):
            self._resolving = self._loop.create_task(self._resolve())
            self._resolving.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._resolving)

    async def _resolve(self) -> list[_Address]:
        self._resolve_again = 0.0
        found = await self._loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        self._resolve_again = time.monotonic() + _RESOLVED_SECONDS
        return found

    # -- heads -----------------------------------------------------------------------------------

    def _head(self, method: str, url: str, headers: Mapping[str, str], length: int) -> bytes:
        key = method, url
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = _begin_head(method, url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        framing = f"content-length: {length}\r\n\r\n" if length or method != "GET" else "\r\n"
        return begun + lines.encode() + framing.encode()


#: What stands in an address as it is (RFC 3986); all else is written in percent signs.
_PLAIN = "/%!$&'()*+,;=:@-._~"


def _begin_head(method: str, url: str) -> bytes:
    parts = urlsplit(_ascii(url))
    target = quote(parts.path or "/", safe=_PLAIN)
    if parts.query:
        target += "?" + quote(parts.query, safe=_PLAIN + "?")
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    place = host if parts.port in {None, usual} else f"{host}:{parts.port}"
    return f"{method} {target} HTTP/1.1\r\nhost: {place}\r\n".encode()


def _ascii(url: str) -> str:
    """An address with its host as the network knows it."""
    if url.isascii():
        return url
    import httpx  # noqa: PLC0415 - few need it

    return str(httpx.URL(url))
