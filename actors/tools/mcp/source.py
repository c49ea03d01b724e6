"""``McpSource``: the tools of one server for pods that ask for it in the same way, and ``McpServers``, all of
a system, over whatever connections it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Protocol
from weakref import WeakValueDictionary

import msgspec

from actors.runtime.latest import Latest
from actors.tools.base import Tool, ToolContext
from actors.tools.mcp.names import tool_name
from protocol.errors import ManifestError
from protocol.items import Part
from protocol.mcp import McpServer
from protocol.shared_servers import ListedTool
from protocol.text import encodable


class ServerConnection(Protocol):
    """How a server is reached, and those of its tools that a pod may have: by a connection of this process,
    or by way of its parent.
    """

    @property
    def listing(self) -> tuple[ListedTool, ...] | None:
        """Those of the tools that it listed last; None where it never has."""

    @property
    def failure(self) -> str | None:
        """What people should know of it, in words; None where all is well."""

    @property
    def has_process(self) -> bool:
        """Whether a server that was started on this machine is at work."""

    def hold(self) -> None:
        """Count one more source that needs the server."""

    def begin(self) -> None:
        """Have it started, unless it is, or has ended too often."""

    async def wait_listed(self) -> None:
        """Wait a moment for its list of tools, where it is not known."""

    async def call(
        self, tool: str, arguments: dict[str, Any], ctx: ToolContext, seconds: float
    ) -> list[Part]:
        """What a tool gives, within ``seconds`` of its last sign of life. Raises ToolError."""

    async def release(self) -> None:
        """Count one source less; with the last one the server is ended."""


class Connections(Protocol):
    """The connections of one process."""

    def connect(self, server: McpServer, folder: str) -> ServerConnection:
        """How a server is reached that would run in ``folder``, with the tools that ``server`` admits."""


class McpSource:
    """A ``ToolSource``. Pods wait for a server whose tools nobody knows yet, and for that only a moment."""

    def __init__(self, server: McpServer, connection: ServerConnection) -> None:
        self.name = f"MCP server {server.name}"
        self._server = server
        self._connection = connection
        self._tools = Latest(self._make_tools)
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
        try:
            self._connection.begin()
            await self._connection.wait_listed()
        except BaseException:  # who does not open it does not close it
            await self._connection.release()
            raise

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

    def _make_tools(self, listing: tuple[ListedTool, ...]) -> tuple[Tool, ...]:
        """Make the tools of a list; one that is listed as before is the same as before."""
        by_name: dict[str, tuple[ListedTool, Tool]] = {}
        for each in listing:
            before = self._by_name.get(each.name)
            kept = before is not None and before[0] == each
            by_name[each.name] = before if kept and before is not None else (each, self._tool(each))
        self._by_name = by_name
        return tuple(tool for _, tool in by_name.values())

    def _tool(self, listed: ListedTool) -> Tool:
        server, connection, own_name = self._server, self._connection, listed.name

        async def call(arguments: dict[str, Any], ctx: ToolContext) -> list[Part]:
            return await connection.call(own_name, arguments, ctx, server.timeout)

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
    """The sources of one system."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._sources: WeakValueDictionary[bytes, McpSource] = WeakValueDictionary()

    def sources(self, servers: Iterable[McpServer], folder: str) -> list[McpSource]:
        """A source for each server, the same for pods that ask for it in the same way. Raises ManifestError
        where the SDK is not installed.
        """
        if find_spec("mcp") is None:
            raise ManifestError(
                "tools.mcp: MCP servers need a library that is not installed",
                hint="pip install 'polypod[mcp]'",
            )
        return [self._source(each, folder) for each in servers]

    def _source(self, server: McpServer, folder: str) -> McpSource:
        folder = "" if server.url is not None else folder
        key = msgspec.json.encode((server, folder), order="deterministic")
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = McpSource(server, self._connections.connect(server, folder))
        return source
