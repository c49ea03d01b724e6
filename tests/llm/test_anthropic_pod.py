"""Pods talk to servers of Anthropic's messages as their manifests say."""

import itertools
import json

import pytest
from llm_server import RawServer, stream_reply
from messages_kit import END, HELLO, argued, called, closed, opened, signed, start, stopped, text, thought

from actors import MissingKey, PodManifest, PodSystem
from protocol.items import ThinkingPart

READS = (
    start(input_tokens=1, cache_creation_input_tokens=40, cache_read_input_tokens=0)
    + opened(0, "thinking")
    + thought("Let me see.")
    + signed("EqQB")
    + closed(0)
    + opened(1, "text")
    + text("I read.", 1)
    + closed(1)
    + called(2, "word_count", "toolu_1")
    + argued('{"text": "one two"}', 2)
    + closed(2)
    + stopped("tool_use", output_tokens=9)
    + END
)
READ_BACK = (
    start(input_tokens=2, cache_creation_input_tokens=5, cache_read_input_tokens=40)
    + opened(0, "text")
    + text("Two words.")
    + closed()
    + stopped(output_tokens=4)
    + END
)


def word_count(text: str) -> int:
    """Count words."""
    return len(text.split())


def unmarked(value: object) -> object:
    if isinstance(value, dict):
        return {key: unmarked(inner) for key, inner in value.items() if key != "cache_control"}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


def manifest(base_url: str, more: str = "") -> PodManifest:
    return PodManifest.from_toml(
        f'[pod]\nsystem_prompt = "be kind"\n'
        f'[model]\nscheme = "anthropic"\nmodel_id = "claude"\nbase_url = "{base_url}"\n{more}'
    )


async def test_a_pod_calls_a_tool_and_sends_reasoning_and_result_back():
    async with RawServer(stream_reply(READS), stream_reply(READ_BACK)) as server, PodSystem() as system:
        pod = await system.spawn(manifest(server.url), tools=[word_count])
        result = await pod.run("How many words?")
        assert result.text == "Two words."
        assert (result.usage.input_tokens, result.usage.output_tokens) == (41 + 47, 13)
        assert (result.usage.cache_read_tokens, result.usage.cache_write_tokens) == (40, 45)
        first, second = (each.json for each in server.received)
        answer, results = second["messages"][1:]
        assert answer["content"][0] == {
            "type": "thinking",
            "thinking": "Let me see.",
            "signature": "EqQB",
        }
        assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
        assert unmarked(results["content"]) == [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}
        ]
        assert unmarked(second["messages"][:1]) == unmarked(first["messages"])
        assert second["tools"] == first["tools"]
        assert second["system"] == first["system"]
        kept = (await pod.history())[1].content[0]
        assert kept == ThinkingPart("Let me see.", "EqQB")


async def test_every_request_of_a_pod_begins_with_the_one_before():
    async with RawServer(stream_reply(HELLO)) as server, PodSystem() as system:
        pod = await system.spawn(manifest(server.url), tools=[word_count])
        for number in range(4):
            await pod.run(f"number {number}")
        bodies = [json.dumps(unmarked(each.json["messages"])).removesuffix("]") for each in server.received]
        assert all(after.startswith(before) for before, after in itertools.pairwise(bodies))
        assert [each.body.count(b'"cache_control"') for each in server.received] == [3, 4, 4, 4]


async def test_a_server_of_ones_own_needs_no_key_and_the_vendor_does(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)

    async with PodSystem() as system:
        await system.spawn(manifest("http://127.0.0.1:1"))
        for vendor in ("https://api.anthropic.com", "https://api.anthropic.com/v1/"):
            with pytest.raises(MissingKey, match="ANTHROPIC_API_KEY"):
                await system.spawn(manifest(vendor))
        with pytest.raises(MissingKey, match="MY_PROXY_KEY"):
            await system.spawn(manifest("http://127.0.0.1:1", 'api_key_env = "MY_PROXY_KEY"'))
        with pytest.raises(MissingKey, match="ANTHROPIC_API_KEY"):
            await system.spawn(PodManifest.of(model="anthropic/claude"))


async def test_the_key_of_the_manifests_variable_is_sent(monkeypatch):
    monkeypatch.setenv("MY_PROXY_KEY", "k-123")

    async with RawServer(stream_reply(HELLO)) as server, PodSystem() as system:
        pod = await system.spawn(manifest(server.url, 'api_key_env = "MY_PROXY_KEY"'))
        await pod.run("hi")
        assert server.received[0].headers["x-api-key"] == "k-123"
