"""The client of every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio

import msgspec

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.http.client import HttpPool, Peer, Reply
from actors.llm.http.endpoint import Entry
from actors.llm.http.headers import bearer
from actors.llm.http.incoming import posted
from actors.llm.http.server_client import ServerClient
from actors.llm.openai.answer import ChatAnswer
from actors.llm.openai.dialect import Dialect, adapted, dialect_of
from actors.llm.openai.request import body_of, encode_some
from actors.llm.vendor import origin_of
from protocol.errors import ModelError

_DIALECT = "openai.dialect."
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 415, 422, 500, 501})


class OpenAIClient(ServerClient):
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams.
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
    ) -> None:
        headers = bearer(api_key) if api_key else {}
        super().__init__(base_url_of(base_url), model, headers, http, start_command, streaming=streaming)

    def _origin(self, request: Request) -> str:
        return origin_of("openai", self.base_url, request.model or self.model)

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        model = request.model or self.model
        origin = self._origin(request)
        dialect = self._known_dialect(peer, model)
        while True:
            while encode_some(request, dialect=dialect, origin=origin):  # noqa: ASYNC110 - others get their turn
                await asyncio.sleep(0)
            body = body_of(request, model, dialect, streaming=self._streaming, origin=origin)
            try:
                reply = await posted(peer, "/chat/completions", body, request.deadline)
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
