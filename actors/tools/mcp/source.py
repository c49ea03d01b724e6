"""``McpSource``: the tools of one server for pods that ask for it in the same way, and ``McpServers``, all of
a system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from actors.runtime.children.launcher import Launcher
from actors.runtime.latest import Latest
from actors.tools.base import Tool, ToolContext
from actors.tools.mcp.connection import Connection, Seconds
from actors.tools.mcp.listing import ListedTool
from actors.tools.mcp.log import ServerLog
from actors.tools.mcp.names import tool_name
from protocol.errors import ManifestError
from protocol.items import Part
from protocol.mcp import McpServer
from protocol.text import encodable


class McpSource:
    """A ``ToolSource``. Pods wait for a server whose tools nobody knows yet, and for that only a moment."""

    def __init__(self, server: McpServer, connection: Connection) -> None:
        self.name = f"MCP server {server.name}"
        self._server = server
        self._connection = connection
        self._tools = Latest(self._made)
        self._by_name: dict[str, tuple[ListedTool, Tool]] = {}

    @property
    def failure(self) -> str | None:
        """What people should know of the server."""
        return self._connection.failure

    @property
    def may_write(self) -> bool:
        """Whether the server is at work on this machine, with tools of this pod's that write."""
        tools = (tool for _, tool in self._by_name.values())
        return self._connection.has_process and any(each.asks for each in tools)

    async def open(self) -> None:
        """Have the server started, and wait a moment for its tools."""
        self._connection.hold()
        self._connection.begin()
        await self._connection.wait_listed()

    def tools(self) -> Iterable[Tool]:
        """The tools that the server listed last and that this pod may have."""
        listing = self._connection.listing
        if listing is None:
            self._connection.begin()
            return ()
        tools: tuple[Tool, ...] = self._tools(listing)
        return tools

    async def close(self) -> None:
        """End the server, unless others need it."""
        await self._connection.release()

    def _made(self, listing: tuple[ListedTool, ...]) -> tuple[Tool, ...]:
        """The tools of a list; one that is listed as before is the same as before."""
        by_name: dict[str, tuple[ListedTool, Tool]] = {}
        for each in listing:
            if self._has(each.name):
                before = self._by_name.get(each.name)
                kept = before is not None and before[0] == each
                by_name[each.name] = before if kept and before is not None else (each, self._tool(each))
        self._by_name = by_name
        return tuple(tool for _, tool in by_name.values())

    def _has(self, tool: str) -> bool:
        server = self._server
        if any(fnmatchcase(tool, pattern) for pattern in server.deny):
            return False
        return not server.allow or any(fnmatchcase(tool, pattern) for pattern in server.allow)

    def _tool(self, listed: ListedTool) -> Tool:
        server, connection, own_name = self._server, self._connection, listed.name

        async def call(arguments: dict[str, Any], ctx: ToolContext) -> list[Part]:
            return await connection.for_pod(ctx.pod).call(own_name, arguments, ctx, server.timeout)

        concurrency = server.concurrency or ("read_only" if listed.read_only else "exclusive")
        return Tool(
            call,
            name=tool_name(server.name, own_name),
            description=encodable(listed.description),
            concurrency=concurrency,
            input_schema=listed.schema,
            asks=concurrency != "read_only",
        )


class McpServers:
    """The servers of one system. Those that are reached in the same way are one, whoever names them."""

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
        self._sources: WeakValueDictionary[bytes, McpSource] = WeakValueDictionary()

    def sources(self, servers: Iterable[McpServer], folder: str) -> list[McpSource]:
        """A source for each server, the same for pods that ask for it in the same way. Raises ManifestError
        where the SDK is not installed.
        """
        if find_spec("mcp") is None:
            raise ManifestError(
                "tools.mcp: servers of tools need a library that is not installed",
                hint="pip install 'polypod[mcp]'",
            )
        return [self._source(each, folder) for each in servers]

    def _source(self, server: McpServer, folder: str) -> McpSource:
        folder = "" if server.url is not None else folder
        key = msgspec.json.encode((server, folder), order="deterministic")
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = McpSource(server, self._connection(server, folder))
        return source

    def _connection(self, server: McpServer, folder: str) -> Connection:
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
