"""Which model servers answer, each asked once for its list of models, which costs nothing."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Literal, Self

from actors.cli.display.format import count
from actors.pod.client_factory import ClientFactory, label, local_client
from actors.runtime.children.launcher import Launcher
from protocol.config import LocalModelSection
from protocol.errors import ManifestError, ModelError, PolypodError
from protocol.manifest import ModelSection
from protocol.urls import without_secrets

if TYPE_CHECKING:
    from actors.llm.http.http_pool import HttpPool

Found = tuple[Literal["ok", "missing", "failed"], str, str | None]
#: Seconds that a server has to name its models.
_SECONDS = 2.0


class Servers:
    """Asks servers for their models, each once."""

    def __init__(self) -> None:
        from actors.llm.http.http_pool import HttpPool  # noqa: PLC0415 - the command's own needs alone

        self._http: HttpPool = HttpPool()
        self._asked: dict[tuple[str, str | None], asyncio.Task[list[str]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def model(self, section: ModelSection) -> Found:
        """Whether a model can be asked: by a key for a vendor's, which is not asked; else by its server."""
        from actors.llm.http.presets import PRESETS, server_for  # noqa: PLC0415 - the same

        name = label(section)
        if section.scheme in {"offline", "chain"}:
            return "ok", name, None
        try:
            server = server_for(section.scheme, base_url=section.base_url, api_key_env=section.api_key_env)
        except PolypodError as error:
            return "failed", f"{name}: {error.message}", error.hint
        usual = PRESETS[section.scheme]
        of_a_vendor = usual.key_env is not None and section.base_url in {None, usual.base_url}
        if of_a_vendor or usual.speaks == "messages":
            known = "its key is set" if server.api_key else "it has no key"
            return "ok", f"{name}; {known}, and it is not contacted", None
        return await self._lists(name, section.model_id, server.base_url, server.api_key)

    def why_no_chain(self, name: str) -> PolypodError | None:
        """Why the chain of that name cannot be made; None where it can."""
        from actors.routing.chain.named import make_chain  # noqa: PLC0415 - the same

        clients = ClientFactory(
            find_chain=lambda name, folder: make_chain(name, folder, clients.client, Launcher)
        )
        try:
            clients.client(ModelSection("chain", name))
        except PolypodError as error:
            return error
        return None

    async def warm(self, url: str) -> Found:
        """Whether the server at ``url`` says which models are loaded. Raises ChainInvalid for no URL."""
        from actors.routing.warm_probe import WarmProbe  # noqa: PLC0415 - the same

        probe, shown = WarmProbe(url, http=self._http), without_secrets(url)
        loaded = await probe.warm_models()
        if probe.kind is None:
            todo = "start the server there, or correct warm_url: it must name llama-swap, Ollama or llama.cpp"
            return (
                "missing",
                (f"nothing at {shown} reports which models are loaded, so none counts as loaded"),
                todo,
            )
        return "ok", f"{count(len(loaded), 'model')} loaded at {shown} ({probe.kind})", None

    async def local(self, section: LocalModelSection) -> Found:
        """Whether the local model answers."""
        try:
            client = local_client(section)
        except ManifestError as error:
            return "failed", error.message, error.hint
        except ModelError as error:
            return "failed", f"{without_secrets(section.endpoint)}: {error.message}", error.hint
        key = section.key(os.environ) or None
        await client.aclose()
        return await self._lists(section.model or "its own model", section.model, section.endpoint, key)

    async def _lists(self, name: str, model: str, base_url: str, key: str | None) -> Found:
        shown = f"{name} at {without_secrets(base_url)}"
        try:
            models = await self._models(base_url, key)
        except ModelError as error:
            return "failed", f"{shown}: {error.message}", error.hint
        if model and model not in models and f"{model}:latest" not in models:
            has = ", ".join(models[:5]) or "none"
            return (
                "failed",
                f"{shown}, which has no such model; it has {has}",
                "correct the name, or load the model",
            )
        return "ok", f"{shown} answers and has {count(len(models), 'model')}", None

    async def _models(self, base_url: str, key: str | None) -> list[str]:
        from actors.llm.http.presets import list_models  # noqa: PLC0415 - the same

        task = self._asked.get((base_url, key))
        if task is None:
            asking = list_models(base_url, api_key=key, http=self._http, seconds=_SECONDS)
            task = self._asked[base_url, key] = asyncio.ensure_future(asking)
        return await task
