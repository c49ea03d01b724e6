"""``Session``: what a server is asked, by the SDK's client. Only who needs a server imports this."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import mcp_types
import pydantic
from mcp import Client, MCPError
from mcp.client import ClientRequestContext

from actors.tools.mcp.content import parts_of_result
from actors.tools.mcp.listing import MOST_LISTED, Listing, listing_of
from actors.version import __version__
from protocol.errors import ToolError
from protocol.foreign import named_words
from protocol.items import Part, TextPart

#: Pages of a list of tools.
_MOST_PAGES = 100
#: Seconds for a list that is asked for again.
_LIST_SECONDS = 30.0
#: Seconds after which changes are listened for again, where that was broken off.
_LISTEN_AGAIN = 5.0
_NEWER = "2026-07-28"
_SHOWN = 1000
#: Turns of the loop in which the SDK's tasks for progress that came with an answer begin.
_TURNS = 3

for _name in ("mcp", "client", "httpx2", "httpcore2"):  # what they say is for a log, never for a terminal
    logging.getLogger(_name).addHandler(logging.NullHandler())

_log = logging.getLogger("polypod.tools")

#: Asks a person: a message and the schema of the answer in, the answer out, None where there is none.
Elicit = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]


class Progress(Protocol):
    """Called with progress: how far, of how much where that is known, and words."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None: ...


class UnknownSession(Exception):  # noqa: N818 - it says what to do: begin a new one
    """A server at a URL knows the session no more, and has done nothing."""


class Session:
    """A server that is at work."""

    def __init__(
        self,
        name: str,
        transport: Any,
        changed: Callable[[Listing], object],
        elicit: Elicit,
        *,
        older: bool,
    ) -> None:
        """``changed`` gets its tools, at first and when they change. ``older`` is whether it is known to
        be of the generation that is asked for a handshake.
        """
        self._name = name
        self._changed = changed
        self._elicit = elicit
        self._relist = asyncio.Event()
        self._client = Client(
            transport,
            mode="legacy" if older else "auto",
            client_info=mcp_types.Implementation(name="polypod", version=__version__),
            elicitation_callback=self._on_elicit,
            message_handler=self._on_message,
            cache=None,
        )

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Agree on a version, and list the tools; the session ends with ``stack``."""
        await stack.enter_async_context(self._client)
        await self._list()

    @property
    def is_older(self) -> bool:
        """Whether it speaks the older generation of the protocol."""
        version: str = self._client.protocol_version
        return version < _NEWER

    async def call(self, tool: str, arguments: dict[str, Any], progress: Progress) -> list[Part]:
        """What a tool gives. Raises ToolError where it fails or is refused, ConnectionError where the answer
        was lost, UnknownSession.
        """
        try:
            result = await self._client.call_tool(tool, arguments, progress_callback=progress)
            for _ in range(_TURNS):  # what was sent before the answer may be handled behind it
                await asyncio.sleep(0)
        except MCPError as error:
            if error.message == "Session terminated":
                raise UnknownSession from error
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise ConnectionError(error.message) from error
            raise ToolError(f"MCP server {self._name!r} refused: {error.message} ({error.code})") from error
        except pydantic.ValidationError as error:
            words = str(error)[:_SHOWN]
            raise ToolError(f"MCP server {self._name!r} returned an invalid result: {words}") from error
        parts = parts_of_result(result.content, result.structured_content)
        if result.is_error:
            raise ToolError(_words_of(parts))
        return parts

    # -- lists -----------------------------------------------------------------------------------

    async def _list(self) -> None:
        tools: list[Any] = []
        cursor: str | None = None
        more = False
        for _ in range(_MOST_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            tools += page.tools
            more = bool(page.next_cursor) and page.next_cursor != cursor
            if not more or len(tools) > MOST_LISTED:
                break
            cursor = page.next_cursor
        self._changed(listing_of(tools, more=more))

    async def follow(self) -> None:
        """Follow changes of the list until this is cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            if not self.is_older:
                stack.callback(asyncio.get_running_loop().create_task(self._listen()).cancel)
            while True:
                await self._relist.wait()
                self._relist.clear()
                try:
                    async with asyncio.timeout(_LIST_SECONDS):
                        await self._list()
                except Exception as error:  # noqa: BLE001 - its tools stay those that are known
                    _log.warning("MCP server %s does not list its tools: %s", self._name, named_words(error))

    async def _listen(self) -> None:
        """Listen for changes: servers of the newer generation send them on a stream that is asked for."""
        tools = self._client.server_capabilities.tools
        while tools is not None and tools.list_changed:
            try:
                async with self._client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._relist.set()
            except Exception as error:  # noqa: BLE001 - its tools stay those that are known
                _log.info("MCP server %s does not report changes: %s", self._name, named_words(error))
            await asyncio.sleep(_LISTEN_AGAIN)
            self._relist.set()  # nobody saw what changed meanwhile

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._relist.set()

    # -- questions -------------------------------------------------------------------------------

    async def _on_elicit(
        self,
        context: ClientRequestContext,  # noqa: ARG002 - it does not name the call
        params: mcp_types.ElicitRequestParams,
    ) -> mcp_types.ElicitResult:
        if not isinstance(params, mcp_types.ElicitRequestFormParams):
            return mcp_types.ElicitResult(action="decline")
        answer = await self._elicit(params.message, dict(params.requested_schema))
        if answer is None:
            return mcp_types.ElicitResult(action="decline")
        return mcp_types.ElicitResult(action="accept", content=answer)


def _words_of(parts: list[Part]) -> str:
    """What a tool says of its own call that failed."""
    texts = [part.text for part in parts if isinstance(part, TextPart) and part.text.strip()]
    return "".join(texts) or "the tool failed without giving a reason"
