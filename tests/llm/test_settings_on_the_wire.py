"""Every model setting reaches the bytes that a server gets, or is refused in words before any are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from client_kit import HI, answer_from, chat_events, messages_events
from hypothesis import given
from hypothesis import strategies as st
from llm_server import Exchange, RawServer, Received, error_reply, reply

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.anthropic.request import MAX_TOKENS, VENDOR_MAX_TOKENS
from actors.llm.http.contract import HttpSettings
from actors.llm.http.http_pool import HttpPool
from actors.llm.http.presets import PRESETS, server_for
from actors.llm.http.rate import WINDOW, RateLimits, RateWindow
from actors.llm.scripted import call, say
from actors.pod.server_clients import azure_address
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import ManifestError, MissingKey, ModelError, RunFailed
from protocol.manifest import ModelSection, PodManifest
from protocol.usage import Usage

CHAT = reply(b"".join(chat_events(say("ok", input_tokens=90, output_tokens=10))))
MESSAGES = reply(b"".join(messages_events(say("ok"))))


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


async def received(
    settings: dict[str, Any], scheme: str = "openai", script: bytes = CHAT, **run: Any
) -> Received:
    """The one request that a pod sends whose ``[model]`` has these settings."""
    async with RawServer(script) as server, PodSystem() as system:
        model = {"scheme": scheme, "model_id": "m", "base_url": server.url, **settings}
        pod = await system.spawn(PodManifest.of(model=model), tools=[add])
        assert (await pod.run("hi", **run)).text == "ok"
        (request,) = server.received
        return request


async def body(settings: dict[str, Any], scheme: str = "openai", **run: Any) -> dict[str, Any]:
    script = MESSAGES if scheme == "anthropic" else CHAT
    return (await received(settings, scheme, script, **run)).json


ON_THE_WIRE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("openai", {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2, "top_p": 0.9}),
    ("openai", {"max_tokens": 77}, {"max_tokens": 77}),
    ("openai", {"seed": 0}, {"seed": 0}),
    ("mistral", {"seed": 7}, {"random_seed": 7}),
    ("openai", {"stop": "END"}, {"stop": ["END"]}),
    ("openai", {"stop": ["END", "\n\n"]}, {"stop": ["END", "\n\n"]}),
    ("openai", {"tool_choice": "none"}, {"tool_choice": "none"}),
    ("openai", {"tool_choice": "required"}, {"tool_choice": "required"}),
    ("openai", {"tool_choice": "add"}, {"tool_choice": {"type": "function", "function": {"name": "add"}}}),
    ("openai", {"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}),
    ("ollama", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
    ("groq", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("gemini", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    (
        "gemini",
        {"thinking_budget": 500},
        {"extra_body": {"google": {"thinking_config": {"thinking_budget": 500}}}},
    ),
    ("openrouter", {"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
    ("openrouter", {"thinking_budget": 2000}, {"reasoning": {"max_tokens": 2000}}),
    ("openrouter", {"thinking_budget": 0}, {"reasoning": {"effort": "none"}}),
    ("deepseek", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ("deepseek", {"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
    ("openai", {"extra_body": {"top_k": 40, "nested": {"a": [1]}}}, {"top_k": 40, "nested": {"a": [1]}}),
    ("openrouter", {"extra_body": {"provider": {"order": ["x"]}}}, {"provider": {"order": ["x"]}}),
    ("anthropic", {"top_p": 0.9, "stop": ["END"]}, {"top_p": 0.9, "stop_sequences": ["END"]}),
    ("anthropic", {"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    ("anthropic", {"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ("anthropic", {"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ("anthropic", {"tool_choice": "add"}, {"tool_choice": {"type": "tool", "name": "add"}}),
    (
        "anthropic",
        {"reasoning_effort": "low"},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    ),
    ("anthropic", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    (
        "anthropic",
        {"thinking_budget": 2000},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 8192 + 2000},
    ),
    ("anthropic", {"thinking_budget": 0}, {"thinking": {"type": "disabled"}}),
    ("anthropic", {"thinking_budget": 2000, "max_tokens": 3000}, {"max_tokens": 3000}),
    ("anthropic", {"extra_body": {"top_k": 40}}, {"top_k": 40}),
]


@pytest.mark.parametrize(("scheme", "settings", "fields"), ON_THE_WIRE, ids=lambda value: str(value)[:40])
async def test_a_setting_stands_in_the_request(
    scheme: str, settings: dict[str, Any], fields: dict[str, Any]
) -> None:
    for sent in (await body(settings, scheme), await body({}, scheme, model_settings=settings)):
        assert {name: sent.get(name) for name in fields} == fields


async def test_a_request_without_settings_has_nothing_but_what_it_needs() -> None:
    sent = await body({})
    assert sent.keys() == {"model", "stream", "stream_options", "tools", "messages"}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {"thinking_budget": 100}, "thinking_budget"),
    ("vllm", {"thinking_budget": 100}, "thinking_budget"),
    ("openrouter", {"thinking_budget": 100, "reasoning_effort": "low"}, "mean the same here"),
    ("anthropic", {"seed": 1}, "model.seed"),
    ("anthropic", {"reasoning_effort": "minimal"}, "reasoning_effort"),
    ("anthropic", {"thinking_budget": 100}, "at least 1024"),
    ("anthropic", {"thinking_budget": 2000, "max_tokens": 2000}, "are more than max_tokens"),
    ("openai", {"num_ctx": 4096}, "only for ollama"),
    ("openai", {"api_version": "2024-10-21"}, "only for azure"),
    ("openai", {"extra_headers": {"X-Tenant": "${NO_SUCH_VARIABLE}"}}, "NO_SUCH_VARIABLE"),
]


@pytest.mark.parametrize(("scheme", "settings", "words"), REFUSED, ids=lambda value: str(value)[:40])
async def test_a_setting_that_a_server_has_not_is_refused_at_spawn(
    scheme: str, settings: dict[str, Any], words: str
) -> None:
    model = {"scheme": scheme, "model_id": "m", "base_url": "http://127.0.0.1:9/v1", **settings}
    async with PodSystem() as system:
        with pytest.raises(ManifestError, match=words):
            await system.spawn(PodManifest.of(model=model))


@pytest.mark.parametrize("name", ["top_p", "seed", "reasoning_effort", "num_ctx", "requests_per_minute"])
async def test_the_embedded_model_has_none_of_them(name: str) -> None:
    value = {"top_p": 0.5, "seed": 1, "reasoning_effort": "low", "num_ctx": 4096, "requests_per_minute": 5}[
        name
    ]
    async with PodSystem() as system:
        with pytest.raises(ManifestError, match=f"{name}: not for the embedded model"):
            await system.spawn(PodManifest.of(model={name: value}))


async def test_headers_go_with_each_request_and_take_secrets_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENANT_TOKEN", "s3cret")
    headers = {"X-Title": "my app", "X-Tenant-Token": "Token ${TENANT_TOKEN}"}
    request = await received({"extra_headers": headers})
    assert request.headers["x-title"] == "my app"
    assert request.headers["x-tenant-token"] == "Token s3cret"
    request = await received({}, model_settings={"extra_headers": {"X-Title": "this run"}})
    assert request.headers["x-title"] == "this run"


async def test_no_secret_of_a_header_is_in_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT_TOKEN", "s3cret")
    async with RawServer(CHAT) as server, PodSystem() as system:
        model = {"scheme": "openai", "base_url": server.url, "extra_headers": {"X-Token": "${TENANT_TOKEN}"}}
        pod = await system.spawn(PodManifest.of(model=model))
        result = await pod.run("hi")
        entries = system.store.read(result.session_id, limit=99)
        assert not any(b"s3cret" in entry.body for entry in entries)  # type: ignore[union-attr]
        assert server.received[0].headers["x-token"] == "s3cret"


async def never_answers(exchange: Exchange) -> None:
    await exchange.wait_until_gone()


async def test_the_first_byte_is_waited_for_as_long_as_timeout_says() -> None:
    async with RawServer(never_answers) as server, PodSystem() as system:
        model = {"scheme": "openai", "base_url": server.url, "timeout": 0.05, "attempts": 2}
        pod = await system.spawn(PodManifest.of(model=model))
        with pytest.raises(RunFailed, match=r"sent nothing for 0\.05 s"):
            await pod.run("hi")
        assert len(server.received) == 2


async def test_a_silence_within_an_answer_is_borne_as_long_as_idle_timeout_says() -> None:
    async def stalls(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        await exchange.send(head, chat_events(say("a", chunks=1))[0])
        await exchange.wait_until_gone()

    async with RawServer(stalls) as server, PodSystem() as system:
        model = {"scheme": "openai", "base_url": server.url, "idle_timeout": 0.05, "attempts": 1}
        pod = await system.spawn(PodManifest.of(model=model))
        with pytest.raises(RunFailed, match=r"sent nothing for 0\.05 s"):
            await pod.run("hi")


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_request_is_sent_as_often_as_attempts_says(attempts: int) -> None:
    async with RawServer(error_reply("503 Service Unavailable", "busy")) as server, PodSystem() as system:
        model = {"scheme": "openai", "base_url": server.url}
        pod = await system.spawn(PodManifest.of(model=model))
        with pytest.raises(RunFailed):
            await pod.run("hi", model_settings={"attempts": attempts})
        assert len(server.received) == attempts


async def test_helpers_think_as_the_pod_does_and_neither_stop_nor_call_as_a_run_does() -> None:
    summary = reply(b"".join(chat_events(call("write_summary", {"text": "they spoke"}))))
    async with RawServer(CHAT, summary, CHAT) as server, PodSystem() as system:
        model = {
            "scheme": "openai",
            "base_url": server.url,
            "reasoning_effort": "low",
            "stop": "END",
            "tool_choice": "none",
        }
        pod = await system.spawn(PodManifest.of(model=model), tools=[add])
        await pod.run("hi")
        await pod.compact(0)
    run, helper = server.received[0].json, server.received[1].json
    assert (run["stop"], run["tool_choice"]) == (["END"], "none")
    assert helper["reasoning_effort"] == "low"
    assert "stop" not in helper
    assert helper.get("tool_choice") != "none"


@pytest.mark.parametrize(
    "words",
    [
        "adaptive thinking is not supported on this model",
        "Only 'enabled' and 'disabled' are supported for thinking; 'adaptive' is not supported.",
        "body.thinking.type: Input should be 'enabled' or 'disabled'",
        "Validation: `thinking.type` must be `enabled` or `disabled`",
        "thinking: Input tag 'adaptive' found using 'type' does not match any of the expected tags: 'enabled'",
        "unsupported thinking type: adaptive",
    ],
)
async def test_a_model_that_cannot_decide_itself_how_long_to_think_is_asked_without(words: str) -> None:
    refusal = error_reply("400 Bad Request", words)
    async with RawServer(refusal, MESSAGES) as server, PodSystem() as system:
        model = {"scheme": "anthropic", "base_url": server.url, "reasoning_effort": "low"}
        pod = await system.spawn(PodManifest.of(model=model))
        assert (await pod.run("hi")).text == "ok"
        assert "thinking" not in server.received[1].json
        assert server.received[1].json["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(
    ("settings", "words", "thinking"),
    [
        (
            {"thinking_budget": 2000},
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".',
            {"type": "adaptive"},
        ),
        (
            {"reasoning_effort": "none"},
            '"thinking.type.disabled" is not supported for this model. Thinking defaults to adaptive mode.',
            None,
        ),
    ],
)
async def test_a_model_that_only_thinks_as_long_as_it_decides_is_asked_so_from_then_on(
    settings: dict[str, Any], words: str, thinking: dict[str, Any] | None
) -> None:
    async with RawServer(error_reply("400 Bad Request", words), MESSAGES) as server, PodSystem() as system:
        model = {"scheme": "anthropic", "base_url": server.url, **settings}
        pod = await system.spawn(PodManifest.of(model=model))
        for _ in range(2):
            assert (await pod.run("hi")).text == "ok"
    assert [each.json.get("thinking") for each in server.received[1:]] == [thinking, thinking]


async def test_the_vendors_models_have_room_for_thinking_that_nobody_asked_for() -> None:
    requests: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(json.loads(request.content))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"")

    pool = HttpPool(HttpSettings(transport=lambda _: httpx.MockTransport(handle)))
    for url in ("https://api.anthropic.com", "https://proxy.example"):
        with pytest.raises(ModelError):
            await answer_from(AnthropicClient(url, "m", "k", http=pool))
    await pool.aclose()
    assert [each["max_tokens"] for each in requests] == [VENDOR_MAX_TOKENS, MAX_TOKENS]


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for m",
        "input length and `max_tokens` exceed context limit: 180000 + 32000 > 200000, decrease input length",
    ],
)
async def test_an_older_model_of_the_vendor_that_has_no_room_for_that_is_asked_for_less(words: str) -> None:
    lengths: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        lengths.append(json.loads(request.content)["max_tokens"])
        if lengths[-1] > MAX_TOKENS:
            return httpx.Response(400, json={"error": {"type": "invalid_request_error", "message": words}})
        head = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=head, content=b"".join(messages_events(say("ok"))))

    pool = HttpPool(HttpSettings(transport=lambda _: httpx.MockTransport(handle)))
    client = AnthropicClient("https://api.anthropic.com", "m", "k", http=pool)
    for _ in range(2):
        assert (await answer_from(client)).item.text == "ok"
    assert lengths == [VENDOR_MAX_TOKENS, MAX_TOKENS, MAX_TOKENS]
    with pytest.raises(ModelError):
        await answer_from(client, msgspec.structs.replace(HI, max_tokens=9000))
    assert lengths[3:] == [9000]
    await pool.aclose()


# -- servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sized"),
    [
        ("qwen3:8b", "qwen3-ctx32768:8b"),
        ("qwen3", "qwen3-ctx32768"),
        ("models.lan:5000/team/qwen3:8b", "models.lan:5000/team/qwen3-ctx32768:8b"),
        ("models.lan:5000/team/qwen3", "models.lan:5000/team/qwen3-ctx32768"),
    ],
)
async def test_ollama_is_given_a_model_of_the_context_that_was_asked_for(name: str, sized: str) -> None:
    created = reply(b'{"status":"success"}')
    async with RawServer(created, CHAT, CHAT) as server, PodSystem() as system:
        model = {"scheme": "ollama", "model_id": name, "base_url": server.url, "num_ctx": 32768}
        pod = await system.spawn(PodManifest.of(model=model))
        await pod.run("hi")
        await pod.run("hi")
    paths = [request.path for request in server.received]
    assert paths == ["/api/create", "/v1/chat/completions", "/v1/chat/completions"]
    assert server.received[0].json == {
        "model": sized,
        "from": name,
        "parameters": {"num_ctx": 32768},
        "stream": False,
    }
    assert server.received[1].json["model"] == sized


async def test_ollama_says_where_it_has_not_the_model() -> None:
    async with (
        RawServer(error_reply("404 Not Found", "model 'qwen9' not found")) as server,
        PodSystem() as system,
    ):
        model = {"scheme": "ollama", "model_id": "qwen9", "base_url": server.url, "num_ctx": 8192}
        pod = await system.spawn(PodManifest.of(model=model))
        with pytest.raises(RunFailed, match="qwen9"):
            await pod.run("hi")


async def test_azure_is_asked_at_its_own_path_with_its_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_AZURE_KEY", "azure-key-1")
    for version, path in (
        (None, "/openai/v1/chat/completions"),
        ("2024-10-21", "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
    ):
        async with RawServer(CHAT) as server, PodSystem() as system:
            root = server.url.removesuffix("/v1")
            model = ModelSection("azure", "my-gpt", root, "MY_AZURE_KEY", api_version=version)
            pod = await system.spawn(PodManifest.of(model=model))
            await pod.run("hi")
            (request,) = server.received
        assert request.path == path
        assert request.headers["api-key"] == "azure-key-1"
        assert "authorization" not in request.headers


def test_an_address_of_azure_may_be_given_with_or_without_its_path() -> None:
    root = "https://mine.openai.azure.com"
    for given_one in (root, f"{root}/openai", f"{root}/openai/v1"):
        assert azure_address(given_one, "m", None) == (f"{root}/openai/v1", "")


CLOUDS = ["openrouter", "groq", "mistral", "deepseek", "gemini", "openai", "anthropic"]


@pytest.mark.parametrize("scheme", CLOUDS)
def test_a_vendors_key_is_required_at_the_vendor_and_sent_nowhere_else(scheme: str) -> None:
    variable = PRESETS[scheme].key_env
    assert variable is not None
    with pytest.raises(MissingKey, match=variable):
        server_for(scheme, environment={})
    found = server_for(scheme, environment={variable: "key-1"})
    assert (found.base_url, found.api_key) == (PRESETS[scheme].base_url, "key-1")
    elsewhere = server_for(scheme, base_url="http://127.0.0.1:9/v1", environment={variable: "key-1"})
    assert elsewhere.api_key is None


def test_servers_that_each_customer_has_for_himself_are_found_by_the_environment() -> None:
    azure = {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/", "AZURE_OPENAI_API_KEY": "k-1"}
    assert server_for("azure", environment=azure).base_url == "https://mine.openai.azure.com"
    assert server_for("azure", environment=azure).api_key == "k-1"
    bedrock = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_BEARER_TOKEN_BEDROCK": "b-1"}
    found = server_for("bedrock", environment=bedrock)
    assert found.base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1"
    assert found.api_key == "b-1"
    both = server_for("bedrock", environment={**bedrock, "AWS_REGION": "us-west-2"})
    assert "us-west-2" in both.base_url
    for scheme, variable in (("azure", "AZURE_OPENAI_ENDPOINT"), ("bedrock", "AWS_REGION")):
        with pytest.raises(ManifestError, match=variable):
            server_for(scheme, environment={})
        with pytest.raises(MissingKey):
            server_for(scheme, environment={**azure, **bedrock, str(PRESETS[scheme].key_env): ""})


# -- requests and tokens a minute -------------------------------------------------------------------


class Clock:
    """A clock that goes on by what is slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        await asyncio.sleep(0)


