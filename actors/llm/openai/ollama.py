"""Sets Ollama's ``num_ctx``, by creating a model with that context: its chat completions have no such option.

Source: Ollama's documentation of its OpenAI compatibility, and of ``POST /api/create``.
"""

from __future__ import annotations

from msgspec.json import encode

from actors.llm.http.http_pool import HttpPool
from actors.llm.http.incoming import post
from actors.net.proxies import authorization_of, basic_credentials, without_credentials


class SizedModel:
    """Gives a model a context of ``num_ctx`` tokens, once for each server: as another model with the same
    weights, which takes no disk space and is named after both.
    """

    def __init__(self, base_url: str, num_ctx: int) -> None:
        self._root = without_credentials(base_url).removesuffix("/v1")
        self._headers = authorization_of(basic_credentials(base_url))
        self._num_ctx = num_ctx
        self._made: set[str] = set()

    async def __call__(self, http: HttpPool, model: str, deadline: float | None) -> str:
        """The name by which the server is asked for ``model`` with that context. Raises ModelError."""
        registry, slash, name = model.rpartition("/")  # which may have a port
        name, colon, tag = name.partition(":")
        sized = f"{registry}{slash}{name}-ctx{self._num_ctx}{colon}{tag}"
        if sized not in self._made:
            body = {"model": sized, "from": model, "parameters": {"num_ctx": self._num_ctx}, "stream": False}
            reply = await post(http.peer(self._root, self._headers), "/api/create", encode(body), deadline)
            try:
                await reply.read_all()
            finally:
                await reply.aclose()
            self._made.add(sized)
        return sized
