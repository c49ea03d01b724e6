"""``Connection`` and ``Answer``: one connection to a model server, and a request that is under way on it.

A model sends an answer in hundreds of pieces, each for itself, so what a piece costs is what a turn costs.
Here the bytes of a piece go from the socket to whoever reads the answer within one call: no task is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from actors.llm.http.http1 import Framing, HeadReader
from actors.net.failures import TransportError, lost

#: How long the end of an answer may lag behind its last event before its connection is given up, in seconds.
SETTLE_SECONDS = 1.0
#: Bytes handed to a connection at a time, so that the loop gets its turns while a long history is sent.
_SLICE = 256 * 1024
#: Bytes of an answer that wait for who reads it piece by piece, before no more are taken from the network.
_MOST_WAITING = 256 * 1024

#: What takes an answer piece by piece and says when it has enough.
Take = Callable[[bytes], bool]


class Pool(Protocol):
    """The owner of connections."""

    #: What each read of the network goes into.
    buffer: memoryview

    def keep(self, connection: Connection) -> None:
        """Keep the free connection of a finished request for the next."""

    def forget(self, connection: Connection) -> None:
        """Forget a connection that is closed."""


class Connection(asyncio.Protocol):
    """A connection between two requests; while one is under way its Answer receives the bytes."""

    def __init__(self, pool: Pool) -> None:
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
        """Take the connection back from a finished request: the next one may use it, or it is closed."""
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
        data = bytes(self._buffer[:nbytes])
        framing = self._framing
        try:
            if framing is None:
                read = self._read_head(data)
                if read is None:
                    return
                framing, data = read
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

    def _read_head(self, data: bytes) -> tuple[Framing, bytes] | None:
        """Read the head; returns what reads the body and the bytes of it that have arrived, None while the
        head is incomplete. Raises TransportError.
        """
        assert self._head is not None
        read = self._head.feed(data)
        if read is None:
            return None
        head, rest = read
        self._head = None
        self.status, self.headers, self._framing, self.coding, self._keeps = head
        self._wake()
        return head.framing, rest

    def _hold(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size > _MOST_WAITING:
            self._transport.pause_reading()
        self._wake()

    def _end(self) -> None:
        """Release the connection, because the body is complete."""
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
        """Wait until something has happened. Raises TransportError if the connection has failed."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- reading ---------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """The bytes that are there, or the next that arrive; ``b""`` is the end."""
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
        """Let the end of the framing arrive, so that the connection can be used again; close it if it does
        not.
        """
        if not self._over:
            self._take, self._enough = _nothing, True
            self._transport.resume_reading()
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._transport.abort)
        return True

    async def aclose(self) -> None:
        """Release the connection, which is closed unless the answer is complete."""
        self.give_up()

    def give_up(self) -> None:
        """Close the connection, unless the answer is complete."""
        if not self._over:
            self._let_go(keep=False)


def _nothing(_: bytes) -> bool:
    """Ignore what nobody wants any more."""
    return True
