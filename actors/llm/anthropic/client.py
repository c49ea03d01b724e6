"""The client of every server that speaks Anthropic's messages: the vendor, its proxies, llama-server."""

from __future__ import annotations

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
from actors.llm.http.headers import key_of, trimmed
from actors.llm.http.http_pool import HttpPool, Peer
from actors.llm.http.server_client import ServerClient
from actors.llm.vendor import origin_of
from protocol.items import AssistantItem, ThinkingPart
from protocol.model_settings import ModelSettings

#: The version of the API that is spoken.
API_VERSION = "2023-06-01"
VENDOR_HOST = "api.anthropic.com"

_DIALECT = "anthropic.dialect."
#: In a pod's scratch: what this model does not take of its history, say another model's reasoning.
_OF_HISTORY = "anthropic.of_history"
_OF_A_HISTORY = ("reasoning", "unsigned", "thinking_option")


class AnthropicClient(ServerClient[Dialect]):
    """Talks to one model at one base URL (with or without a final ``/v1``), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams,
    ``caching`` says how long the vendor keeps the beginnings of requests (None: not at all). ``extra`` are
    further fields of every request (``{"thinking": …}``), ``headers`` further headers; ``settings`` are those
    of the model. Raises ManifestError for a setting that this API does not have.
    """

    misunderstood = frozenset({400, 415, 422})

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
        every = {**headers_of(api_key, url), **(headers or {})}
        super().__init__(url, model, every, http, start_command, streaming=streaming, settings=settings)
        if settings is not None:
            fields_of(settings)
        self._path = path_of("messages", url)
        self._caching = caching
        self._extra = dict(extra or {})
        #: What is known beforehand: the vendor signs all reasoning, and takes none back that it has not.
        at_vendor = urlsplit(self.base_url).hostname == VENDOR_HOST
        self._first_dialect = Dialect(unsigned=not at_vendor, long_answers=at_vendor)

    def _origin(self, request: Request) -> str:
        return origin_of("anthropic", self.base_url, request.model or self.model)

    def _known_dialect(self, peer: Peer, request: Request, model: str) -> Dialect:
        """What this server is known to understand of this model's requests, and of this history."""
        dialect: Dialect = peer.learnt.get(_DIALECT + model) or self._first_dialect
        return msgspec.structs.replace(dialect, **request.scratch.get(_OF_HISTORY, {}))

    def _adapt(
        self,
        peer: Peer,  # noqa: ARG002
        request: Request,
        model: str,  # noqa: ARG002
        dialect: Dialect,
        words: str,
    ) -> Dialect | None:
        unsigned = _has_unsigned(request, self._origin(request))
        return adapted(dialect, words, unsigned=unsigned, unlimited=request.max_tokens is None)

    def _learn(self, peer: Peer, request: Request, model: str, dialect: Dialect) -> None:
        """Remember what the server accepted: options for all requests, and what it takes of a history's
        reasoning for that history.
        """
        request.scratch[_OF_HISTORY] = _of_a_history(dialect)
        theirs = _of_a_history(self._first_dialect)
        peer.learnt[_DIALECT + model] = msgspec.structs.replace(dialect, **theirs)

    def _encode_some(self, request: Request, dialect: Dialect, most: int) -> bool:
        return encode_some(request, dialect, self._origin(request), most)

    def _body(self, request: Request, model: str, dialect: Dialect) -> bytes:
        settings = self._settings(request)
        fields = {} if settings is None else fields_of(settings, dialect)
        return body_of(
            request,
            model,
            dialect,
            caching=self._caching,
            streaming=self._streaming,
            extra={**self._extra, **fields},
            origin=self._origin(request),
        )

    def _answer(self, where: str, request: Request) -> MessagesAnswer:
        return MessagesAnswer(where, answer_tool=answer_tool_of(request), origin=self._origin(request))


def headers_of(api_key: str | None, base_url: str) -> dict[str, str]:
    """The headers of a request: a key is in the vendor's own, and for proxies also in the one that most of
    them look at.
    """
    version = {"anthropic-version": API_VERSION}
    if not api_key:
        return version
    api_key = key_of(api_key, "api_key")
    if urlsplit(base_url).hostname == VENDOR_HOST or "@" in urlsplit(base_url).netloc:
        return {**version, "x-api-key": api_key}  # a user and password of a proxy take the other header
    return {**version, "x-api-key": api_key, "authorization": f"Bearer {api_key}"}


def path_of(what: str, base_url: str) -> str:
    """Where that is below a base URL, which may end in a version or not."""
    return f"/{what}" if re.search(r"/v\d+$", base_url) else f"/v1/{what}"


def _has_unsigned(request: Request, origin: str) -> bool:
    """Whether reasoning goes back without a signature."""
    return any(
        isinstance(part, ThinkingPart) and part.signature is None and part.redacted is None
        for item in request.items
        if isinstance(item, AssistantItem) and item.origin == origin
        for part in item.content
    )


def _of_a_history(dialect: Dialect) -> dict[str, Any]:
    return {name: getattr(dialect, name) for name in _OF_A_HISTORY}
