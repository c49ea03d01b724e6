"""``ParentServers``: the MCP servers of a pod's process, whose connections its parent has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from asyncio import StreamReader, StreamWriter
from typing import Any

from msgspec.structs import replace

from actors.runtime.read_frame import read_frame
from actors.tools.base import ToolContext
from protocol.error_of import error_of
from protocol.errors import ToolError, WireError
from protocol.items import Part
from protocol.mcp import McpServer
from protocol.shared_servers import (
    BeginServer,
    CallFailed,
    CallGave,
    CallProgress,
    CallTool,
    CancelCall,
    HoldServer,
    ListedTool,
    PersonAnswered,
    PersonAsked,
    ReleaseServer,
    ServerState,
    ToParent,
    ToProcess,
    decode_to_process,
    frame,
)

_GONE = "the parent process, which holds the connections to MCP servers, is gone"


class ParentServers:
    """Asks the parent to start servers and to call their tools, over a socket of their own."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._servers: dict[int, ParentServer] = {}
        self._calls: dict[int, _Call] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def over(cls, end: socket.socket) -> ParentServers:
        """Those that the other end of ``end`` has."""
        return cls(*await asyncio.open_connection(sock=end))

    def connect(self, server: McpServer, folder: str) -> ParentServer:
        """How a server is reached that would run in ``folder``."""
        return ParentServer(self, server, folder)

    def hold(self, held: ParentServer) -> int:
        """Have a server started; the number that it has from now on."""
        number = next(self._numbers)
        self._servers[number] = held
        self.notify(HoldServer(number, held.server, held.folder))
        if self._reading.done():
            held.lose()
        return number

    def release(self, number: int) -> None:
        """Have a server left alone."""
        del self._servers[number]
        self.notify(ReleaseServer(number))

    async def call(
        self, server: int, tool: str, arguments: dict[str, Any], ctx: ToolContext, seconds: float
    ) -> list[Part]:
        """What a tool gives. Raises ToolError."""
        call = _Call(ctx)
        number = next(self._numbers)
        self._calls[number] = call
        try:
            asks = ctx.ask_person is not None
            self.send(CallTool(number, server, tool, arguments, seconds, ctx.pod, asks))
            return await call.gave
        except asyncio.CancelledError:
            self.notify(CancelCall(number))
            raise
        finally:
            del self._calls[number]
            call.end()

    def send(self, message: ToParent) -> None:
        """Say something to the parent. Raises ToolError where it is gone, or the message too large."""
        if self._reading.done():
            raise ToolError(_GONE)
        try:
            self._writer.write(frame(message))
        except WireError as error:
            raise ToolError(str(error)) from error

    def notify(self, message: ToParent) -> None:
        """Say something that a parent which is gone need not know."""
        with contextlib.suppress(ToolError):
            self.send(message)

    async def _read(self) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, WireError):
                while True:
                    self._take(decode_to_process(await read_frame(self._reader)))
        finally:
            self._writer.close()
            for server in self._servers.values():
                server.lose()
            for call in self._calls.values():
                call.fail(ToolError(_GONE))

    def _take(self, message: ToProcess) -> None:
        if isinstance(message, ServerState):
            if (server := self._servers.get(message.server)) is not None:
                server.take(message)
        elif (call := self._calls.get(message.id)) is not None:
            call.take(message, self)


class ParentServer:
    """A ``ServerConnection`` by way of the parent."""

    def __init__(self, of: ParentServers, server: McpServer, folder: str) -> None:
        self.server, self.folder = server, folder
        self._of = of
        self._users = 0
        self._number = 0
        self._state = ServerState(0)
        self._settled = asyncio.Event()

    @property
    def listing(self) -> tuple[ListedTool, ...] | None:
        return self._state.tools

    @property
    def failure(self) -> str | None:
        return self._state.failure

    @property
    def has_process(self) -> bool:
        return self._state.has_process

    def hold(self) -> None:
        self._users += 1
        if self._users == 1:
            self._settled.clear()
            self._number = self._of.hold(self)

    def begin(self) -> None:
        if self._users and self._settled.is_set():
            self._of.notify(BeginServer(self._number))

    async def wait_listed(self) -> None:
        await self._settled.wait()

    async def call(
        self, tool: str, arguments: dict[str, Any], ctx: ToolContext, seconds: float
    ) -> list[Part]:
        return await self._of.call(self._number, tool, arguments, ctx, seconds)

    async def release(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._of.release(self._number)

    def take(self, state: ServerState) -> None:
        """Note where the server stands; a list that is as before stays the same object."""
        same = state.tools == self._state.tools
        self._state = replace(state, tools=self._state.tools) if same else state
        if state.settled:
            self._settled.set()

    def lose(self) -> None:
        """Note that nothing more comes from the parent."""
        self.take(ServerState(self._number, self.listing, _GONE, settled=True))


class _Call:
    """A call that the parent makes."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self.gave: asyncio.Future[list[Part]] = asyncio.get_running_loop().create_future()
        self._asking: set[asyncio.Task[None]] = set()

    def take(self, message: CallProgress | PersonAsked | CallGave | CallFailed, of: ParentServers) -> None:
        if isinstance(message, CallProgress):
            self._ctx.progress(message.words)
        elif isinstance(message, PersonAsked):
            task = asyncio.create_task(self._ask(message, of))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        elif isinstance(message, CallFailed):
            self.fail(error_of(message.failure))
        elif not self.gave.done():  # else it was cancelled meanwhile
            self.gave.set_result(list(message.parts))

    def fail(self, error: Exception) -> None:
        """Have the call end with an error."""
        if not self.gave.done():
            self.gave.set_exception(error)

    def end(self) -> None:
        """Ask nobody any more."""
        for each in self._asking:
            each.cancel()

    async def _ask(self, asked: PersonAsked, of: ParentServers) -> None:
        answer = None
        try:
            if self._ctx.ask_person is not None:
                answer = await self._ctx.ask_person(asked.words, asked.form)
        finally:
            of.notify(PersonAnswered(asked.question, answer))
