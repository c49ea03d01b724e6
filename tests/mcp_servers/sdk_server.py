"""An MCP server made with the SDK: over stdio, or with the word ``http`` at a port that it prints."""

import asyncio
import base64
import gzip
import json
import os
import socket
import sys
from typing import Annotated

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Elicit, Image, Resolve
from mcp_types import (
    AudioContent,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from pydantic import BaseModel

READ = ToolAnnotations(readOnlyHint=True)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

server = MCPServer("sdk")


class Town(BaseModel):
    name: str


async def which_town(ctx: Context) -> Elicit[Town]:
    return Elicit("which town?", Town)


@server.tool(annotations=READ)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=READ)
async def pid() -> int:
    """The number of the process."""
    return os.getpid()


@server.tool(annotations=READ)
def variable(name: str) -> str:
    """A variable of the environment."""
    return os.environ.get(name, "not set")


@server.tool(annotations=READ)
async def pause(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "waited"


@server.tool(annotations=READ)
def header(name: str, ctx: Context) -> str:
    """A header of the request."""
    return (ctx.headers or {}).get(name, "not set")


@server.tool(annotations=READ, structured_output=False)
def blocks() -> list:
    """One block of each kind."""
    return [
        TextContent(type="text", text="words"),
        Image(data=PIXEL, format="png").to_image_content(),
        AudioContent(type="audio", data="QUJD", mimeType="audio/wav"),
        EmbeddedResource(type="resource", resource=TextResourceContents(uri="memo://1", text="a memo")),
        ResourceLink(type="resource_link", name="page", uri="https://example.com/", description="an example"),
    ]


@server.tool(annotations=READ)
def long(size: int) -> str:
    """So many letters, twice."""
    return "x" * size


@server.tool(annotations=READ)
def towns() -> dict[str, int]:
    """Structured content."""
    return {"Oslo": 1}


@server.tool(annotations=READ)
def fail() -> str:
    """Fail."""
    raise ValueError("no such thing")


@server.tool()
async def steps(count: int, ctx: Context) -> str:
    """Report how far it is."""
    for number in range(count):
        await ctx.report_progress(number, count, "step")
    return "done"


@server.tool()
async def grow(ctx: Context) -> str:
    """List one more tool."""

    async def grown() -> str:
        """A tool that came."""
        return "grown"

    server.add_tool(grown)
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return "now there are more"


@server.tool()
async def ask(town: Annotated[Town, Resolve(which_town)]) -> str:
    """Ask the person."""
    return f"to {town.name}"


@server.tool()
async def die() -> str:
    """End in mid-call."""
    print("about to die", file=sys.stderr, flush=True)
    os._exit(5)


class Older:
    """An application that knows nothing of the newer generation."""

    def __init__(self, app: object) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: object, send: object) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        asked = json.loads(message["body"])
        if asked.get("method") != "server/discover":
            given = iter([message])

            async def again() -> dict:
                return next(given, None) or await receive()

            await self.app(scope, again, send)
            return
        error = {
            "jsonrpc": "2.0",
            "id": asked["id"],
            "error": {"code": -32601, "message": "Method not found"},
        }
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(error).encode()})


class Odd:
    """An application that lists a tool with a schema nested too deep, and one whose words are not Unicode, before
    one like others, and whose answer to a call is not Unicode either.
    """

    def __init__(self, app: object) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: object, send: object) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        asked = json.loads(message["body"])
        if asked.get("method") not in {"tools/list", "tools/call"}:
            given = iter([message])

            async def again() -> dict:
                return next(given, None) or await receive()

            await self.app(scope, again, send)
            return
        result = self.listing() if asked["method"] == "tools/list" else self.words()
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
        kind = b"application/json"
        if "json" not in sys.argv:
            kind, body = b"text/event-stream", b"event: message\r\ndata: " + body + b"\r\n\r\n"
        headers = [(b"content-type", kind)]
        if "gzip" in sys.argv:
            headers.append((b"content-encoding", b"gzip"))
            body = gzip.compress(body)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), 700):
            await send({"type": "http.response.body", "body": body[start : start + 700], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def listing(self) -> dict:
        deep: dict = {}
        for _ in range(250):
            deep = {"type": "object", "properties": {"a": deep}}
        plain = {"type": "object"}
        return {
            "tools": [
                {"name": "deep", "inputSchema": deep},
                {"name": "half", "description": "half \ud83d", "inputSchema": plain},
                {"name": "fine", "inputSchema": plain},
            ]
        }

    def words(self) -> dict:
        return {"content": [{"type": "text", "text": "half \ud83d, and \U0001f600 whole"}]}


async def serve() -> None:
    own = socket.create_server(("127.0.0.1", 0))
    print(own.getsockname()[1], flush=True)
    app = server.streamable_http_app(json_response="json" in sys.argv)
    app = Older(app) if "older" in sys.argv else app
    app = Odd(app) if "odd" in sys.argv else app
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[own])


if __name__ == "__main__":
    if "http" in sys.argv:
        asyncio.run(serve())
    else:
        server.run()
