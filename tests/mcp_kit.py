"""MCP servers for tests, and pods that call their tools."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from extras import skip_without
from warm import Popen

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.runtime.children.launcher import Launcher
from actors.system import PodSystem
from actors.tools.mcp.connection import Seconds
from actors.tools.mcp.connections import OwnConnections
from actors.tools.mcp.source import McpServers
from protocol.events import Alert, Event, ToolProgress, ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest

skip_without("mcp", "mcp")

SERVERS = Path(__file__).parent / "mcp_servers"


def raw(*sins: str, name: str = "raw", **settings: Any) -> dict[str, Any]:
    """A server that is written by hand, for a manifest; it does what its tools are named after."""
    command = [sys.executable, "-I", "-S", str(SERVERS / "raw_server.py"), *sins]
    return {"name": name, "command": command, "approval": "allow", **settings}


def made_with_sdk(*words: str, name: str = "sdk", **settings: Any) -> dict[str, Any]:
    """A server of the SDK's own, of the newer generation unless ``words`` say otherwise."""
    command = [sys.executable, str(SERVERS / "sdk_server.py"), *words]
    return {"name": name, "command": command, "approval": "allow", **settings}


@contextmanager
def at_a_port(*words: str) -> Iterator[str]:
    """A server of the SDK's own over HTTP, at the URL that is given."""
    command = [sys.executable, str(SERVERS / "sdk_server.py"), "http", *words]
    env = os.environ | {"PYTHON_ALSO_IMPORT": "mcp.server,uvicorn.protocols.http.auto,uvicorn.lifespan.on"}
    with Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
        finally:
            process.kill()


def at(url: str, **settings: Any) -> dict[str, Any]:
    """That server, for a manifest."""
    return {"name": "sdk", "url": url, "approval": "allow", **settings}


def having(*servers: dict[str, Any], **settings: Any) -> PodManifest:
    """A manifest with these servers."""
    return PodManifest.of(name="p", mcp=list(servers), **settings)


def calls(*wanted: tuple[str, dict[str, Any]] | str) -> list[Reply]:
    """Replies that make one call after the other, and then end."""
    asked = [each if isinstance(each, tuple) else (each, {}) for each in wanted]
    return [*(call(name, arguments) for name, arguments in asked), say("done")]


class Played:
    """What a run of a pod gave."""

    def __init__(self, events: list[Event]) -> None:
        self.results: list[ToolResult] = [e.item for e in events if isinstance(e, ToolResulted)]
        self.progress = [e.text for e in events if isinstance(e, ToolProgress)]
        self.alerts = [e.text for e in events if isinstance(e, Alert)]

    @property
    def texts(self) -> list[str]:
        return [each.text for each in self.results]


async def follow(pod: Pod) -> Played:
    """Run a pod to its end."""
    return Played([event async for event in pod.stream("go")])


async def play(*wanted: tuple[str, dict[str, Any]] | str, of: dict[str, Any]) -> Played:
    """What a pod's calls of one server give."""
    async with PodSystem() as system:
        pod = await system.spawn(having(of), client=ScriptedClient(calls(*wanted)))
        return await follow(pod)


@asynccontextmanager
async def servers(**seconds: float) -> AsyncIterator[McpServers]:
    """Servers without a system."""
    launcher = Launcher()
    try:
        yield McpServers(OwnConnections(lambda: launcher, None, seconds=Seconds(**seconds)))
    finally:
        await launcher.aclose()
