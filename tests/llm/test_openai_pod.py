"""Pods on servers that speak chat completions: typed answers, whatever the server knows of JSON."""

from __future__ import annotations

import msgspec
import pytest
from llm_server import RawServer, error_reply, stream_reply

from actors.system import PodSystem
from protocol.errors import OutputInvalid, RunFailed
from protocol.manifest import PodManifest


class City(msgspec.Struct):
    name: str
    people: int


def words(text: str) -> bytes:
    """A stream that says ``text``."""
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    return b"data: %b\n\ndata: [DONE]\n\n" % msgspec.json.encode(delta)


async def test_a_server_without_any_json_mode_gives_an_instance_too() -> None:
    refusal = error_reply("400 Bad Request", "response_format is not supported by this server")
    answers = [stream_reply(words("It is Oslo.")), stream_reply(words('{"name": "Oslo", "people": 1}'))]
    async with RawServer(refusal, refusal, *answers) as server, PodSystem() as system:
        pod = await system.spawn(PodManifest.of(model="openai/m", base_url=server.url))
        assert (await pod.run("the capital of Norway", output=City)).output == City("Oslo", 1)
        assert ["response_format" in each.json for each in server.received] == [True, True, False, False]
        for each in server.received[2:]:
            assert '"people":{"type":"integer"}' in each.json["messages"][-1]["content"]


def population(town: str) -> int:
    """How many people live in a town."""
    return {"Oslo": 717_710}[town]


def calling(town: str) -> bytes:
    """A stream that calls the tool."""
    call = {"index": 0, "id": "c1", "function": {"name": "population", "arguments": f'{{"town":"{town}"}}'}}
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    return b"data: %b\n\ndata: [DONE]\n\n" % msgspec.json.encode(chunk)


async def test_a_form_of_answers_keeps_no_model_of_a_local_server_from_calling_tools() -> None:
    """llama-server, Ollama and vLLM hold a model to ``response_format`` from its first token on."""
    answers = [stream_reply(calling("Oslo")), stream_reply(words('{"name": "Oslo", "people": 717710}'))]
    async with RawServer(*answers) as server, PodSystem() as system:
        manifest = PodManifest.of(model="openai/m", base_url=server.url)
        pod = await system.spawn(manifest, tools=[population])
        assert (await pod.run("the capital of Norway", output=City)).output == City("Oslo", 717_710)
    for each in server.received:
        assert "tools" in each.json
        assert "response_format" not in each.json
        last = each.json["messages"][-1]["content"]
        assert "Call tools as long as you need them" in last
        assert '"people":{"type":"integer"}' in last


async def test_a_server_that_answers_in_words_time_after_time_ends_the_run_with_a_typed_error() -> None:
    async with RawServer(stream_reply(words("It is Oslo."))) as server, PodSystem() as system:
        pod = await system.spawn(PodManifest.of(model="openai/m", base_url=server.url))
        with pytest.raises(RunFailed, match="it holds no JSON") as caught:
            await pod.run("the capital of Norway", output=City)
        assert isinstance(caught.value.cause, OutputInvalid)
        assert len(server.received) == 3
