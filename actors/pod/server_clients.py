"""The client of a model server, in the format that the server speaks, as the manifest configures it."""

from __future__ import annotations

from typing import Any

from actors.llm.http.headers import key_of
from actors.llm.http.http_pool import HttpPool
from actors.llm.http.presets import Preset, Server, list_models
from actors.llm.http.server_client import ServerClient
from protocol.errors import ManifestError
from protocol.manifest import ModelSection

#: How many models Anthropic's API lists at most at once; 20 unless asked.
_MODELS = 1000


def client_for(section: ModelSection, preset: Preset, server: Server, http: HttpPool) -> ServerClient[Any]:
    """The client of a server. Raises ManifestError for a setting that the server does not have."""
    _check(section)
    common: dict[str, Any] = {
        "http": http,
        "start_command": server.start_command,
        "settings": section,
    }
    # Each format is imported by the first pod that speaks it.
    if preset.speaks == "messages":
        from actors.llm.anthropic.client import AnthropicClient  # noqa: PLC0415

        return AnthropicClient(server.base_url, section.model_id, server.api_key, **common)
    if preset.speaks == "responses":
        from actors.llm.responses.client import ResponsesClient  # noqa: PLC0415

        return ResponsesClient(server.base_url, section.model_id, server.api_key, **common)
    base_url, query = server.base_url, ""
    if preset.scheme == "azure":
        base_url, query = azure_address(base_url, section.model_id, section.api_version)
    if (headers := _key_header(preset, server)) is not None:
        common["headers"] = headers
    if section.num_ctx is not None:
        from actors.llm.openai.ollama import SizedModel  # noqa: PLC0415 - paid for by whoever sets it

        common["named"] = SizedModel(base_url, section.num_ctx)
    from actors.llm.openai.client import OpenAIClient  # noqa: PLC0415

    return OpenAIClient(base_url, section.model_id, server.api_key, kind=preset.scheme, query=query, **common)


async def models_of(preset: Preset, server: Server) -> list[str]:
    """The ids of the models that a server offers, asked for as its kind has it. Raises ModelError."""
    url, key = server.base_url, server.api_key
    if preset.speaks == "messages":
        from actors.llm.anthropic.client import headers_of, path_of  # noqa: PLC0415 - as above

        return await list_models(
            url, headers=headers_of(key, url), path=f"{path_of('models', url)}?limit={_MODELS}"
        )
    if preset.scheme == "azure":
        url, _ = azure_address(url, "", None)
    return await list_models(url, api_key=key, headers=_key_header(preset, server))


def _key_header(preset: Preset, server: Server) -> dict[str, str] | None:
    """The header of the key, where the vendor has one of their own."""
    if preset.key_header is None or not server.api_key:
        return None
    return {preset.key_header: key_of(server.api_key, "api_key")}


def _check(section: ModelSection) -> None:
    if section.num_ctx is not None and section.scheme != "ollama":
        raise ManifestError(
            f"manifest: model.num_ctx: only for ollama, not {section.scheme}",
            hint="set context_window to the size of the model's context",
        )
    if section.api_version is not None and section.scheme != "azure":
        raise ManifestError(f"manifest: model.api_version: only for azure, not {section.scheme}")


def azure_address(base_url: str, deployment: str, version: str | None) -> tuple[str, str]:
    """The base URL of Azure's chat completions, and the query string: without an API version for endpoints
    that need none, with one for a deployment.
    """
    root = base_url.removesuffix("/v1").removesuffix("/openai")
    if version is None:
        return f"{root}/openai/v1", ""
    return f"{root}/openai/deployments/{deployment}", f"?api-version={version}"
