"""``OwnConnections``: the MCP servers that one process has started, or reached, itself, and ``Admitted``: one
of them as a pod may use it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from actors.runtime.children.launcher import Launcher
from actors.runtime.latest import Latest
from actors.tools.base import ToolContext
from actors.tools.mcp.connection import Connection, Seconds
from actors.tools.mcp.listing import is_admitted, usable_tools
from actors.tools.mcp.log import ServerLog
from protocol.items import Part
from protocol.mcp import McpServer
from protocol.shared_servers import ListedTool


class OwnConnections:
    """Servers that are reached in the same way are one, whoever names them, and by whatever name."""

    def __init__(
        self,
        launcher: Callable[[], Launcher],
        logs: Path | None,
        variables: Mapping[str, str] | None = None,
        seconds: Seconds | None = None,
    ) -> None:
        """``logs`` is the folder of what servers say on standard error, ``variables`` the environment."""
        self._launcher = launcher
        self._logs = logs
        self._variables = os.environ if variables is None else variables
        self._seconds = seconds or Seconds()
        self._connections: WeakValueDictionary[bytes, Connection] = WeakValueDictionary()

    def connect(self, server: McpServer, folder: str) -> Admitted:
        """The connection to a server, which runs in ``folder`` unless it names another."""
        return Admitted(self._connect(server, folder), server)

    def _connect(self, server: McpServer, folder: str) -> Connection:
        folder = "" if server.url is not None else folder
        plain = McpServer(
            server.name,
            command=server.command,
            url=server.url,
            cwd=server.cwd,
            env=server.env,
            headers_env=server.headers_env,
        )
        key = msgspec.json.encode((replace(plain, name=""), folder), order="deterministic")
        found = self._connections.get(key)
        if found is None:
            log = None
            if self._logs is not None and server.url is None:
                log = self._logs / f"{server.name}-{sha256(key).hexdigest()[:12]}.log"
            found = self._connections[key] = Connection(
                plain, folder, self._launcher, ServerLog(log), self._variables, self._seconds
            )
        return found


class Admitted:
    """A connection with those of its tools that ``server`` admits: a ``ServerConnection``."""

    def __init__(self, connection: Connection, server: McpServer) -> None:
        self._connection = connection
        self._name = server.name
        admits = partial(is_admitted, server=server)
        self._usable = Latest(partial(usable_tools, admits=admits))
        self._listing: tuple[ListedTool, ...] | None = None

    @property
    def listing(self) -> tuple[ListedTool, ...] | None:
        """Its tools, as it listed them last, the same tuple while they are; None where it never has."""
        listing = self._connection.listing
        if listing is not None and (tools := self._usable(listing)[0]) != self._listing:
            self._listing = tools
        return self._listing

    @property
    def failure(self) -> str | None:
        """What people should know of it, in words; None where all is well."""
        listing = self._connection.listing
        if listing is None:
            return self._connection.failure
        words = "; ".join(self._usable(listing)[1])
        return f"some tools of MCP server {self._name!r} are left out: {words}" if words else None

    @property
    def has_process(self) -> bool:
        return self._connection.has_process

    @property
    def watchers(self) -> list[Callable[[], object]]:
        """Called where what is known of the server may have changed."""
        return self._connection.watchers

    def hold(self) -> None:
        self._connection.hold()

    def begin(self) -> None:
        self._connection.begin()

    async def wait_listed(self) -> None:
        await self._connection.wait_listed()

    async def call(
        self, tool: str, arguments: dict[str, Any], ctx: ToolContext, seconds: float
    ) -> list[Part]:
        return await self._connection.call(tool, arguments, ctx, seconds)

    async def release(self) -> None:
        await self._connection.release()
