"""What every model client owes: the same tests over each kind, those that speak over sockets with real ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from llm_server import (
    STREAM_END,
    STREAM_HEAD,
    Exchange,
    RawServer,
    chunk,
    error_reply,
    stream_reply,
    unused_port,
)

from actors.llm.anthropic import AnthropicClient
from actors.llm.base import (
    Answer,
    Assembler,
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
    UsageReport,
)
from actors.llm.cassette import CassetteClient
from actors.llm.offline import OfflineClient
from actors.llm.openai import OpenAIClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from protocol.errors import MODEL_ERROR_KINDS, Failure, ModelError
from protocol.items import TextPart, ThinkingPart, UserItem
from protocol.tools import ToolSpec
from protocol.usage import Usage

HI = Request([UserItem.of("hi")])


# -- one answer, as each kind has it ---------------------------------------------------------------


def chat_events(reply: Reply) -> list[bytes]:
    """A reply as a server of OpenAI's format streams it."""
    deltas: list[dict[str, Any]] = []
    for block in reply.blocks:
        match block:
            case TextChunk():
                deltas.append({"content": block.text})
            case ThinkingChunk():
                deltas.append({"reasoning_content": block.text})
            case CallStart():
                function = {"name": block.name, "arguments": ""}
                deltas.append({"tool_calls": [{"index": block.index, "id": block.id, "function": function}]})
            case CallChunk():
                piece = {"index": block.index, "function": {"arguments": block.text}}
                deltas.append({"tool_calls": [piece]})
    stop = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}[reply.stop_reason]
    usage = (
        {"prompt_tokens": reply.usage.input_tokens, "completion_tokens": reply.usage.output_tokens}
        if reply.usage
        else None
    )
    told = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    told.append({"choices": [{"index": 0, "delta": {}, "finish_reason": stop}], "usage": usage})
    return [b"data: %b\n\n" % json.dumps(each).encode() for each in told] + [b"data: [DONE]\n\n"]


def messages_events(reply: Reply) -> list[bytes]:
    """A reply as a server of Anthropic's format streams it."""
    told: list[dict[str, Any]] = [{"type": "message_start", "message": {"usage": None}}]
    begun: set[int] = set()

    def begin(index: int, **content: Any) -> None:
        if index not in begun:
            begun.add(index)
            told.append({"type": "content_block_start", "index": index, "content_block": content})

    def add(index: int, **delta: str) -> None:
        told.append({"type": "content_block_delta", "index": index, "delta": delta})

    for block in reply.blocks:
        match block:
            case TextChunk():
                begin(block.index, type="text", text="")
                add(block.index, type="text_delta", text=block.text)
            case ThinkingChunk():
                begin(block.index, type="thinking", thinking="")
                add(block.index, type="thinking_delta", thinking=block.text)
            case CallStart():
                begin(block.index, type="tool_use", id=block.id, name=block.name, input={})
            case CallChunk():
                add(block.index, type="input_json_delta", partial_json=block.text)
            case CallEnd():
                told.append({"type": "content_block_stop", "index": block.index})
    usage = (
        {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens}
        if reply.usage
        else None
    )
    told.append({"type": "message_delta", "delta": {"stop_reason": reply.stop_reason}, "usage": usage})
    told.append({"type": "message_stop"})
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in told]


Kind = Callable[[list[Any], Path], Any]


def served(kind: type[OpenAIClient | AnthropicClient], events: Callable[[Reply], list[bytes]]) -> Kind:
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


#: Those that give the answers they are told to give.
TOLD: dict[str, Kind] = {
    "openai": served(OpenAIClient, chat_events),
    "anthropic": served(AnthropicClient, messages_events),
    "scripted": scripted,
    "recorder": recorder,
    "player": player,
}


@pytest.fixture(params=TOLD)
def told(request, tmp_path) -> Callable[..., Any]:
    """Makes a client that gives these answers, one after the other."""
    return lambda *replies: TOLD[request.param](list(replies), tmp_path)


async def blocks_from(client: LLMClient, request: Request = HI) -> list[Block]:
    return [block async for block in client.stream(request)]


async def answer_from(client: LLMClient, request: Request = HI) -> Answer:
    assembler = Assembler()
    for block in await blocks_from(client, request):
        assembler.feed(block)
    return assembler.answer()


