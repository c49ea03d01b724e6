"""``ClientFactory``: makes the client of a manifest's ``[model]``, over one system's connections."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from actors.llm.base import LLMClient
from protocol.closest import closest
from protocol.errors import ConfigError, ManifestError, ModelError
from protocol.manifest import ModelSection
from protocol.model_settings import given
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.llm.http.http_pool import HttpPool
    from actors.llm.openai.client import OpenAIClient
    from protocol.config import LocalModelSection


#: Finds the chain of a name for a pod that works in a folder.
FindChain = Callable[[str, str], LLMClient]


#: What says how one server is asked, and not a chain.
_OF_SERVERS = (
    *("base_url", "api_key_env", "api_version", "num_ctx", "extra_headers"),
    *("timeout", "connect_timeout", "idle_timeout", "requests_per_minute", "tokens_per_minute"),
)


class ClientFactory:
    """The clients of one system, made when a pod first needs them. Pods with the same model share one; those
    with the same chain share it if they also work in the same folder.
    """

    def __init__(
        self, chains: Mapping[str, LLMClient] | None = None, find_chain: FindChain | None = None
    ) -> None:
        """``chains`` are given by name, and closed by whoever gave them; ``find_chain`` makes others."""
        self._http: HttpPool | None = None
        self._clients: dict[bytes, LLMClient] = {}
        self._given = chains or {}
        self._find_chain = find_chain
        #: By their names and folders; None while one is being made.
        self._chains: dict[tuple[str, str], LLMClient | None] = {}

    def client(self, section: ModelSection, folder: str = "") -> LLMClient:
        """The client of a model. Raises ManifestError, and MissingKey where a key is required; for a chain
        ConfigError and NotTrusted too.
        """
        if section.scheme == "chain":
            return self._chain(section, folder)
        key = encode(section)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._make(section)
        return client

    def _chain(self, section: ModelSection, folder: str) -> LLMClient:
        for key in _OF_SERVERS:
            if getattr(section, key):
                raise ManifestError(
                    f"manifest: model.{key}: not for a chain: set it for the models of its tiers"
                )
        if (given := self._given.get(section.model_id)) is not None:
            return given
        if not section.model_id:
            raise ManifestError(
                "manifest: model.model_id: the name of a chain is missing",
                hint='write it as in model = "chain/careful"',
            )
        return self._made_chain(section.model_id, folder)

    def _made_chain(self, name: str, folder: str) -> LLMClient:
        if (name, folder) in self._chains:
            found = self._chains[name, folder]
            if found is None:
                raise ManifestError(f"the chain {name!r} contains itself as a tier")
            return found
        if self._find_chain is None:
            raise ManifestError(f"manifest: model: there is no chain {name!r}")
        self._chains[name, folder] = None
        try:
            made = self._chains[name, folder] = self._find_chain(name, folder)
        except BaseException:
            del self._chains[name, folder]
            raise
        return made

    # Imported by the first pod that needs them: together they cost as much as all the rest of polypod.

    def _make(self, section: ModelSection) -> LLMClient:
        if section.scheme == "offline":
            from actors.llm.offline.client import OfflineClient  # noqa: PLC0415

            _refuse_settings(section)
            return OfflineClient()
        return self._over_http(section)

    def _over_http(self, section: ModelSection) -> LLMClient:
        from actors.llm.address import base_url_of  # noqa: PLC0415
        from actors.llm.http.http_pool import HttpPool  # noqa: PLC0415
        from actors.llm.http.presets import PRESETS, address_of, server_for  # noqa: PLC0415
        from actors.pod.server_clients import client_for  # noqa: PLC0415

        if section.scheme not in PRESETS:
            likely = likely_model(section, ["offline", "chain", *PRESETS])
            meant = f"did you mean {likely!r}? " if likely else ""
            raise ManifestError(
                f"manifest: model.scheme: unknown scheme {section.scheme!r}",
                hint=f"{meant}known schemes: {', '.join(['offline', 'chain', *PRESETS])}",
            )
        preset = PRESETS[section.scheme]
        try:
            base_url_of(section.base_url or address_of(preset))
        except ModelError as error:
            raise ManifestError(f"manifest: model.base_url: {error.message}", hint=error.hint) from None
        server = server_for(section.scheme, base_url=section.base_url, api_key_env=section.api_key_env)
        if self._http is None:
            self._http = HttpPool()
        return client_for(section, preset, server, self._http)

    async def aclose(self) -> None:
        """Close all connections, and the chains that were made."""
        for each in self._chains.values():
            if (close := getattr(each, "aclose", None)) is not None:
                await close()
        if self._http is not None:
            await self._http.aclose()


def local_client(section: LocalModelSection) -> OpenAIClient:
    """A client of the local model, with connections of its own, which the caller closes (``aclose``). Raises
    ConfigError for an endpoint that is not a URL, MissingKey, InvalidKey.
    """
    from actors.llm.address import base_url_of  # noqa: PLC0415 - paid for by whoever has a local model
    from actors.llm.http.presets import server_for  # noqa: PLC0415
    from actors.llm.openai.client import OpenAIClient  # noqa: PLC0415

    try:
        url = base_url_of(section.endpoint)
    except ModelError as error:
        raise ConfigError(f"local_model.endpoint: {error.message}", hint=error.hint) from None
    if section.api_key and section.api_key_env is None:
        return OpenAIClient(url, section.model, section.api_key)
    server = server_for("openai", base_url=url, api_key_env=section.api_key_env)
    return OpenAIClient(url, section.model, server.api_key)


#: What the embedded model leaves unread: it is not a language model, and nothing is sent.
_LEFT = frozenset({"temperature", "max_tokens", "attempts"})


def _refuse_settings(section: ModelSection) -> None:
    """Raise ManifestError for a setting that the embedded model does not support."""
    others = given(section).keys() - _LEFT
    others |= {name for name in ("num_ctx", "api_version") if getattr(section, name) is not None}
    for name in sorted(others):
        raise ManifestError(
            f"manifest: model.{name}: not for the embedded model",
            hint="choose a model server with model.scheme",
        )


#: How the models of a kind of server are called, where people leave out the kind.
_FAMILIES = (
    (r"gpt|chatgpt|o\d|codex|text-|davinci", "openai"),
    (r"claude|opus|sonnet|haiku", "anthropic"),
    (r"llama|qwen|mi[sx]tral|gemma|phi|deepseek|granite|smollm|codestral|devstral", "ollama"),
)


def likely_model(section: ModelSection, schemes: list[str]) -> str | None:
    """A guess at what a model of an unknown kind was meant to be, as ``kind/name``; None if there is none."""
    name = "/".join(filter(None, (section.scheme, section.model_id)))
    for family, scheme in _FAMILIES:
        if not section.model_id and re.match(family, name, re.IGNORECASE):
            return f"{scheme}/{name}"
    near = closest(section.scheme.lower().replace("-", "_"), schemes)
    return "/".join(filter(None, (near, section.model_id))) if near else None


def label(section: ModelSection) -> str:
    """What a model is called in events and messages."""
    return f"{section.scheme}/{section.model_id}" if section.model_id else section.scheme


#: APIs whose models cost what they do by another.
_PRICED_AS = {"openai_responses": "openai"}


def priced_as(section: ModelSection) -> str:
    """What a model is called in a table of prices."""
    return label(msgspec.structs.replace(section, scheme=_PRICED_AS.get(section.scheme, section.scheme)))
