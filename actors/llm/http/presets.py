"""Servers that people run, by the name a manifest gives them, and a search for one on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from actors.llm.address import base_url_of
from actors.llm.errors import classify
from actors.llm.http.headers import bearer, key_of
from actors.llm.http.http_pool import HttpPool, Peer
from actors.net.proxies import authorization_of, basic_credentials, is_loopback, where_of, without_credentials
from protocol.errors import ManifestError, MissingKey, ModelError
from protocol.text import UNDECODABLE

#: How long a look for a local server may take: to connect, and to name its models, in seconds.
PROBE_CONNECT = 0.2
PROBE_ANSWER = 2.0
#: The most of a list of models that is read, in bytes.
MAX_LIST_BYTES = 1024 * 1024


class Preset(Struct, frozen=True):
    """A kind of server: where it answers unless configured otherwise, and how it is started.

    ``key_env`` names the environment variable of a key that is required at the vendor's own hosts,
    ``key_header`` the header for it if that is not the bearer header. ``speaks`` is the format of the API. If
    each customer has their own address, ``base_url`` contains an environment variable for what differs (of
    ``${A|B}`` the first that is set), and ``hosts`` are the suffixes of the vendor's host names.
    """

    scheme: str
    base_url: str
    start_command: str | None = None
    key_env: str | None = None
    speaks: Literal["chat", "responses", "messages"] = "chat"
    hosts: str | None = None
    key_header: str | None = None


PRESETS: dict[str, Preset] = {
    preset.scheme: preset
    for preset in (
        Preset("ollama", "http://127.0.0.1:11434/v1", "ollama serve"),
        Preset("lm_studio", "http://127.0.0.1:1234/v1", "lms server start"),
        Preset("vllm", "http://127.0.0.1:8000/v1", "vllm serve MODEL"),
        Preset("llama_cpp", "http://127.0.0.1:8080/v1", "llama-server -m MODEL.gguf --jinja"),
        Preset("openai", "https://api.openai.com/v1", key_env="OPENAI_API_KEY"),
        Preset("openai_responses", "https://api.openai.com/v1", key_env="OPENAI_API_KEY", speaks="responses"),
        Preset("anthropic", "https://api.anthropic.com", key_env="ANTHROPIC_API_KEY", speaks="messages"),
        Preset("openrouter", "https://openrouter.ai/api/v1", key_env="OPENROUTER_API_KEY"),
        Preset("groq", "https://api.groq.com/openai/v1", key_env="GROQ_API_KEY"),
        Preset("mistral", "https://api.mistral.ai/v1", key_env="MISTRAL_API_KEY"),
        Preset("deepseek", "https://api.deepseek.com/v1", key_env="DEEPSEEK_API_KEY"),
        Preset(
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            key_env="GEMINI_API_KEY",
        ),
        Preset(
            "azure",
            "${AZURE_OPENAI_ENDPOINT}",
            key_env="AZURE_OPENAI_API_KEY",
            hosts=".azure.com",
            key_header="api-key",
        ),
        Preset(
            "bedrock",
            "https://bedrock-runtime.${AWS_REGION|AWS_DEFAULT_REGION}.amazonaws.com/openai/v1",
            key_env="AWS_BEARER_TOKEN_BEDROCK",
            hosts=".amazonaws.com",
        ),
    )
}


class Server(Struct, frozen=True):
    """A server as a manifest means it; ``api_key`` is None if none is sent."""

    base_url: str
    api_key: str | None = None
    start_command: str | None = None


def server_for(
    scheme: str,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Server:
    """The server that a manifest's ``[model]`` means.

    A key is required where ``api_key_env`` names its variable, and for a vendor's own address, whose usual
    variable is then looked at; the vendor's key is sent to no other address. Raises MissingKey,
    InvalidKey for one that no header can hold, and ModelError for a scheme or base URL that is none.
    """
    preset = PRESETS.get(scheme)
    if preset is None:
        raise ModelError(
            f"{scheme!r} is not a known scheme of model servers",
            kind="invalid_request",
            hint=f"known schemes: {', '.join(PRESETS)}; for other servers with OpenAI's API, use "
            "openai with base_url",
        )
    url = base_url_of(base_url or address_of(preset, environment))
    at_vendor = _is_vendors(preset, url)
    variable = api_key_env or (preset.key_env if at_vendor else None)
    key = (
        key_of(environment.get(variable) or "", f"the environment variable {variable}") if variable else None
    )
    if variable and not key:
        raise MissingKey(variable, what=where_of(url))
    return Server(url, key, preset.start_command or start_command_for(url))


def address_of(preset: Preset, environment: Mapping[str, str] = os.environ) -> str:
    """Where a kind of server answers unless configured otherwise. Raises ManifestError where that is
    different for each customer, and the environment does not say it.
    """

    def value_of(found: re.Match[str]) -> str:
        names = found[1].split("|")
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value is None:
            raise ManifestError(
                f"manifest: model.base_url: each customer of {preset.scheme} has their own address",
                hint=f"set it in base_url (--base-url), or export {names[0]}",
            )
        return value

    return re.sub(r"\$\{([\w|]+)\}", value_of, preset.base_url)


def _is_vendors(preset: Preset, url: str) -> bool:
    """Whether a URL is the vendor's own."""
    if preset.hosts is not None:
        parts = urlsplit(url)
        return parts.scheme == "https" and (parts.hostname or "").endswith(preset.hosts)
    return where_of(url) == where_of(preset.base_url)


