"""The client of every server that speaks OpenAI's Responses."""

from __future__ import annotations

import asyncio

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.http.client import HttpPool, Peer
from actors.llm.http.endpoint import Entry
from actors.llm.http.headers import bearer, trimmed
from actors.llm.http.incoming import posted
from actors.llm.http.reply import Reply
from actors.llm.http.server_client import ServerClient
from actors.llm.responses.answer import ResponsesAnswer
from actors.llm.responses.dialect import Dialect, adapted
from actors.llm.responses.request import body_of, encode_some
from actors.llm.responses.settings import fields_of
from actors.llm.vendor import origin_of
from protocol.errors import ModelError
from protocol.model_settings import ModelSettings

_DIALECT = "responses.dialect."
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 404, 415, 422, 500, 501})


class ResponsesClient(ServerClient):
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams,
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
        settings: ModelSettings | None = None,
    ) -> None:
        url = base_url_of(trimmed(base_url).rstrip("/").removesuffix("/responses"))
        headers = bearer(api_key) if api_key else {}
        super().__init__(url, model, headers, http, start_command, streaming=streaming, settings=settings)
        if settings is not None:
            fields_of(settings)

    def _origin(self, request: Request) -> str:
        return origin_of("responses", self.base_url, request.model or self.model)

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        model, origin = request.model or self.model, self._origin(request)
        settings = self._settings(request)
        fields = {} if settings is None else fields_of(settings)
        known = dialect = peer.learnt.get(_DIALECT + model, Dialect())
        while True:
            while encode_some(request, dialect, origin):  # noqa: ASYNC110 - others get their turn
                await asyncio.sleep(0)
            body = body_of(request, model, dialect, streaming=self._streaming, origin=origin, fields=fields)
            await entry.admit(len(body), request.deadline)
            try:
                reply = await posted(peer, "/responses", body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                is_misfit = error.status in _MISUNDERSTOOD
                simpler = adapted(dialect, error.message, request) if is_misfit else None
                if simpler is None:
                    raise
                dialect = simpler
            else:
                entry.answered()
                if dialect != known:
                    peer.learnt[_DIALECT + model] = dialect
                return reply

    def _answer(self, where: str, request: Request) -> ResponsesAnswer:
        return ResponsesAnswer(where, origin=self._origin(request), most=request.max_tokens)
