"""The client of every server that speaks Anthropic's messages: the vendor, its proxies, llama-server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from actors.llm.address import base_url_of
from actors.llm.anthropic.answer import MessagesAnswer
from actors.llm.anthropic.dialect import Dialect, adapted
from actors.llm.anthropic.request import Caching, answer_tool_of, body_of, encode_some
from actors.llm.anthropic.settings import fields_of
from actors.llm.base import Request
from actors.llm.http.client import HttpPool, Peer
from actors.llm.http.endpoint import Entry
from actors.llm.http.headers import key_of, trimmed
from actors.llm.http.incoming import posted
from actors.llm.http.reply import Reply
from actors.llm.http.server_client import ServerClient
from actors.llm.vendor import origin_of
from protocol.errors import ModelError
from protocol.items import AssistantItem, ThinkingPart
from protocol.model_settings import ModelSettings

#: The version of the API that is spoken.
API_VERSION = "2023-06-01"
VENDOR_HOST = "api.anthropic.com"

_DIALECT = "anthropic.dialect."
#: In a pod's scratch: what this model does not take of its history, say another model's reasoning.
_OF_HISTORY = "anthropic.of_history"
_OF_A_HISTORY = ("reasoning", "unsigned", "thinking_option")
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 415, 422})


class AnthropicClient(ServerClient):
    """Talks to one model at one base URL (with or without ``/v1`` at its end), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams,
    ``caching`` says how long the vendor keeps what requests begin with (None: not at all). ``extra`` are
    fields that every request has besides (``{"thinking": …}``), ``headers`` the same for its head;
    ``settings`` are those of the model. Raises ManifestError for a setting that this API has not.
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
        settings: ModelSettings | None = None,
    ) -> None:
        url = base_url_of(trimmed(base_url).rstrip("/").removesuffix("/messages"))
        every = {"anthropic-version": API_VERSION, **_key(api_key, url), **(headers or {})}
        super().__init__(url, model, every, http, start_command, streaming=streaming, settings=settings)
        if settings is not None:
            fields_of(settings)
        self._path = "/messages" if re.search(r"/v\d+$", url) else "/v1/messages"
        self._caching = caching
        self._extra = dict(extra or {})
        #: What is known beforehand: the vendor signs all reasoning, and takes none back that it has not.
        self._first_dialect = Dialect(unsigned=urlsplit(self.base_url).hostname != VENDOR_HOST)

    def _origin(self, request: Request) -> str:
        return origin_of("anthropic", self.base_url, request.model or self.model)

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        model = request.model or self.model
        known = dialect = self._known_dialect(peer, request, model)
        origin, settings = self._origin(request), self._settings(request)
        while True:
            while encode_some(request, dialect, origin=origin):  # noqa: ASYNC110 - nothing to wait for: others get their turn
                await asyncio.sleep(0)
            fields = {} if settings is None else fields_of(settings, dialect)
            body = body_of(
                request,
                model,
                dialect,
                caching=self._caching,
                streaming=self._streaming,
                extra={**self._extra, **fields},
                origin=origin,
            )
            await entry.admit(len(body), request.deadline)
            try:
                reply = await posted(peer, self._path, body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                simpler = None
                if error.status in _MISUNDERSTOOD:
                    simpler = adapted(dialect, error.message, unsigned=_has_unsigned(request, origin))
                if simpler is None:
                    raise
                dialect = simpler
            else:
                entry.answered()
                if dialect != known:
                    _learn(peer, request, model, self._first_dialect, dialect)
                return reply

    def _known_dialect(self, peer: Peer, request: Request, model: str) -> Dialect:
        """What this server is known to understand of this model's requests, and of this history."""
        dialect: Dialect = peer.learnt.get(_DIALECT + model) or self._first_dialect
        return msgspec.structs.replace(dialect, **request.scratch.get(_OF_HISTORY, {}))

    def _answer(self, where: str, request: Request) -> MessagesAnswer:
        return MessagesAnswer(where, answer_tool=answer_tool_of(request), origin=self._origin(request))


def _key(api_key: str | None, base_url: str) -> dict[str, str]:
    """The headers of a key: the vendor's own, and for proxies also the one that most of them look at."""
    if not api_key:
        return {}
    api_key = key_of(api_key, "api_key")
    if urlsplit(base_url).hostname == VENDOR_HOST or "@" in urlsplit(base_url).netloc:
        return {"x-api-key": api_key}  # a user and password of a proxy take the other header
    return {"x-api-key": api_key, "authorization": f"Bearer {api_key}"}


def _has_unsigned(request: Request, origin: str) -> bool:
    """Whether reasoning goes back without a signature."""
    return any(
        isinstance(part, ThinkingPart) and part.signature is None and part.redacted is None
        for item in request.items
        if isinstance(item, AssistantItem) and item.origin == origin
        for part in item.content
    )


def _learn(peer: Peer, request: Request, model: str, known: Dialect, dialect: Dialect) -> None:
    """Keep what has proved right: of options for all, of a history's reasoning for that history."""
    ours = {name: getattr(dialect, name) for name in _OF_A_HISTORY}
    request.scratch[_OF_HISTORY] = ours
    theirs = {name: getattr(known, name) for name in _OF_A_HISTORY}
    peer.learnt[_DIALECT + model] = msgspec.structs.replace(dialect, **theirs)
