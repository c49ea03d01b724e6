"""``SharedServers``: gives a pod's process the MCP servers of its system, one connection for all its pods."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from asyncio import StreamReader
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from actors.runtime.read_frame import read_frame
from actors.tools.base import ToolContext
from actors.tools.mcp.connections import Admitted, OwnConnections
from protocol.errors import Failure, ToolError, WireError
from protocol.scope import Scope
from protocol.shared_servers import (
    BeginServer,
    CallFailed,
    CallGave,
    CallProgress,
    CallTool,
    CancelCall,
    HoldServer,
    PersonAnswered,
    PersonAsked,
    ReleaseServer,
    ServerState,
    ToParent,
    ToProcess,
    decode_to_parent,
    frame,
)

_log = logging.getLogger("polypod.processes")
#: Bytes that a process may leave unread before it is sent no more of how far calls are.
_MOST_UNREAD = 1 << 16


class SharedServers:
    """The parent's end of the socket by which a process asks for servers. What it called is cancelled, and
    what it holds is released, once it has ended.
    """

    def __init__(self, end: socket.socket, connections: OwnConnections) -> None:
        self._connections = connections
        self._held: dict[int, _Held] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        #: All that is under way, the calls among it.
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._numbers = itertools.count(1)
        self._serving = asyncio.create_task(self._serve(end))
        self._serving.add_done_callback(lambda _: end.close())  # also where it never began

    async def close(self, seconds: float) -> None:
        """Release what the process held, which has ended; wait ``seconds`` for servers that end with that.
        Who waits for this may be cancelled; what is released is released.
        """
        self._serving.cancel()
        self._cancel_calls()
        held, self._held = self._held, {}
        for each in held.values():
            self._begin(each.release())
        await asyncio.wait({self._serving, *self._tasks}, timeout=seconds)

    async def _serve(self, end: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=end)
        try:
            await self._read(reader)
        finally:
            self._writer.transport.abort()
            self._cancel_calls()

    def _cancel_calls(self) -> None:
        for call in self._calls.values():
            call.cancel()

    async def _read(self, reader: StreamReader) -> None:
        try:
            while True:
                self._take(decode_to_parent(await read_frame(reader)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except (WireError, KeyError) as error:
            _log.warning("a pod's process sent an unknown request for MCP servers: %r", error)

    def _take(self, message: ToParent) -> None:
        match message:
            case HoldServer(number, of, folder) if number not in self._held:
                held = self._held[number] = _Held(number, self._connections.connect(of, folder), self._send)
                held.connection.hold()
                self._begin(held.open())
            case BeginServer(number):
                self._held[number].connection.begin()
            case ReleaseServer(number):
                self._begin(self._held.pop(number).release())
            case CallTool(number):
                task = self._calls[number] = self._begin(self._call(message))
                task.add_done_callback(lambda _: self._calls.pop(number))
            case CancelCall(number):
                if (task := self._calls.get(number)) is not None:  # type: ignore[assignment]
                    task.cancel()
            case PersonAnswered(number, answer):
                if (question := self._questions.get(number)) is not None and not question.done():
                    question.set_result(answer)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _send(self, message: ToProcess) -> None:
        """Raises WireError for what is too large."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    def _send_progress(self, call: int, words: str) -> None:
        """Send how far a call is, unless the process does not read what it was sent."""
        if self._writer.transport.get_write_buffer_size() < _MOST_UNREAD:
            self._send(CallProgress(call, words))

    async def _call(self, asked: CallTool) -> None:
        ctx: ToolContext[Any] = ToolContext(
            pwd=Path(),
            scope=Scope(),
            pod=asked.pod,
            progress=partial(self._send_progress, asked.id),
        )
        if asked.asks:
            ctx.ask_person = partial(self._ask, asked.id)
        try:
            connection = self._connection(asked.server)
            parts = await connection.call(asked.tool, asked.arguments, ctx, asked.seconds)
            self._send(CallGave(asked.id, tuple(parts)))
        except Exception as error:  # noqa: BLE001 - goes to who called
            self._send(CallFailed(asked.id, Failure.of(error)))
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _connection(self, number: int) -> Admitted:
        """That of a server that is held. Raises ToolError."""
        if (held := self._held.get(number)) is None:
            raise ToolError("the MCP server was closed before it was called")
        return held.connection

    async def _ask(self, call: int, words: str, form: dict[str, Any]) -> dict[str, Any] | None:
        """What a person answers, whom the process asks."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self._send(PersonAsked(call, number, words, form))
            return await answer
        finally:
            del self._questions[number]


class _Held:
    """A server that a process holds, which is sent where it stands whenever that changes."""

    def __init__(self, number: int, connection: Admitted, send: Callable[[ToProcess], None]) -> None:
        self.connection = connection
        self._number, self._send = number, send
        self._settled = False
        self._sent: ServerState | None = None

    async def open(self) -> None:
        """Have it started, and wait a moment for its tools."""
        self.connection.watchers.append(self._report)
        self.connection.begin()
        await self.connection.wait_listed()
        self._settled = True
        self._report()

    async def release(self) -> None:
        """Need it no more."""
        if self._report in self.connection.watchers:
            self.connection.watchers.remove(self._report)
        await self.connection.release()

    def _report(self) -> None:
        of = self.connection
        state = ServerState(self._number, of.listing, of.failure, of.has_process, self._settled)
        if state != self._sent:
            self._sent = state
            self._send(state)
