"""A tool whose name no server takes is sent under another one, and what the model then calls is the tool."""

import json
from typing import Any

import pytest
from llm_server import Exchange, RawServer, stream_reply
from messages_kit import END, HELLO, argued, called, closed, start, stopped
from strict_server import answer_from, anthropic_faults, openai_faults, strict

from actors import PodManifest, PodSystem
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import LLMClient, Request
from actors.llm.legal import legal_name, original_names
from actors.llm.openai.client import OpenAIClient
from actors.tools.base import Tool
from protocol.items import ToolCall, UserItem
from protocol.tools import ToolSpec

DOTTED = "files.read"
TOOLS = (ToolSpec(DOTTED, "Reads.", {"type": "object"}), ToolSpec("look", "Looks.", {"type": "object"}))


def called_by(scheme: str, name: str) -> bytes:
    """The answer of a server that calls the tool ``name``."""
    if scheme == "anthropic":
        return stream_reply(
            start() + called(0, name, "c1") + argued("{}") + closed() + stopped("tool_use") + END
        )
    function = {"name": name, "arguments": "{}"}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    return stream_reply(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode())


def said_by(scheme: str) -> bytes:
    if scheme == "anthropic":
        return stream_reply(HELLO)
    return stream_reply(
        b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )


def client_of(scheme: str, url: str) -> Any:
    return AnthropicClient(url, "m") if scheme == "anthropic" else OpenAIClient(url, "m")


def names_sent(body: dict[str, Any]) -> list[str]:
    return [each.get("name") or each["function"]["name"] for each in body["tools"]]


SCHEMES = pytest.mark.parametrize("scheme", ["openai", "anthropic"])


@SCHEMES
@pytest.mark.parametrize("name", [DOTTED, "look"])
async def test_a_call_of_a_tool_that_was_sent_renamed_carries_the_tools_own_name(scheme: str, name: str):
    async def script(exchange: Exchange) -> None:  # a model that calls what it was given
        place = [each.name for each in TOOLS].index(name)
        await exchange.send(called_by(scheme, names_sent(exchange.received.json)[place]))

    async with RawServer(script) as server, client_of(scheme, server.url) as client:
        answer = await answer_from(client, Request([UserItem.of("go")], tools=TOOLS))
        assert names_sent(server.received[0].json)[0] != DOTTED
        assert answer.item.calls[0].name == name


@SCHEMES
async def test_a_tool_that_has_to_be_called_is_named_as_it_is_sent(scheme: str):
    async with RawServer(said_by(scheme)) as server:
        client: LLMClient
        async with client_of(scheme, server.url) as client:
            await answer_from(client, Request([UserItem.of("go")], tools=TOOLS, forced_tool=DOTTED))
        chosen = server.received[0].json["tool_choice"]
        assert (chosen.get("name") or chosen["function"]["name"]) == legal_name(DOTTED)


def test_a_tool_that_has_the_name_another_is_sent_as_keeps_it():
    taken = ToolSpec(legal_name(DOTTED), "", {})
    assert original_names([*TOOLS, taken]) == {}


class Dotted(Tool):
    """A tool as a bridge to other systems makes it, with the name that it has there."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self.name = DOTTED
        self.spec = ToolSpec(DOTTED, self.description, self.input_schema)


@SCHEMES
async def test_a_pod_runs_a_tool_whose_name_no_server_takes(scheme: str):
    ran = []

    def read() -> str:
        """Read."""
        ran.append(1)
        return "contents"

    refused: list[str] = []
    answers = [called_by(scheme, legal_name(DOTTED)), said_by(scheme)]
    faults = anthropic_faults if scheme == "anthropic" else openai_faults
    script = strict(faults, lambda number: answers[number], refused)
    async with RawServer(script) as server, PodSystem() as system:
        manifest = PodManifest.from_toml(
            f'[model]\nscheme = "{scheme}"\nmodel_id = "m"\nbase_url = "{server.url}"\n'
        )
        pod = await system.spawn(manifest, tools=[Dotted(read)])
        assert (await pod.run("go")).outcome == "finished"
        assert (await pod.history())[1].calls == (ToolCall("c1", DOTTED),)
        assert (await pod.history())[2].text == "contents"
    assert (ran, refused) == ([1], [])