async def failure_from(client: LLMClient, request: Request = HI) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await blocks_from(client, request)
    return caught.value


def told_by(answer: Answer) -> list[Any]:
    """What an answer says and calls, whoever gave it."""
    words = [(type(part), part.text) for part in answer.item.content]
    return [*words, *((call.name, call.arguments, call.invalid) for call in answer.item.calls)]


def kept_to(blocks: list[Block]) -> None:
    """Assert what the contract says of the blocks of any answer."""
    assert [type(block) for block in blocks].count(End) == 1
    assert isinstance(blocks[-1], End)
    begun: dict[int, str] = {}
    ended: set[int] = set()
    for block in blocks:
        if isinstance(block, CallStart):
            assert block.index not in begun
            assert block.id
            assert block.name
            assert block.id not in begun.values()
            begun[block.index] = block.id
        elif isinstance(block, CallChunk | CallEnd):
            assert block.index in begun
            assert block.index not in ended
            if isinstance(block, CallEnd):
                ended.add(block.index)
    msgspec.json.encode(blocks)


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
    "a call that is no JSON": call("read", '{"path": ', id="c1"),
    "an answer that was cut": say("half", stop_reason="max_tokens"),
    "characters": say("café \U0001f600 \u2028 \u0000 e\u0301", chunks=9),
}


