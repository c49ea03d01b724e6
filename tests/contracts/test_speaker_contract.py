"""What a client that speaks to a server owes: connections let go, failures named, answers kept apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from client_kit import (
    HI,
    answer_from,
    chat_events,
    failure_from,
    messages_events,
)
from llm_server import (
    STREAM_END,
    STREAM_HEAD,
    Exchange,
    RawServer,
    chunk,
    error_reply,
    stream_reply,
)
from ports import unused_port
from responses_kit import responses_events

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import (
    Block,
    End,
    LLMClient,
    Request,
    TextChunk,
)
from actors.llm.openai.client import OpenAIClient
from actors.llm.responses.client import ResponsesClient
from actors.llm.scripted import Reply, say
from protocol.errors import MODEL_ERROR_KINDS, ModelError
from protocol.items import UserItem

Client = type[OpenAIClient | AnthropicClient | ResponsesClient]
SPEAKERS: dict[str, tuple[Client, Callable[[Reply], list[bytes]]]] = {
    "openai": (OpenAIClient, chat_events),
    "anthropic": (AnthropicClient, messages_events),
    "responses": (ResponsesClient, responses_events),
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
async def test_leaving_an_answer_closes_its_connection(speaker, events, how):
    left = asyncio.Event()

    async def serve(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, *(chunk(piece) for piece in events(say("a"))[:-2]))
        await exchange.wait_until_gone()
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
async def test_every_failure_is_typed_and_names_host_and_port(speaker, script, kind, retryable):
    async with RawServer(script) as server, speaker(server.url, "m") as client:
        error = await failure_from(client)
        assert (error.kind, error.retryable) == (kind, retryable)
        assert error.kind in MODEL_ERROR_KINDS
        assert error.where == f"127.0.0.1:{server.port}"
        assert error.where in error.message


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


async def test_an_answer_whose_stream_goes_on_for_ever_behind_its_end_is_over(speaker, events):
    async def serve(exchange: Exchange) -> None:
        await exchange.send(
            STREAM_HEAD, *(chunk(piece) for piece in events(say("x", input_tokens=1, output_tokens=1)))
        )
        await exchange.wait_until_gone()

    async with RawServer(serve) as server, speaker(server.url, "m") as client:
        assert (await answer_from(client)).item.text == "x"


async def test_a_request_past_its_deadline_is_a_time_out_that_is_not_sent_again(speaker):
    import time  # noqa: PLC0415

    async def serve(exchange: Exchange) -> None:
        await exchange.wait_until_gone()

    async with RawServer(serve) as server, speaker(server.url, "m") as client:
        error = await failure_from(client, Request([UserItem.of("hi")], deadline=time.monotonic() + 0.05))
    assert (error.kind, error.retryable) == ("timeout", False)


async def test_many_answers_at_once_do_not_mix(speaker, events):
    async def serve(exchange: Exchange) -> None:
        body = exchange.received.json
        said = json.dumps(body.get("messages", body.get("input"))[-1]["content"])
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