async def test_the_request_after_the_last_of_a_minute_waits_for_the_next() -> None:
    clock = Clock()
    window = RateWindow(RateLimits(requests=2), clock=clock, sleep=clock.sleep)
    for _ in range(2):
        await window.enter("here", 1, None)
    assert clock.slept == 0
    clock.now = 10.0
    await window.enter("here", 1, None)
    assert clock.now == WINDOW
    await window.enter("here", 1, None)
    assert clock.now == WINDOW
    await window.enter("here", 1, None)
    assert clock.now == 2 * WINDOW


async def test_what_a_server_counts_takes_the_place_of_the_estimate() -> None:
    clock = Clock()
    window = RateWindow(RateLimits(tokens=100), clock=clock, sleep=clock.sleep)
    first = await window.enter("here", 90, None)
    first.settle(Usage(10, 5))
    await window.enter("here", 85, None)
    assert clock.slept == 0
    await window.enter("here", 101, None)  # larger than all that is allowed: it goes alone
    assert clock.now == WINDOW


async def test_who_would_wait_longer_than_its_run_may_is_turned_away() -> None:
    clock = Clock()
    window = RateWindow(RateLimits(requests=1), clock=clock, sleep=clock.sleep)
    await window.enter("here", 1, None)
    with pytest.raises(ModelError, match="requests_per_minute") as raised:
        await window.enter("here", 1, 30.0)
    assert raised.value.kind == "rate_limit"
    assert not raised.value.retryable


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 60)), max_size=30),
    st.integers(1, 4),
    st.integers(10, 100),
)
def test_no_minute_has_more_than_is_allowed(
    wanted: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    clock = Clock()
    window = RateWindow(RateLimits(requests, tokens), clock=clock, sleep=clock.sleep)
    sent: list[tuple[float, int]] = []

    async def send_all() -> None:
        for pause, size in wanted:
            clock.now += pause
            await window.enter("here", size, None)
            sent.append((clock.now, size))

    asyncio.run(send_all())
    for at, size in sent:
        minute = [each for each in sent if at - WINDOW + 1e-6 < each[0] <= at]
        assert len(minute) <= requests
        assert sum(each[1] for each in minute) <= max(tokens, size)


async def test_pods_of_one_server_share_what_it_takes_in_a_minute() -> None:
    async with RawServer(CHAT) as server, PodSystem() as system:
        manifest: Callable[[str], PodManifest] = lambda name: PodManifest.of(  # noqa: E731
            model={"scheme": "openai", "model_id": name, "base_url": server.url, "requests_per_minute": 2},
            budget={"seconds": 20.0},
        )
        pods = [await system.spawn(manifest(name)) for name in ("a", "b", "c")]
        for pod in pods[:2]:
            assert (await pod.run("hi")).text == "ok"
        with pytest.raises(RunFailed, match="per minute"):
            await pods[2].run("hi")
        assert len(server.received) == 2


async def test_what_a_server_reports_of_a_request_counts_against_the_next() -> None:
    async with RawServer(CHAT) as server, PodSystem() as system:  # 100 tokens each
        model = {"scheme": "openai", "model_id": "m", "base_url": server.url, "tokens_per_minute": 290}
        pod = await system.spawn(PodManifest.of(model=model, budget={"seconds": 20.0}))
        assert [(await pod.run("hi")).text for _ in range(2)] == ["ok", "ok"]
        with pytest.raises(RunFailed, match="tokens_per_minute"):
            await pod.run("x" * 400)
        assert len(server.received) == 2
