"""``ResponsesClient``: the client of every server that speaks OpenAI's Responses."""

from __future__ import annotations

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.http.headers import bearer, trimmed
from actors.llm.http.http_pool import HttpPool, Peer
from actors.llm.http.presets import vendor_of
from actors.llm.http.server_client import ServerClient
from actors.llm.responses.answer import ResponsesAnswer
from actors.llm.responses.dialect import Dialect, adapted
from actors.llm.responses.request import body_of, encode_some
from actors.llm.responses.settings import fields_of
from actors.llm.vendor import origin_of
from protocol.model_settings import ModelSettings

_DIALECT = "responses.dialect."


class ResponsesClient(ServerClient[Dialect]):
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` has the connections and is shared by the clients of a system; a client without one makes its own
    and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams. ``settings``
    are the model's. Raises ManifestError for a setting that this API does not have.
    """

    misunderstood = frozenset({400, 404, 415, 422, 500, 501})
    _path = "/responses"

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
        self._first_dialect = Dialect(format_beside_tools=vendor_of(self.base_url) is not None)

    def _origin(self, request: Request) -> str:
        return origin_of("responses", self.base_url, request.model or self.model)

    def _known_dialect(self, peer: Peer, request: Request, model: str) -> Dialect:  # noqa: ARG002
        known: Dialect = peer.learnt.get(_DIALECT + model) or self._first_dialect
        return known

    def _adapt(
        self,
        peer: Peer,  # noqa: ARG002
        request: Request,
        model: str,  # noqa: ARG002
        dialect: Dialect,
        words: str,
    ) -> Dialect | None:
        return adapted(dialect, words, request)

    def _learn(self, peer: Peer, request: Request, model: str, dialect: Dialect) -> None:  # noqa: ARG002
        peer.learnt[_DIALECT + model] = dialect

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
            fields=None if settings is None else fields_of(settings),
        )

    def _answer(self, where: str, request: Request) -> ResponsesAnswer:
        return ResponsesAnswer(where, origin=self._origin(request), most=request.max_tokens)
