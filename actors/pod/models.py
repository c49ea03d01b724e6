"""From a manifest's ``[model]`` to a client: presets, keys, and one pool of connections a system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from actors.llm.address import base_url_of, where_of
from actors.llm.base import LLMClient
from protocol.errors import ManifestError, MissingKey
from protocol.manifest import ModelSection

if TYPE_CHECKING:
    from actors.llm.http import HttpPool
    from actors.llm.presets import Preset


class Models:
    """The clients of one system, made when a pod first needs them; pods of one model share one."""

    def __init__(self) -> None:
        self._http: HttpPool | None = None
        self._clients: dict[ModelSection, LLMClient] = {}

    def client(self, section: ModelSection) -> LLMClient:
        """The client of a model. Raises ManifestError, and MissingKey where a key is required."""
        client = self._clients.get(section)
        if client is None:
            client = self._clients[section] = self._made(section)
        return client

    # Imported by the first pod that needs them: together they cost as much as all the rest of polypod.

    def _made(self, section: ModelSection) -> LLMClient:
        if section.scheme == "offline":
            from actors.llm.offline import OfflineClient  # noqa: PLC0415

            return OfflineClient()
        return self._over_http(section)

    def _over_http(self, section: ModelSection) -> LLMClient:
        from actors.llm.anthropic import AnthropicClient  # noqa: PLC0415
        from actors.llm.http import HttpPool  # noqa: PLC0415
        from actors.llm.openai import OpenAIClient  # noqa: PLC0415
        from actors.llm.presets import PRESETS  # noqa: PLC0415

        preset = PRESETS.get(section.scheme)
        if preset is None:
            known = ", ".join(["offline", *PRESETS])
            raise ManifestError(
                f"manifest: model.scheme: no model server of the kind {section.scheme!r}",
                hint=f"known kinds: {known}",
            )
        if self._http is None:
            self._http = HttpPool()
        made = AnthropicClient if preset.scheme == "anthropic" else OpenAIClient
        return made(
            section.base_url or preset.base_url,
            section.model_id,
            _key(section, preset),
            http=self._http,
            start_command=preset.start_command,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()


def label(section: ModelSection) -> str:
    """What a model is called in events and messages."""
    return f"{section.scheme}/{section.model_id}" if section.model_id else section.scheme


def _key(section: ModelSection, preset: Preset) -> str | None:
    """The key, from the variable that the manifest names, or the vendor's own at the vendor's own URL."""
    own = section.base_url is None or _host(section.base_url) == _host(preset.base_url)
    variable = section.api_key_env or (preset.key_env if own else None)
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingKey(variable, what=f"model {label(section)}")
    return key


def _host(base_url: str) -> str:
    return where_of(base_url_of(base_url))
