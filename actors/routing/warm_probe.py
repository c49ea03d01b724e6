"""``WarmProbe``: asks the server of local models which of them are loaded now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from actors.llm.address import base_url_of
from actors.llm.http.http_pool import HttpPool, Peer
from actors.llm.http.presets import PRESETS
from actors.net.proxies import authorization_of, basic_credentials, without_credentials
from actors.runtime.arguments import text_of
from actors.runtime.closing import Closing
from protocol.errors import ChainInvalid, ModelError
from protocol.text import UNDECODABLE

#: How long a look may take together, and for how long one is good, in seconds.
LOOK_SECONDS = 0.2
GOOD_FOR_SECONDS = 1.0
#: The most of an answer that is read, in bytes; one that is longer is none.
MOST_BYTES = 256 * 1024

Kind = Literal["llama-swap", "ollama", "llama.cpp"]


class _Running(Struct):
    model: str
    state: str = ""


class _LlamaSwap(Struct):
    running: list[_Running]


class _Loaded(Struct):
    name: str = ""
    model: str = ""


class _Ollama(Struct):
    models: list[_Loaded]


class _Status(Struct):
    value: str = ""


class _Listed(Struct):
    id: str
    status: _Status | None = None


class _LlamaCpp(Struct):
    data: list[_Listed]


class _Health(Struct):
    status: str = ""


def plain_name(model: str) -> str:
    """A model's name without the kind of its server, and without the tag that Ollama adds to what has none:
    ``ollama/qwen3`` and ``qwen3:latest`` are ``qwen3``.
    """
    scheme, slash, rest = model.partition("/")
    name = rest if slash and scheme in PRESETS else model
    return name.removesuffix(":latest")


class WarmProbe(Closing):
    """Which models of the server at ``url`` are loaded: of llama-swap, Ollama or llama.cpp (its router too),
    which is found out. Names are exact; what does not answer well within 0.2 s is cold. A look is good for a
    second, and shared by all who ask meanwhile.
    """

    def __init__(
        self,
        url: str,
        *,
        http: HttpPool | None = None,
        seconds: float = LOOK_SECONDS,
        good_for: float = GOOD_FOR_SECONDS,
    ) -> None:
        try:
            whole = base_url_of(text_of("warm_url", url))
        except ModelError as error:
            raise ChainInvalid(f"warm_url: {error.message}", hint=error.hint) from None
        parts = urlsplit(without_credentials(whole))
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("/v1"), "", ""))
        self._headers = authorization_of(basic_credentials(whole))
        self._http = http or HttpPool()
        self._owns_http = http is None
        self._seconds = seconds
        self._good_for = good_for
        self._kind: Kind | None = None
        self._seen: frozenset[str] = frozenset()
        self._seen_at = float("-inf")
        self._looking: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def __repr__(self) -> str:
        return f"<WarmProbe {self._url}>"

    @property
    def kind(self) -> Kind | None:
        """What the server is, as far as its answers have shown; None where it has not said which models are
        loaded.
        """
        return self._kind

    async def is_warm(self, model: str) -> bool:
        """Whether that model is loaded."""
        return plain_name(model) in await self.warm_models()

    async def warm_models(self) -> frozenset[str]:
        """The plain names of all models that are loaded; none where the server does not say so in time."""
        loop = asyncio.get_running_loop()
        if time.monotonic() - self._seen_at < self._good_for:
            return self._seen
        looking = self._looking
        if looking is None or looking[0] is not loop or looking[1].done():
            looking = self._looking = (loop, loop.create_task(self._look()))
        await asyncio.shield(looking[1])  # who is cancelled harms no other; the look ends by itself
        return self._seen

    async def aclose(self) -> None:
        """Close the connections, unless they are shared."""
        if self._owns_http:
            await self._http.aclose()

    async def _look(self) -> None:
        seen: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(self._seconds):
                seen = await self._ask()
        except TimeoutError:
            pass
        self._seen, self._seen_at = seen, time.monotonic()

    async def _ask(self) -> frozenset[str]:
        """The models that are loaded, by what the server is known to be, or else by the first that fits."""
        known = self._kind
        for kind in _KINDS if known is None else (known, *(each for each in _KINDS if each != known)):
            found = await _KINDS[kind](self._get)
            if found is not None:
                self._kind = kind
                return frozenset(plain_name(each) for each in found if each)
        return frozenset()

    async def _get(self, path: str, kind: Any) -> Any:
        """What the server answers there, as ``kind``; None where that is nothing of the sort."""
        peer: Peer = self._http.peer(self._url, self._headers)
        try:
            reply = await peer.get(path, deadline=time.monotonic() + self._seconds)
            try:
                body = await reply.read_all(MOST_BYTES + 1)
                reply.settle()
            finally:
                await reply.aclose()
        except ModelError:
            return None
        if reply.status != 200 or len(body) > MOST_BYTES:
            return None
        try:
            return msgspec.json.decode(body, type=kind)
        except UNDECODABLE:
            return None


async def _of_llama_swap(get: Callable[[str, Any], Any]) -> Iterable[str] | None:
    """``/v1/models`` of llama-swap lists what there is; loaded is what ``/running`` says is ready."""
    read: _LlamaSwap | None = await get("/running", _LlamaSwap)
    return None if read is None else [each.model for each in read.running if each.state == "ready"]


async def _of_ollama(get: Callable[[str, Any], Any]) -> Iterable[str] | None:
    read: _Ollama | None = await get("/api/ps", _Ollama)
    return None if read is None else [name for each in read.models for name in (each.name, each.model)]


async def _of_llama_cpp(get: Callable[[str, Any], Any]) -> Iterable[str] | None:
    """A router says of each model whether it is loaded; a server of one model is well once that is."""
    health: _Health | None = await get("/health", _Health)
    if health is None or health.status != "ok":
        return None
    read: _LlamaCpp | None = await get("/v1/models", _LlamaCpp)
    if read is None:
        return None
    return [each.id for each in read.data if each.status is None or each.status.value == "loaded"]


_KINDS: dict[Kind, Callable[[Callable[[str, Any], Any]], Any]] = {
    "llama-swap": _of_llama_swap,
    "ollama": _of_ollama,
    "llama.cpp": _of_llama_cpp,
}