def vendor_of(url: str) -> str | None:
    """The kind of server of the vendor whose own address this is; None if it is not a vendor's."""
    vendors = (preset for preset in PRESETS.values() if preset.key_env is not None)
    return next((preset.scheme for preset in vendors if _is_vendors(preset, url)), None)


def start_command_for(base_url: str) -> str | None:
    """The command that starts the kind of server that usually answers at ``base_url``."""
    parts = urlsplit(base_url)
    if not is_loopback(parts.hostname or ""):
        return None
    local = (preset for preset in PRESETS.values() if preset.start_command is not None)
    ports = {urlsplit(preset.base_url).port: preset.start_command for preset in local}
    return ports.get(parts.port)


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


async def list_models(
    base_url: str,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "/models",
    http: HttpPool | None = None,
    seconds: float = 10.0,
) -> list[str]:
    """The ids of the models that a server offers, as it orders them. Raises ModelError.

    ``api_key`` is sent as OpenAI's API has it; ``headers`` are sent instead where they are given.
    """
    pool = http or HttpPool()
    url = base_url_of(base_url)
    if headers is None:
        headers = bearer(api_key) if api_key else authorization_of(basic_credentials(url))
    else:
        headers = {**authorization_of(basic_credentials(url)), **headers}
    url = without_credentials(url)
    peer = pool.peer(url, dict(headers), start_command=start_command_for(url))
    try:
        return await _list_models(peer, path, seconds)
    finally:
        if http is None:
            await pool.aclose()


async def _list_models(peer: Peer, path: str, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    reply = await peer.get(path, deadline=deadline)
    try:
        body = await reply.read_all(MAX_LIST_BYTES)
    finally:
        await reply.aclose()
    if reply.status != 200:
        words = peer.without_secrets(body)
        raise classify(reply.status, reply.headers, words, where=peer.where, keyed=peer.has_key)
    try:
        return [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except UNDECODABLE as error:
        raise ModelError(
            f"{peer.where} sent no usable list of models: {error}",
            kind="protocol",
            hint="check base_url, which usually ends in /v1",
            where=peer.where,
        ) from error


async def probe_local(*, http: HttpPool | None = None) -> tuple[str, list[str]] | None:
    """The preset of a model server that answers on this machine, and its models; None if none does.

    Tries all preset ports at once, and takes them in the order of the presets. A server that lists no models
    does not count.
    """
    async for preset, models in answering_servers(http=http):
        if models:
            return preset.scheme, models
    return None


async def answering_servers(*, http: HttpPool | None = None) -> AsyncIterator[tuple[Preset, list[str]]]:
    """The presets of the model servers that answer on this machine, in their order, with their models."""
    local = [preset for preset in PRESETS.values() if preset.start_command is not None]
    open_ones = await asyncio.gather(*(_listens(preset.base_url) for preset in local))
    for preset, listens in zip(local, open_ones, strict=True):
        if not listens:
            continue
        try:
            models = await list_models(preset.base_url, http=http, seconds=PROBE_ANSWER)
        except ModelError:
            continue
        yield preset, models


async def _listens(base_url: str) -> bool:
    """Whether something accepts connections there; tried with a bare socket, since mostly nothing does."""
    parts = urlsplit(base_url)
    try:
        async with asyncio.timeout(PROBE_CONNECT):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
