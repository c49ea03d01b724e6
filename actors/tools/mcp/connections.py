"""``OwnConnections``: the MCP servers that one process has started, or reached, itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from actors.runtime.children.launcher import Launcher
from actors.tools.mcp.connection import Connection, Seconds
from actors.tools.mcp.log import ServerLog
from protocol.mcp import McpServer


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

    def connect(self, server: McpServer, folder: str) -> Connection:
        """The connection to a server, which runs in ``folder`` unless it names another."""
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
