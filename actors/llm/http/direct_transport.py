"""The transport of requests that go straight to their server: HTTP/1.1 over asyncio's connections.

Connections are kept for the next request, and there is no limit on their number.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohappyeyeballs

from actors.llm.http.connection import Answer, Connection
from actors.net.certificates import certificates
from actors.net.failures import TransportError, slow_to_reach, unconnected, unresolved
from actors.runtime.in_thread import in_thread

#: How long a connection is kept that nobody uses, in seconds; servers close theirs after 5 to 75.
KEPT_SECONDS = 15.0
#: How long the addresses of a host are remembered, in seconds.
_RESOLVED_SECONDS = 10.0
#: After so many seconds without a connection the next address of the host is tried beside it (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25
#: Bytes read from the network at a time.
_READ = 64 * 1024

#: As ``getaddrinfo`` gives it.
_Address = Any


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
        """Keep the free connection of a finished request for the next."""
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
        """Close connections that nobody has used for long; the most recently used one is taken first, so
        others age.
        """
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
        """The addresses of the host; requests made while they are looked up wait for the same answer."""
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
        kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
        found = await in_thread(socket.getaddrinfo, self._host, self._port, type=kind, flags=flags)
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
