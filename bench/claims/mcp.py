"""Claim: the cost of a call of an MCP server over stdio, beside the official SDK's client alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from actors.runtime.children.launcher import Launcher
from actors.tools.base import ToolContext
from actors.tools.mcp.connections import OwnConnections
from actors.tools.mcp.source import McpServers
from actors.tools.toolbox import Toolbox
from bench.claim import Claim, at_most_times
from bench.measure import Stopwatch
from bench.results import Reading
from protocol.items import ToolCall
from protocol.manifest import PodManifest
from protocol.scope import Scope

CLAIM = Claim("mcp", "mcp: a call of a server of tools over stdio, and its answer")

#: A server that only answers, so that the client is what is measured.
_SERVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    method, number = asked.get("method"), asked.get("id")
    if number is None:
        continue
    answer = {"jsonrpc": "2.0", "id": number}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
        answer["result"]["serverInfo"] = {"name": "bench", "version": "1"}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        words = asked["params"]["arguments"]["text"]
        answer["result"] = {"content": [{"type": "text", "text": words}]}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    sys.stdout.write(json.dumps(answer) + "\\n")
    sys.stdout.flush()
"""
_COMMAND = (sys.executable, "-I", "-S", "-c", _SERVER)
_ARGUMENTS = {"text": "one two three"}


async def _measured(calls: int, call: Callable[[], Awaitable[str]]) -> list[Reading]:
    for _ in range(20):
        assert await call() == _ARGUMENTS["text"]
    with Stopwatch() as watch:
        for _ in range(calls):
            await call()
    return [watch.each("time of a call", calls)]


async def _by_polypod(calls: int) -> list[Reading]:
    launcher = Launcher()
    servers = McpServers(OwnConnections(lambda: launcher, None))
    manifest = PodManifest.of(mcp=[{"name": "bench", "command": list(_COMMAND)}])
    (source,) = servers.sources(manifest.tools.mcp, "/")
    try:
        await source.open()
        tools = Toolbox(source.tools())

        async def call() -> str:
            ctx = ToolContext(pwd=Path("/"), scope=Scope())
            return (await tools.run(ToolCall("1", "bench__echo", _ARGUMENTS), ctx)).text

        return await _measured(calls, call)
    finally:
        await source.close()
        await launcher.aclose()


async def _by_sdk(calls: int) -> list[Reading]:
    from mcp import Client, StdioServerParameters  # noqa: PLC0415 - only the measured process needs it

    server = StdioServerParameters(command=_COMMAND[0], args=list(_COMMAND[1:]))
    async with Client(server, cache=None) as client:
        await client.list_tools()

        async def call() -> str:
            result = await client.call_tool("echo", _ARGUMENTS, progress_callback=_note)
            return str(result.content[0].text)  # type: ignore[union-attr]

        return await _measured(calls, call)


async def _note(progress: float, total: float | None, message: str | None) -> None:
    """Take progress, which polypod asks for with each call too."""


@CLAIM.case("a call", full=2000, quick=500, targets={"time of a call": at_most_times(1.3, "mcp SDK")})
def call_by_polypod(calls: int) -> list[Reading]:
    """A call of a toolbox's tool: its task, its time-out, its result as parts."""
    return asyncio.run(_by_polypod(calls))


@CLAIM.case("a call", by="mcp SDK", kind="floor", full=2000, quick=500)
def call_by_sdk(calls: int) -> list[Reading]:
    """A call by the SDK's client, over its own pipes."""
    return asyncio.run(_by_sdk(calls))
