"""The client of every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from actors.llm.address import base_url_of
from actors.llm.base import Request
from actors.llm.endpoint import Entry
from actors.llm.http import HttpPool, Peer, Reply
from actors.llm.incoming import posted
from actors.llm.openai_answer import ChatAnswer
from actors.llm.openai_request import Dialect, adapted, body_of, encode_some
from actors.llm.server_client import ServerClient
from actors.llm.vendor import origin_of
from protocol.errors import ModelError

_DIALECT = "openai.dialect"
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
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        super().__init__(base_url_of(base_url), model, headers, http, start_command, streaming=streaming)

    def _origin(self, request: Request) -> str:
        return origin_of("openai", self.base_url, request.model or self.model)

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        while encode_some(request):  # noqa: ASYNC110 - nothing to wait for: others get their turn
            await asyncio.sleep(0)
        dialect: Dialect = peer.learnt.get(_DIALECT) or _dialect_of(self.base_url)
        while True:
            body = body_of(request, request.model or self.model, dialect, streaming=self._streaming)
            try:
                reply = await posted(peer, "/chat/completions", body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                if error.status not in _MISUNDERSTOOD:
                    raise
                known = peer.learnt.get(_DIALECT, dialect)  # another request may have learnt it meanwhile
                simpler = adapted(dialect, error.message, request) if known == dialect else known
                if simpler is None:
                    raise
                dialect = peer.learnt[_DIALECT] = simpler
            else:
                entry.answered()
                return reply

    def _answer(self, where: str, request: Request) -> ChatAnswer:
        return ChatAnswer(where, origin=self._origin(request))


def _dialect_of(base_url: str) -> Dialect:
    """What is known beforehand: OpenAI's own newer models refuse the old name of ``max_tokens``."""
    if urlsplit(base_url).hostname == "api.openai.com":
        return Dialect(max_tokens_field="max_completion_tokens")
    return Dialect()
