"""How an MCP server is reached: a child of our launcher, or streamable HTTP by the SDK."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from actors.runtime.children.child import Child, ChildEnd, Ladder
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.pipes import ChildOutput
from actors.runtime.in_thread import in_thread
from actors.tools.mcp.http_bodies import mend_body
from actors.tools.mcp.log import ServerLog
from actors.tools.mcp.streams import LONGEST_MESSAGE, MendedStream, ServerInput, ServerOutput
from protocol.errors import ChildError, LineTooLong

#: A server ends when it reads the end of its input; one that does not is asked to, then killed.
_LADDER = Ladder(request_wait=0.5, term_wait=0.5)
#: Bytes of a line of its standard error.
_LONGEST_LINE = 1 << 16
#: Seconds for connecting, sending and waiting for a connection. How long an answer may take is bounded by
#: call, and streams of changes are silent for hours.
_HTTP_SECONDS = 30.0


class ChildTransport:
    """A server that our launcher starts, and its streams."""

    def __init__(
        self,
        launcher: Launcher,
        command: tuple[str, ...],
        cwd: str,
        env: Mapping[str, str],
        log: ServerLog,
        over: Callable[[], object],
        *,
        wait: float,
    ) -> None:
        """``over`` is called once its streams have ended; ``wait`` is how long a place among the children
        of the system may be waited for.
        """
        self._launcher = launcher
        self._command, self._cwd, self._env = command, cwd, env
        self._log = log
        self._over = over
        self._wait = wait
        self._child: Child | None = None
        self._listener: asyncio.Task[None] | None = None
        #: How it ended.
        self.end: ChildEnd | None = None

    async def __aenter__(self) -> tuple[Any, Any]:
        child = self._child = await self._launcher.start(
            self._command,
            cwd=self._cwd,
            env={**allowed_environment(), **self._env},
            stdin="pipe",
            stdout="pipe",
            stderr="pipe",
            ladder=_LADDER,
            wait=self._wait,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._listener = asyncio.get_running_loop().create_task(_listen(child.stderr, self._log))
        output = ServerOutput(child.stdout, self._log.add, self._over)
        return output, ServerInput(child.stdin, self._over)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, listener = self._child, self._listener
        if child is None or listener is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            with contextlib.suppress(ChildError):
                self.end = await child.stop()
            await asyncio.wait({listener}, timeout=0.1)
        finally:
            listener.cancel()


async def _listen(stderr: ChildOutput, log: ServerLog) -> None:
    """Keep what a server says beside its answers."""
    while True:
        try:
            line = await stderr.readline(_LONGEST_LINE)
        except LineTooLong:
            log.add(f"[polypod: a line of more than {_LONGEST_LINE:,} bytes was skipped]")
            continue
        if not line:
            return
        log.add(line.decode("utf-8", "replace"))
        await asyncio.sleep(0)  # a server that never stops talking holds up nobody


class HttpTransport:
    """A server at a URL."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> tuple[Any, Any]:
        http = await in_thread(self._client)  # certificates are read
        async with contextlib.AsyncExitStack() as opening:
            await opening.enter_async_context(http)
            streams = streamable_http_client(self._url, http_client=http, max_sse_event_size=LONGEST_MESSAGE)
            read, write = await opening.enter_async_context(streams)
            self._open = opening.pop_all()
        return MendedStream(read), write

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=dict(self._headers),
            timeout=httpx2.Timeout(_HTTP_SECONDS, read=None),
            event_hooks={"response": [mend_body]},
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._open.__aexit__(kind, error, trace)
