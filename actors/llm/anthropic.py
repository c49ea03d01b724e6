"""The client of every server that speaks Anthropic's messages: the vendor, its proxies, llama-server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from actors.llm.address import base_url_of, where_of
from actors.llm.anthropic_answer import MessagesAnswer
from actors.llm.anthropic_request import Caching, Dialect, adapted, answer_tool_of, body_of, encode_some
from actors.llm.base import Block, Request
from actors.llm.endpoint import Entry
from actors.llm.http import HttpPool, Peer, Reply
from actors.llm.incoming import Incoming, posted
from actors.llm.presets import start_command_for
from protocol.errors import ModelError

#: The version of the API that is spoken.
API_VERSION = "2023-06-01"
VENDOR_HOST = "api.anthropic.com"

_DIALECT = "anthropic.dialect."
#: Set in a pod's scratch once its history is known to hold reasoning that this model does not take back.
_FOREIGN_REASONING = "anthropic.foreign_reasoning"
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 415, 422})


class AnthropicClient:
    """Talks to one model at one base URL (with or without ``/v1`` at its end), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams,
    ``caching`` says how long the vendor keeps what requests begin with (None: not at all). ``extra`` are
    fields that every request has besides (``{"thinking": …}``), ``headers`` the same for its head.
    """

    def __init__(
        self,
        base_url: str,
        model: str = "",
        api_key: str | None = None,
        *,
        http: HttpPool | None = None,
        start_command: str | None = None,
        streaming: bool = True,
        caching: Caching | None = Caching(),  # noqa: B008 - frozen
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url_of(base_url.strip().rstrip("/").removesuffix("/messages"))
        self.model = model
        self.where = where_of(self.base_url)
        self._path = "/messages" if re.search(r"/v\d+$", self.base_url) else "/v1/messages"
        self._headers = {"anthropic-version": API_VERSION, **_key(api_key, self.base_url), **(headers or {})}
        self._http = http or HttpPool()
        self._owns_http = http is None
        self._start_command = start_command or start_command_for(self.base_url)
        self._streaming = streaming
        self._caching = caching
        self._extra = dict(extra or {})

    def __repr__(self) -> str:
        return f"<AnthropicClient {self.model or 'any model'} at {self.where}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they are shared."""
        if self._owns_http:
            await self._http.aclose()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request``, as LLMClient says. Raises ModelError."""
        peer = self._http.peer(self.base_url, self._headers, start_command=self._start_command)
        entry = await peer.endpoint.enter(request.deadline)
        try:
            reply = await self._opened(peer, entry, request)
            answer = MessagesAnswer(peer.where, answer_tool=answer_tool_of(request))
            incoming = Incoming(peer.where, reply, answer)
            try:
                while (blocks := await incoming.more()) is not None:
                    for block in blocks:
                        yield block
            finally:
                await incoming.aclose()
        finally:
            entry.leave()

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        """The server's answer to the request, in the dialect it understands."""
        model = request.model or self.model
        known = dialect = _known_dialect(peer, request, model)
        while True:
            while encode_some(request, dialect):  # noqa: ASYNC110 - nothing to wait for: others get their turn
                await asyncio.sleep(0)
            body = body_of(
                request, model, dialect, caching=self._caching, streaming=self._streaming, extra=self._extra
            )
            try:
                reply = await posted(peer, self._path, body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                simpler = adapted(dialect, error.message) if error.status in _MISUNDERSTOOD else None
                if simpler is None:
                    raise
                dialect = simpler
            else:
                entry.answered()
                if dialect != known:
                    _learn(peer, request, model, dialect)
                return reply


def _key(api_key: str | None, base_url: str) -> dict[str, str]:
    """The headers of a key: the vendor's own, and for proxies also the one that most of them look at."""
    if not api_key:
        return {}
    if urlsplit(base_url).hostname == VENDOR_HOST:
        return {"x-api-key": api_key}
    return {"x-api-key": api_key, "authorization": f"Bearer {api_key}"}


def _known_dialect(peer: Peer, request: Request, model: str) -> Dialect:
    """What this server is known to understand of this model's requests, and of this history."""
    dialect: Dialect = peer.learnt.get(_DIALECT + model) or Dialect()
    if _FOREIGN_REASONING in request.scratch:
        return msgspec.structs.replace(dialect, reasoning=False)
    return dialect


def _learn(peer: Peer, request: Request, model: str, dialect: Dialect) -> None:
    """Keep what has proved right: of options for all, of a history's reasoning for that history."""
    if not dialect.reasoning:
        request.scratch[_FOREIGN_REASONING] = True
    peer.learnt[_DIALECT + model] = msgspec.structs.replace(dialect, reasoning=True)
