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

from actors.pod.channel import read_frame
from actors.tools.base import ToolContext
from actors.tools.mcp.connection import Connection
from actors.tools.mcp.connections import OwnConnections
from protocol.errors import Failure, WireError
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


class SharedServers:
    """The parent's end of the socket by which a process asks for servers. What it holds is released, and
    what it called is cancelled, once it has ended.
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

    async def close(self) -> None:
        """The process has ended."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self, end: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=end)
        try:
            await self._read(reader)
        finally:
            self._writer.close()
            for call in self._calls.values():
                call.cancel()
            for held in self._held.values():
                self._begin(held.release())
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, reader: StreamReader) -> None:
        try:
            while True:
                self._take(decode_to_parent(await read_frame(reader)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except (WireError, KeyError) as error:
            _log.warning("a pod's process asks for servers in no way that is known: %r", error)

    def _take(self, message: ToParent) -> None:
        match message:
            case HoldServer(number, of, folder):
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
        self._writer.write(frame(message))

    async def _call(self, asked: CallTool) -> None:
        ctx: ToolContext[Any] = ToolContext(
            pwd=Path(),
            scope=Scope(),
            pod=asked.pod,
            progress=lambda words: self._send(CallProgress(asked.id, words)),
        )
        if asked.asks:
            ctx.ask_person = partial(self._ask, asked.id)
        connection = self._held[asked.server].connection
        try:
            parts = await connection.call(asked.tool, asked.arguments, ctx, asked.seconds)
            self._send(CallGave(asked.id, tuple(parts)))
        except Exception as error:  # noqa: BLE001 - goes to who called
            self._send(CallFailed(asked.id, Failure.of(error)))
        with contextlib.suppress(OSError):
            await self._writer.drain()

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

    def __init__(self, number: int, connection: Connection, send: Callable[[ToProcess], None]) -> None:
        self.connection = connection
        self._number, self._send = number, send
        self._settled = False

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
        self._send(state)
