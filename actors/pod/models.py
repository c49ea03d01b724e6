"""From a manifest's ``[model]`` to a client: presets, keys, and one pool of connections a system."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from actors.llm.base import LLMClient
from protocol.errors import ConfigError, ManifestError, ModelError
from protocol.manifest import ModelSection
from protocol.model_settings import given
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.llm.http.client import HttpPool
    from actors.llm.openai.client import OpenAIClient
    from protocol.config import LocalModelSection


class Models:
    """The clients of one system, made when a pod first needs them; pods of one model share one."""

    def __init__(self) -> None:
        self._http: HttpPool | None = None
        self._clients: dict[bytes, LLMClient] = {}

    def client(self, section: ModelSection) -> LLMClient:
        """The client of a model. Raises ManifestError, and MissingKey where a key is required."""
        key = encode(section)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._make(section)
        return client

    # Imported by the first pod that needs them: together they cost as much as all the rest of polypod.

    def _make(self, section: ModelSection) -> LLMClient:
        if section.scheme == "offline":
            from actors.llm.offline.client import OfflineClient  # noqa: PLC0415

            _refuse_settings(section)
            return OfflineClient()
        return self._over_http(section)

    def _over_http(self, section: ModelSection) -> LLMClient:
        from actors.llm.address import base_url_of  # noqa: PLC0415
        from actors.llm.http.client import HttpPool  # noqa: PLC0415
        from actors.llm.http.presets import PRESETS, address_of, server_for  # noqa: PLC0415
        from actors.pod.server_clients import client_for  # noqa: PLC0415

        if section.scheme not in PRESETS:
            likely = likely_model(section, ["offline", *PRESETS])
            meant = f"did you mean {likely!r}? " if likely else ""
            raise ManifestError(
                f"manifest: model.scheme: no model server of the kind {section.scheme!r}",
                hint=f"{meant}known kinds: {', '.join(['offline', *PRESETS])}",
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
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()


def local_client(section: LocalModelSection) -> OpenAIClient:
    """A client of the local model, with connections of its own: whoever has it closes it (``aclose``).

    Raises ConfigError for an endpoint that is none, MissingKey, InvalidKey.
    """
    from actors.llm.address import base_url_of  # noqa: PLC0415 - paid for by who has a local model
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


#: What the embedded model leaves unread: it is no language model, and nothing is sent.
_LEFT = frozenset({"temperature", "max_tokens", "attempts"})


def _refuse_settings(section: ModelSection) -> None:
    """Raise ManifestError where the embedded model is given a setting that it cannot have."""
    others = given(section).keys() - _LEFT
    others |= {name for name in ("num_ctx", "api_version") if getattr(section, name) is not None}
    for name in sorted(others):
        raise ManifestError(
            f"manifest: model.{name}: the embedded model has none", hint="name a model server by scheme"
        )


#: How the models of a kind of server are called, where people leave out the kind.
_FAMILIES = (
    (r"gpt|chatgpt|o\d|codex|text-|davinci", "openai"),
    (r"claude|opus|sonnet|haiku", "anthropic"),
    (r"llama|qwen|mi[sx]tral|gemma|phi|deepseek|granite|smollm|codestral|devstral", "ollama"),
)


def likely_model(section: ModelSection, schemes: list[str]) -> str | None:
    """What a model of an unknown kind was meant to be, as ``kind/name``; None where nobody can guess."""
    name = "/".join(filter(None, (section.scheme, section.model_id)))
    for family, scheme in _FAMILIES:
        if not section.model_id and re.match(family, name, re.IGNORECASE):
            return f"{scheme}/{name}"
    import difflib  # noqa: PLC0415 - paid for by who mistakes a name

    close = difflib.get_close_matches(section.scheme.lower().replace("-", "_"), schemes, 1)
    return "/".join(filter(None, (close[0], section.model_id))) if close else None


def label(section: ModelSection) -> str:
    """What a model is called in events and messages."""
    return f"{section.scheme}/{section.model_id}" if section.model_id else section.scheme


#: APIs whose models cost what they do by another.
_PRICED_AS = {"openai_responses": "openai"}


def priced_as(section: ModelSection) -> str:
    """What a model is called in a table of prices."""
    return label(msgspec.structs.replace(section, scheme=_PRICED_AS.get(section.scheme, section.scheme)))
