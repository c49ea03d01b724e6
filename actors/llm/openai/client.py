"""The client of every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.http.client import HttpPool, Peer
from actors.llm.http.endpoint import Entry
from actors.llm.http.headers import bearer
from actors.llm.http.incoming import posted
from actors.llm.http.reply import Reply
from actors.llm.http.server_client import ServerClient
from actors.llm.openai.answer import ChatAnswer
from actors.llm.openai.dialect import Dialect, adapted, dialect_of
from actors.llm.openai.request import body_of, encode_some
from actors.llm.openai.settings import fields_of, kind_of
from actors.llm.vendor import origin_of
from protocol.errors import ModelError
from protocol.model_settings import ModelSettings

#: Makes a model ready, by connections of a pool, a name and a deadline; gives the name to ask for it by.
Named = Callable[[HttpPool, str, float | None], Awaitable[str]]

_DIALECT = "openai.dialect."
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 404, 415, 422, 500, 501})


class OpenAIClient(ServerClient):
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams.
    ``settings`` are those of the model, ``kind`` is how a manifest calls such a server. ``headers`` stand in
    the place of the key's, ``query`` behind the path, and ``named`` gives the name by which the server is
    asked for a model, once it is ready. Raises ManifestError for a setting that such a server has not.
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

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        model = request.model or self.model
        origin = self._origin(request)
        if self._named is not None:
            model = await self._named(self._http, model, request.deadline)
        settings = self._settings(request)
        fields = {} if settings is None else fields_of(settings, self._kind)
        dialect = self._known_dialect(peer, model)
        while True:
            while encode_some(request, dialect=dialect, origin=origin):  # noqa: ASYNC110 - others get their turn
                await asyncio.sleep(0)
            body = body_of(request, model, dialect, streaming=self._streaming, origin=origin, fields=fields)
            await entry.admit(len(body), request.deadline)
            try:
                reply = await posted(peer, self._path, body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                if error.status not in _MISUNDERSTOOD:
                    raise
                known = self._known_dialect(peer, model)  # another request may have learnt it meanwhile
                simpler = adapted(dialect, error.message, request) if known == dialect else known
                if simpler is None:
                    raise
                dialect = simpler
                peer.learnt[_DIALECT], peer.learnt[_DIALECT + model] = dialect.split()
            else:
                entry.answered()
                return reply

    def _known_dialect(self, peer: Peer, model: str) -> Dialect:
        """What this server is known to understand, and to need of this model's histories."""
        known = {**peer.learnt.get(_DIALECT, {}), **peer.learnt.get(_DIALECT + model, {})}
        first = dialect_of(self.base_url, model)
        return msgspec.structs.replace(first, **known) if known else first

    def _answer(self, where: str, request: Request) -> ChatAnswer:
        return ChatAnswer(where, origin=self._origin(request))
