"""Presets know where servers answer, and a look at this machine finds the one that does."""

import asyncio
import json

import msgspec
import pytest
from llm_recordings import recording
from llm_server import Exchange, RawServer, error_reply, reply
from ports import unused_port

from actors.llm.http import presets
from actors.llm.http.http_pool import HttpPool
from actors.llm.http.presets import (
    PRESETS,
    Preset,
    Server,
    list_models,
    probe_local,
    server_for,
    start_command_for,
)
from actors.pod.server_clients import models_of
from protocol.errors import MissingKey, ModelError


def models(*names: str) -> bytes:
    return reply(json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode())


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch):
    """Sets the ports of the local presets in their order; the rest of a port is one where nothing listens."""

    def set_ports(*ports: int) -> None:
        for name, port in zip(("ollama", "lm_studio", "vllm", "llama_cpp"), ports, strict=True):
            preset = msgspec.structs.replace(PRESETS[name], base_url=f"http://127.0.0.1:{port}/v1")
            monkeypatch.setitem(presets.PRESETS, name, preset)

    return set_ports


def test_presets_are_where_their_servers_answer():
    assert {name: preset.base_url for name, preset in PRESETS.items()} == {
        "ollama": "http://127.0.0.1:11434/v1",
        "lm_studio": "http://127.0.0.1:1234/v1",
        "vllm": "http://127.0.0.1:8000/v1",
        "llama_cpp": "http://127.0.0.1:8080/v1",
        "openai": "https://api.openai.com/v1",
        "openai_responses": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com",
        "openrouter": "https://openrouter.ai/api/v1",
        "groq": "https://api.groq.com/openai/v1",
        "mistral": "https://api.mistral.ai/v1",
        "deepseek": "https://api.deepseek.com/v1",
        "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
        "azure": "${AZURE_OPENAI_ENDPOINT}",
        "bedrock": "https://bedrock-runtime.${AWS_REGION|AWS_DEFAULT_REGION}.amazonaws.com/openai/v1",
    }
    assert PRESETS["openai"].key_env == "OPENAI_API_KEY"
    assert PRESETS["anthropic"].key_env == "ANTHROPIC_API_KEY"
    assert all(preset.start_command or preset.key_env for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("http://localhost:11434/v1", "ollama serve"),
        ("http://127.0.0.1:8080/v1/", "llama-server -m MODEL.gguf --jinja"),
        ("http://127.0.0.1:9/v1", None),
        ("http://example.org:11434/v1", None),
    ],
)
def test_the_start_command_is_named_for_ports_of_this_machine_alone(url, command):
    assert start_command_for(url) == command


async def test_a_server_lists_its_models():
    async with RawServer(recording("models").raw) as server:
        assert await list_models(server.url, api_key="k") == ["tiny"]
        assert server.received[0].path == "/v1/models"
        assert server.received[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("scheme", "end", "path", "header"),
    [
        ("anthropic", "", "/v1/models?limit=1000", "x-api-key"),
        ("anthropic", "/v1", "/v1/models?limit=1000", "x-api-key"),
        ("azure", "", "/openai/v1/models", "api-key"),
        ("azure", "/openai/v1", "/openai/v1/models", "api-key"),
    ],
)
async def test_a_vendor_is_asked_for_its_models_where_and_with_the_header_that_it_has(
    scheme: str, end: str, path: str, header: str
):
    """They were asked as OpenAI's API is, and answered 404 or 401 to everybody."""
    async with RawServer(recording("models").raw) as server:
        url = server.url.removesuffix("/v1") + end
        assert await models_of(PRESETS[scheme], Server(url, "k")) == ["tiny"]
        assert (server.received[0].path, server.received[0].headers[header]) == (path, "k")
        assert ("anthropic-version" in server.received[0].headers) == (scheme == "anthropic")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (recording("loading_models").raw, "overloaded"),
        (error_reply("401 Unauthorized", "no"), "auth"),
        (reply(b"<html>"), "protocol"),
        (reply(b'{"data": {}}'), "protocol"),
        (reply(b'{"data": [' + b'{"id": "x"},' * 200_000 + b'{"id": "x"}]}'), "protocol"),
    ],
)
async def test_what_is_no_list_of_models_is_an_error(answer, kind):
    async with RawServer(answer) as server:
        with pytest.raises(ModelError) as caught:
            await list_models(server.url)
        assert caught.value.kind == kind


async def test_the_first_preset_that_answers_with_models_is_found(ports):
    async with (
        RawServer(error_reply("404 Not Found", "what?")) as stranger,
        RawServer(models()) as empty,
        RawServer(models("qwen3", "phi4")) as server,
    ):
        ports(unused_port(), stranger.port, empty.port, server.port)
        assert await probe_local() == ("llama_cpp", ["qwen3", "phi4"])
        pool = HttpPool()
        assert await probe_local(http=pool) == ("llama_cpp", ["qwen3", "phi4"])
        await pool.aclose()


def test_no_server_is_found_where_there_is_none(ports):
    ports(*(unused_port() for _ in range(4)))
    assert asyncio.run(probe_local()) is None


async def test_a_listener_that_says_nothing_is_no_model_server(ports, monkeypatch):
    monkeypatch.setattr(presets, "PROBE_ANSWER", 0.1)

    async def silent(exchange: Exchange) -> None:
        await exchange.wait_until_gone()

    async with RawServer(silent) as server:
        ports(server.port, *(unused_port() for _ in range(3)))
        assert await probe_local() is None


def test_a_look_for_a_server_loads_no_http_where_nothing_listens():
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    script = """
import asyncio, sys
from actors.llm.http import presets
from actors.llm.openai.client import OpenAIClient
presets.PRESETS.clear()
assert asyncio.run(presets.probe_local()) is None
OpenAIClient("http://127.0.0.1:1/v1", "m")
assert not {"aiohttp", "httpx", "actors.llm.http.aiohttp_transport"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_preset_is_data():
    assert msgspec.json.decode(msgspec.json.encode(PRESETS["vllm"]), type=Preset) == PRESETS["vllm"]


def test_a_local_server_needs_no_key():
    assert server_for("ollama", environment={}) == Server(PRESETS["ollama"].base_url, None, "ollama serve")
    moved = server_for("vllm", base_url="http://10.0.0.7:9000/v1/", environment={})
    assert (moved.base_url, moved.api_key) == ("http://10.0.0.7:9000/v1", None)


def test_a_vendors_own_address_needs_the_vendors_key():
    with pytest.raises(MissingKey, match="OPENAI_API_KEY") as caught:
        server_for("openai", environment={})
    assert caught.value.kind == "auth"
    assert server_for("openai", environment={"OPENAI_API_KEY": "k"}).api_key == "k"


def test_a_vendors_key_is_sent_to_no_other_address():
    environment = {"OPENAI_API_KEY": "k"}
    assert server_for("openai", base_url="http://proxy.example/v1", environment=environment).api_key is None


def test_a_variable_that_is_named_must_be_set():
    with pytest.raises(MissingKey, match="MY_KEY"):
        server_for("vllm", api_key_env="MY_KEY", environment={"MY_KEY": ""})
    assert server_for("vllm", api_key_env="MY_KEY", environment={"MY_KEY": "k"}).api_key == "k"


def test_an_unknown_kind_of_server_is_an_error_that_names_the_known_ones():
    with pytest.raises(ModelError) as caught:
        server_for("olama", environment={})
    assert "ollama" in caught.value.hint