@pytest.mark.parametrize("reply", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_ends_in_exactly_one_end_and_is_what_was_said(told, reply):
    async def main() -> None:
        async with told(reply) as client:
            blocks = await blocks_from(client)
        kept_to(blocks)
        assembler = Assembler()
        for block in blocks:
            assembler.feed(block)
        answer = assembler.answer()
        script = await answer_from(ScriptedClient([reply]))
        assert told_by(answer) == told_by(script)
        assert (answer.stop_reason, answer.usage) == (script.stop_reason, script.usage)

    asyncio.run(main())


def test_it_is_a_client_and_says_what_it_is(told):
    async def main() -> None:
        async with told(say("x")) as client:
            assert isinstance(client, LLMClient)
            assert repr(client).startswith("<")
            assert isinstance(getattr(client, "model", ""), str)
            await answer_from(client)

    asyncio.run(main())


def test_calls_at_once_keep_their_order_and_have_ids_of_their_own(told):
    reply = call("read", {"path": "a"}, id="c") + call("read", {"path": "b"}, id="c2") + call("list", id="c3")

    async def main() -> None:
        async with told(reply) as client:
            calls = (await answer_from(client)).item.calls
        assert [(each.name, each.arguments) for each in calls] == [
            ("read", {"path": "a"}),
            ("read", {"path": "b"}),
            ("list", {}),
        ]
        assert len({each.id for each in calls}) == 3

    asyncio.run(main())


def test_an_empty_answer_is_an_answer_with_nothing_in_it(told):
    async def main() -> None:
        async with told(say("")) as client:
            answer = await answer_from(client)
        assert (answer.item.content, answer.item.calls, answer.stop_reason) == ((), (), "end_turn")

    asyncio.run(main())


def test_thoughts_are_no_words(told):
    async def main() -> None:
        async with told(say("yes", thinking="hm")) as client:
            answer = await answer_from(client)
        assert told_by(answer) == [(ThinkingPart, "hm"), (TextPart, "yes")]

    asyncio.run(main())


def test_usage_that_nobody_told_is_none_and_not_zero(told):
    async def main() -> None:
        async with told(say("x"), say("x", input_tokens=7, output_tokens=3)) as client:
            assert (await answer_from(client)).usage is None
            assert (await answer_from(client, Request([UserItem.of("hi")]))).usage == Usage(7, 3)

    asyncio.run(main())


def test_words_come_as_they_are_said(told):
    async def main() -> None:
        async with told(say("one two three four", chunks=4)) as client:
            pieces = [block.text for block in await blocks_from(client) if isinstance(block, TextChunk)]
        assert len(pieces) == 4
        assert "".join(pieces) == "one two three four"

    asyncio.run(main())


def test_one_client_answers_any_number_of_requests_one_after_the_other(told):
    async def main() -> None:
        async with told(*(say(str(number)) for number in range(5))) as client:
            assert [(await answer_from(client)).item.text for _ in range(5)] == list("01234")

    asyncio.run(main())


def test_a_failure_is_a_typed_error_and_the_next_request_is_answered(told):
    busy = ModelError("127.0.0.1:80 answered 503: busy", kind="overloaded", status=503, where="127.0.0.1:80")

    async def main() -> None:
        async with told(busy, say("x")) as client:
            error = await failure_from(client)
            assert (error.kind, error.status, error.retryable) == ("overloaded", 503, True)
            assert error.where is not None
            assert error.where in error.message
            msgspec.json.encode(Failure.of(error))
            assert (await answer_from(client)).item.text == "x"

    asyncio.run(main())


def test_an_answer_that_its_reader_leaves_early_harms_no_other(told):
    async def main() -> None:
        async with told(say("one two three four", chunks=4), say("next")) as client:
            async with aclosing(client.stream(HI)) as blocks:
                assert isinstance(await anext(blocks), TextChunk)
            assert (await answer_from(client)).item.text == "next"

    asyncio.run(main())


def test_a_request_is_not_changed_by_being_sent(told):
    request = Request(
        [UserItem.of("hi")],
        system="Be brief.",
        tools=(ToolSpec("read", "Reads.", {"type": "object", "properties": {}}),),
        max_tokens=100,
        temperature=0.5,
    )
    before = msgspec.json.encode((list(request.items), request.system, request.tools, request.max_tokens))

    async def main() -> None:
        async with told(say("x")) as client:
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
def test_the_embedded_model_keeps_to_the_same(words, max_tokens):
    tools = (
        ToolSpec("list_files", "Lists.", {"type": "object", "properties": {"path": {"type": "string"}}}),
    )
    request = Request([UserItem.of(words)], tools=tools, max_tokens=max_tokens)

    async def main() -> None:
        client = OfflineClient()
        assert isinstance(client, LLMClient)
        blocks = await blocks_from(client, request)
        kept_to(blocks)
        assert any(isinstance(block, UsageReport) for block in blocks)
        async with aclosing(client.stream(request)) as half:
            await anext(half)
        assert await blocks_from(client, request) == blocks

    asyncio.run(main())


# -- those that speak over sockets -------------------------------------------------------------------

Client = type[OpenAIClient | AnthropicClient]
SPEAKERS: dict[str, tuple[Client, Callable[[Reply], list[bytes]]]] = {
    "openai": (OpenAIClient, chat_events),
    "anthropic": (AnthropicClient, messages_events),
}


@pytest.fixture(params=SPEAKERS)
def speaker(request) -> Client:
    return SPEAKERS[request.param][0]


@pytest.fixture
def events(speaker) -> Callable[[Reply], list[bytes]]:
    return next(events for kind, events in SPEAKERS.values() if kind is speaker)


def sends(
    *pieces: bytes, then: Callable[[Exchange], Awaitable[None] | None]
) -> Callable[[Exchange], Awaitable[None]]:
    async def serve(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, *(chunk(piece) for piece in pieces))
        if (waiting := then(exchange)) is not None:
            await waiting

    return serve


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_an_answer_closes_its_connection(speaker, events, how):
    async def main() -> None:
        left = asyncio.Event()

        async def serve(exchange: Exchange) -> None:
            await exchange.send(STREAM_HEAD, *(chunk(piece) for piece in events(say("a"))[:-2]))
            await exchange.gone()
            left.set()

        async with RawServer(serve) as server, speaker(server.url, "m") as client:
            begun = asyncio.Event()

            async def reads() -> None:
                async for _ in client.stream(HI):
                    begun.set()

            if how == "cancel":
                task = asyncio.create_task(reads())
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async with aclosing(client.stream(HI)) as blocks:
                    await anext(blocks)
            await left.wait()

    asyncio.run(main())


FAILURES: dict[str, tuple[bytes | Callable[[Exchange], Awaitable[None]], str, bool]] = {
    "overloaded": (error_reply("529 Overloaded", "busy", "overloaded_error"), "overloaded", True),
    "failed": (error_reply("500 Internal Server Error", "oh"), "server", True),
    "refused": (error_reply("400 Bad Request", "no such field"), "invalid_request", False),
    "unknown key": (error_reply("401 Unauthorized", "who?"), "auth", False),
    "too much": (error_reply("429 Too Many Requests", "slow down"), "rate_limit", True),
    "too long": (
        error_reply("400 Bad Request", "prompt is too long: 5 tokens > 4 maximum"),
        "context_overflow",
        False,
    ),
    "nothing there": (error_reply("404 Not Found", "no such model"), "not_found", False),
    "nothing said": (STREAM_HEAD + STREAM_END, "protocol", True),
    "cut before the end": (sends(then=lambda exchange: exchange.abort()), "connection", True),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol", False),
    "a web page": (stream_reply(b"<html>no</html>"), "protocol", False),
    "no JSON": (stream_reply(b"data: garbage\n\n"), "protocol", False),
}


@pytest.mark.parametrize(("script", "kind", "retryable"), FAILURES.values(), ids=FAILURES)
def test_every_failure_is_typed_and_names_host_and_port(speaker, script, kind, retryable):
    async def main() -> None:
        async with RawServer(script) as server, speaker(server.url, "m") as client:
            error = await failure_from(client)
            assert (error.kind, error.retryable) == (kind, retryable)
            assert error.kind in MODEL_ERROR_KINDS
            assert error.where == f"127.0.0.1:{server.port}"
            assert error.where in error.message

    asyncio.run(main())


def test_a_server_that_is_not_there_is_named_with_what_to_do(speaker):
    port = unused_port()

    async def main() -> ModelError:
        async with speaker(f"http://127.0.0.1:{port}/v1", "m") as client:
            return await failure_from(client)

    error = asyncio.run(main())
    assert (error.kind, error.retryable) == ("connection", True)
    assert f"127.0.0.1:{port}" in error.message
    assert error.hint


def test_an_answer_that_is_cut_gives_what_came_and_then_its_error(speaker, events):
    seen: list[Block] = []

    async def read(client: LLMClient) -> None:
        async for block in client.stream(HI):
            seen.append(block)  # noqa: PERF401 - what came before the error counts

    async def main() -> ModelError:
        serve = sends(*events(say("half of it", chunks=2))[:-2], then=lambda exchange: exchange.abort())
        async with RawServer(serve) as server, speaker(server.url, "m") as client:
            with pytest.raises(ModelError) as caught:
                await read(client)
        return caught.value

    assert asyncio.run(main()).retryable
    assert any(isinstance(block, TextChunk) for block in seen)
    assert not any(isinstance(block, End) for block in seen)


def test_an_answer_whose_stream_goes_on_for_ever_behind_its_end_is_over(speaker, events):
    async def main() -> None:
        async def serve(exchange: Exchange) -> None:
            await exchange.send(
                STREAM_HEAD, *(chunk(piece) for piece in events(say("x", input_tokens=1, output_tokens=1)))
            )
            await exchange.gone()

        async with RawServer(serve) as server, speaker(server.url, "m") as client:
            assert (await answer_from(client)).item.text == "x"

    asyncio.run(main())


def test_a_request_past_its_deadline_is_a_time_out_that_is_not_sent_again(speaker):
    import time  # noqa: PLC0415

    async def main() -> None:
        async def serve(exchange: Exchange) -> None:
            await exchange.gone()

        async with RawServer(serve) as server, speaker(server.url, "m") as client:
            error = await failure_from(client, Request([UserItem.of("hi")], deadline=time.monotonic() + 0.05))
        assert (error.kind, error.retryable) == ("timeout", False)

    asyncio.run(main())


def test_many_answers_at_once_do_not_mix(speaker, events):
    async def main() -> None:
        async def serve(exchange: Exchange) -> None:
            said = json.dumps(exchange.received.json["messages"][-1]["content"])
            number = "".join(each for each in said if each.isdecimal())
            await exchange.send(
                STREAM_HEAD,
                *(chunk(piece) for piece in events(say(f"answer {number}", chunks=3))),
                STREAM_END,
            )

        async with RawServer(serve) as server, speaker(server.url, "m") as client:
            answers = await asyncio.gather(
                *(answer_from(client, Request([UserItem.of(f"question {number}")])) for number in range(40))
            )
        assert [answer.item.text for answer in answers] == [f"answer {number}" for number in range(40)]

    asyncio.run(main())
