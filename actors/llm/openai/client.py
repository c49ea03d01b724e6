"""``OpenAIClient``: the client of every server that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.http.headers import bearer
from actors.llm.http.http_pool import HttpPool, Peer
from actors.llm.http.server_client import ServerClient
from actors.llm.openai.answer import ChatAnswer
from actors.llm.openai.dialect import Dialect, adapted, dialect_of
from actors.llm.openai.request import body_of, encode_some
from actors.llm.openai.settings import fields_of, kind_of
from actors.llm.vendor import origin_of
from protocol.model_settings import ModelSettings

#: Makes a model ready, given a connection pool, its name and a deadline; returns the name to ask for it by.
Named = Callable[[HttpPool, str, float | None], Awaitable[str]]

#: What was learnt of a server, and of one of its models, whose name may be empty.
_DIALECT, _DIALECT_OF_MODEL = "openai.dialect", "openai.dialect of "


class OpenAIClient(ServerClient[Dialect]):
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` has the connections and is shared by the clients of a system; a client without one makes its own
    and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams. ``settings``
    are the model's; ``kind`` is what a manifest calls such a server. ``headers`` replace the key's, ``query``
    is appended to the path, and ``named`` makes a model ready and returns the name by which the server is
    asked for it. Raises ManifestError for a setting that such a server does not have.
    """

    misunderstood = frozenset({400, 404, 415, 422, 500, 501})

    def __init__(
        self,
        base_url: str,
        model: str = "",
        api_key: str | None = None,
        *,
        http: HttpPool | None = None,
        start_command: str | None = None,
        streaming: bool = True,
        settings: ModelSettings | None = None,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        query: str = "",
        named: Named | None = None,
    ) -> None:
        every = headers or (bearer(api_key) if api_key else {})
        super().__init__(
            base_url_of(base_url), model, every, http, start_command, streaming=streaming, settings=settings
        )
        self._path = f"/chat/completions{query}"
        self._kind = kind_of(self.base_url, kind)
        self._named = named
        if settings is not None:
            fields_of(settings, self._kind)

    def _origin(self, request: Request) -> str:
        return origin_of("openai", self.base_url, request.model or self.model)

    async def _make_ready(self, request: Request) -> str:
        model = request.model or self.model
        return model if self._named is None else await self._named(self._http, model, request.deadline)

    def _known_dialect(self, peer: Peer, request: Request, model: str) -> Dialect:  # noqa: ARG002
        """What this server is known to support, and to need of this model's histories."""
        known = {**peer.learnt.get(_DIALECT, {}), **peer.learnt.get(_DIALECT_OF_MODEL + model, {})}
        first = dialect_of(self.base_url, model)
        return msgspec.structs.replace(first, **known) if known else first

    def _adapt(
        self, peer: Peer, request: Request, model: str, dialect: Dialect, words: str
    ) -> Dialect | None:
        known = self._known_dialect(peer, request, model)  # another request may have learnt it meanwhile
        simpler = adapted(dialect, words, request) if known == dialect else known
        if simpler is not None:
            peer.learnt[_DIALECT], peer.learnt[_DIALECT_OF_MODEL + model] = simpler.split()
        return simpler

    def _learn(self, peer: Peer, request: Request, model: str, dialect: Dialect) -> None:
        """Do nothing: it was learnt with the refusal, and others may have learnt more since."""

    def _encode_some(self, request: Request, dialect: Dialect, most: int) -> bool:
        return encode_some(request, dialect, self._origin(request), most)

    def _body(self, request: Request, model: str, dialect: Dialect) -> bytes:
        settings = self._settings(request)
        return body_of(
            request,
            model,
            dialect,
            streaming=self._streaming,
            origin=self._origin(request),
            fields=None if settings is None else fields_of(settings, self._kind),
        )

    def _answer(self, where: str, request: Request) -> ChatAnswer:
        return ChatAnswer(where, origin=self._origin(request))
