"""What every model client owes: the same tests over each kind, those over sockets with real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client_kit import (
    HI,
    answer_from,
    blocks_from,
    blocks_of,
    chat_events,
    check_contract,
    failure_from,
    lines_events,
    messages_events,
)
from documented import LinesClient
from llm_server import (
    RawServer,
    error_reply,
    stream_reply,
)
from responses_kit import responses_events

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import (
    Assembler,
    LLMClient,
    Request,
    TextChunk,
    UsageReport,
)
from actors.llm.cassette import CassetteClient
from actors.llm.offline.client import OfflineClient
from actors.llm.openai.client import OpenAIClient
from actors.llm.responses.client import ResponsesClient
from actors.llm.retry import RetryPolicy
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.routing.chain.chain import EscalationChain
from protocol.errors import ChainExhausted, Failure, ModelError
from protocol.items import TextPart, ThinkingPart, UserItem
from protocol.tools import ToolSpec
from protocol.usage import Usage

Kind = Callable[[list[Any], Path], Any]


def served(
    kind: type[OpenAIClient | AnthropicClient | ResponsesClient], events: Callable[[Reply], list[bytes]]
) -> Kind:
    @asynccontextmanager
    async def made(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
        scripts = [
            error_reply("503 Service Unavailable", "Loading model", "unavailable_error")
            if isinstance(reply, Exception)
            else stream_reply(b"".join(events(reply)))
            for reply in replies
        ]
        async with RawServer(*scripts) as server, kind(server.url, "m") as client:
            yield client

    return made


@asynccontextmanager
async def scripted(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
    yield ScriptedClient(replies)


@asynccontextmanager
async def recorder(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
    async with CassetteClient.record(ScriptedClient(replies), path / "tape.jsonl") as client:
        yield client


@asynccontextmanager
async def player(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
    async with CassetteClient.record(ScriptedClient(replies), path / "tape.jsonl") as client:
        for _ in replies:
            try:
                await blocks_from(client)
            except ModelError:
                continue
    yield CassetteClient.replay(path / "tape.jsonl")


@asynccontextmanager
async def documented(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
    """The client that the documentation shows."""
    busy = b'{"error": "busy", "kind": "overloaded", "status": 503}\n'
    scripts = [b"".join([busy] if isinstance(each, Exception) else lines_events(each)) for each in replies]
    left = iter(scripts)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(next(left))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield LinesClient(*server.sockets[0].getsockname())


@asynccontextmanager
async def chain(replies: list[Any], path: Path) -> AsyncIterator[LLMClient]:
    """A chain whose first tier is always rejected."""
    yield EscalationChain(
        ["phi4", "claude-opus-5"],
        local=ScriptedClient([say("Not good enough.", input_tokens=1, output_tokens=1)] * len(replies)),
        cloud=ScriptedClient(replies),
        verifier=lambda *_: False,
        retry=RetryPolicy(attempts=1),
    )


#: Those that give the answers they are asked to give.
SCRIPTED: dict[str, Kind] = {
    "openai": served(OpenAIClient, chat_events),
    "anthropic": served(AnthropicClient, messages_events),
    "responses": served(ResponsesClient, responses_events),
    "scripted": scripted,
    "documented": documented,
    "recorder": recorder,
    "player": player,
    "chain": chain,
}


@pytest.fixture(params=SCRIPTED)
def client_of(request, tmp_path) -> Callable[..., Any]:
    """Makes a client that gives these answers, one after the other."""
    return lambda *replies: SCRIPTED[request.param](list(replies), tmp_path)


# -- what holds for every answer -------------------------------------------------------------------

ANSWERS = {
    "words": say("Hello there, all of you.", chunks=4, input_tokens=7, output_tokens=3),
    "thoughts": say("yes", thinking="hm"),
    "nothing": say(""),
    "a call": call("read", {"path": "a"}, id="c1"),
    "a call without arguments": call("read", id="c1"),
    "words and a call": say("I look.") + call("read", {"path": "a"}, id="c1"),
    "calls at once": call("read", {"path": "a"}, id="c1")
    + call("read", {"path": "b"}, id="c2")
    + call("list", id="c3"),
    "a call that is not JSON": call("read", '{"path": ', id="c1"),
    "an answer that was cut": say("half", stop_reason="max_tokens"),
    "characters": say("café \U0001f600 \u2028 \u0000 e\u0301", chunks=9),
}


@pytest.mark.parametrize("reply", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_ends_in_exactly_one_end_and_is_what_was_said(client_of, reply):
    async with client_of(reply) as client:
        blocks = await blocks_from(client)
    check_contract(blocks)
    assembler = Assembler()
    for block in blocks:
        assembler.feed(block)
    answer = assembler.answer()
    script = await answer_from(ScriptedClient([reply]))
    assert blocks_of(answer) == blocks_of(script)
    assert (answer.stop_reason, answer.usage) == (script.stop_reason, script.usage)


async def test_it_is_a_client_and_says_what_it_is(client_of):
    async with client_of(say("x")) as client:
        assert isinstance(client, LLMClient)
        assert repr(client).startswith("<")
        assert isinstance(getattr(client, "model", ""), str)
        await answer_from(client)


async def test_calls_at_once_keep_their_order_and_have_ids_of_their_own(client_of):
    reply = call("read", {"path": "a"}, id="c") + call("read", {"path": "b"}, id="c2") + call("list", id="c3")

    async with client_of(reply) as client:
        calls = (await answer_from(client)).item.calls
    assert [(each.name, each.arguments) for each in calls] == [
        ("read", {"path": "a"}),
        ("read", {"path": "b"}),
        ("list", {}),
    ]
    assert len({each.id for each in calls}) == 3


async def test_an_empty_answer_is_an_answer_with_nothing_in_it(client_of):
    async with client_of(say("")) as client:
        answer = await answer_from(client)
    assert (answer.item.content, answer.item.calls, answer.stop_reason) == ((), (), "end_turn")


async def test_thoughts_are_no_words(client_of):
    async with client_of(say("yes", thinking="hm")) as client:
        answer = await answer_from(client)
    assert blocks_of(answer) == [(ThinkingPart, "hm"), (TextPart, "yes")]


async def test_usage_that_nobody_reported_is_none_and_not_zero(client_of):
    async with client_of(say("x"), say("x", input_tokens=7, output_tokens=3)) as client:
        assert (await answer_from(client)).usage is None
        assert (await answer_from(client, Request([UserItem.of("hi")]))).usage == Usage(7, 3)


async def test_words_come_as_they_are_said(client_of):
    async with client_of(say("one two three four", chunks=4)) as client:
        pieces = [block.text for block in await blocks_from(client) if isinstance(block, TextChunk)]
    assert len(pieces) == 4
    assert "".join(pieces) == "one two three four"


async def test_one_client_answers_any_number_of_requests_one_after_the_other(client_of):
    async with client_of(*(say(str(number)) for number in range(5))) as client:
        assert [(await answer_from(client)).item.text for _ in range(5)] == list("01234")


async def test_a_failure_is_a_typed_error_and_the_next_request_is_answered(client_of):
    busy = ModelError("127.0.0.1:80 answered 503: busy", kind="overloaded", status=503, where="127.0.0.1:80")

    async with client_of(busy, say("x")) as client:
        error = await failure_from(client)
        asked_again = not isinstance(error, ChainExhausted)  # which has asked all it can ask
        assert (error.kind, error.status, error.retryable) == ("overloaded", 503, asked_again)
        assert error.where is not None
        assert error.where in error.message
        msgspec.json.encode(Failure.of(error))
        assert (await answer_from(client)).item.text == "x"


async def test_an_answer_that_its_reader_leaves_early_harms_no_other(client_of):
    async with client_of(say("one two three four", chunks=4), say("next")) as client:
        async with aclosing(client.stream(HI)) as blocks:
            while not isinstance(await anext(blocks), TextChunk):
                pass  # what came of a chain's tiers
        assert (await answer_from(client)).item.text == "next"


def test_a_request_is_not_changed_by_being_sent(client_of):
    request = Request(
        [UserItem.of("hi")],
        system="Be brief.",
        tools=(ToolSpec("read", "Reads.", {"type": "object", "properties": {}}),),
        max_tokens=100,
        temperature=0.5,
    )
    before = msgspec.json.encode((list(request.items), request.system, request.tools, request.max_tokens))

    async def main() -> None:
        async with client_of(say("x")) as client:
            if "Player" in repr(type(client)):
                return  # it answers only what was asked when it was recorded
            await answer_from(client, request)

    asyncio.run(main())
    assert (
        msgspec.json.encode((list(request.items), request.system, request.tools, request.max_tokens))
        == before
    )


# -- the embedded model, which says what it wants ----------------------------------------------------


@pytest.mark.parametrize(
    "words", ["hi", "", "list files", "read a.txt", "what can you do? " * 50, "\U0001f600 é \u2028"]
)
@pytest.mark.parametrize("max_tokens", [None, 1, 100])
async def test_the_embedded_model_keeps_to_the_same(words, max_tokens):
    tools = (
        ToolSpec("list_files", "Lists.", {"type": "object", "properties": {"path": {"type": "string"}}}),
    )
    request = Request([UserItem.of(words)], tools=tools, max_tokens=max_tokens)

    client = OfflineClient()
    assert isinstance(client, LLMClient)
    blocks = await blocks_from(client, request)
    check_contract(blocks)
    assert any(isinstance(block, UsageReport) for block in blocks)
    async with aclosing(client.stream(request)) as half:
        await anext(half)
    assert await blocks_from(client, request) == blocks
