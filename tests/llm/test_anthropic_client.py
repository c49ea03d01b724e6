"""The client of Anthropic's messages gets answers from real sockets, whole or not at all."""

import asyncio

import pytest
from client_kit import HI, answer_from, answer_of, failure_of
from llm_recordings import recording
from llm_server import (
    STREAM_END,
    STREAM_HEAD,
    Exchange,
    RawServer,
    chunk,
    error_reply,
    reply,
    stream_reply,
)
from messages_kit import END, HELLO, argued, called, event, start, stopped, text
from ports import unused_port
from stepped_loop import SteppedLoop, idle, run_stepped

from actors.llm.anthropic.client import API_VERSION, AnthropicClient
from actors.llm.anthropic.request import Caching
from actors.llm.base import Answer, LLMClient, Request, TextChunk
from actors.llm.http.contract import HttpSettings, Timeouts
from actors.llm.http.http_pool import HttpPool
from protocol.errors import ModelError
from protocol.items import AssistantItem, TextPart, ThinkingPart, UserItem
from protocol.tools import ToolSpec
from protocol.usage import Usage

REFUSED = "400 Bad Request"
READ = ToolSpec("read", "", {"type": "object"})


def hi(**fields: object) -> Request:
    return Request([UserItem.of("hi")], **fields)


def asked(*scripts: object, request: Request = HI, **settings: object) -> tuple[Answer, RawServer]:
    """What one request to a server with these scripts gives."""
    return answer_of(lambda url: AnthropicClient(url, "claude", **settings), *scripts, request=request)


def refused(*scripts: object, **settings: object) -> tuple[ModelError, RawServer]:
    """The error that one request to a server with these scripts gives."""
    return failure_of(lambda url: AnthropicClient(url, "claude", **settings), *scripts)


def test_the_client_is_an_llm_client():
    assert isinstance(AnthropicClient("http://127.0.0.1:1"), LLMClient)


def test_a_streamed_answer_arrives_with_its_usage():
    answer, server = asked(stream_reply(HELLO))
    assert (answer.item.text, answer.stop_reason, answer.usage) == ("Hello", "end_turn", Usage(7, 3))
    (request,) = server.received
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["anthropic-version"] == API_VERSION
    assert request.headers["content-type"] == "application/json"
    assert (request.json["model"], request.json["stream"]) == ("claude", True)


@pytest.mark.parametrize("name", ["anthropic_tools_auto_stream", "anthropic_tools"])
def test_what_a_real_server_sent_arrives_over_a_real_socket(name):
    answer, _ = asked(recording(name).raw)
    assert [call.name for call in answer.item.calls] == ["read_file"]
    assert answer.usage.input_tokens == 413


def test_an_event_cut_by_network_chunks_in_the_middle_of_a_character_is_whole():
    async def dribble(exchange: Exchange) -> None:
        body = start() + text("Grüße 🙂") + stopped() + END
        body = body.replace(b"\\u00fc\\u00dfe \\ud83d\\ude42", "üße 🙂".encode())
        await exchange.send(STREAM_HEAD, *(chunk(bytes([byte])) for byte in body), STREAM_END)

    assert asked(dribble)[0].item.text == "Grüße 🙂"


async def test_a_stream_is_given_out_while_it_comes():
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(start() + text("a")))
        await begun.wait()
        await exchange.send(chunk(stopped() + END), STREAM_END)

    async with RawServer(slow) as server, AnthropicClient(server.url, "m") as client:
        stream = client.stream(hi())
        assert await anext(stream) == TextChunk("a")
        begun.set()
        assert [type(block).__name__ async for block in stream] == ["End"]


# -- where it asks and as whom -------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/messages", "/v1/messages/"])
async def test_a_base_url_may_have_its_version_or_not(end):
    async with RawServer(stream_reply(HELLO)) as server:
        base = server.url.removesuffix("/v1") + end
        async with AnthropicClient(base, "m") as client:
            await answer_from(client)
        assert server.received[0].path == "/v1/messages"


async def test_a_proxy_may_serve_it_under_a_path_of_its_own():
    async with RawServer(stream_reply(HELLO)) as server:
        base = server.url.removesuffix("/v1") + "/api/anthropic"
        async with AnthropicClient(base, "m") as client:
            await answer_from(client)
        assert server.received[0].path == "/api/anthropic/v1/messages"


async def test_the_key_is_sent_and_appears_nowhere_else():
    key = "sk-ant-0123456789abcdef"

    async with RawServer(error_reply("401 Unauthorized", f"invalid x-api-key {key}")) as server:
        client = AnthropicClient(server.url, "m", key)
        with pytest.raises(ModelError) as caught:
            await answer_from(client)
        error = caught.value
        assert server.received[0].headers["x-api-key"] == key
        assert error.kind == "auth"
        assert key not in repr(client) + str(error) + repr(error) + str(error.details())
        await client.aclose()


def test_a_proxy_gets_the_key_also_in_the_header_that_most_of_them_look_at():
    headers = asked(stream_reply(HELLO), api_key="k")[1].received[0].headers
    assert (headers["x-api-key"], headers["authorization"]) == ("k", "Bearer k")
    vendor = AnthropicClient("https://api.anthropic.com", "m", "k")
    assert "authorization" not in vendor._headers


def test_without_a_key_none_is_sent():
    headers = asked(stream_reply(HELLO))[1].received[0].headers
    assert not {"x-api-key", "authorization"} & headers.keys()


def test_headers_and_fields_besides_are_sent():
    settings = {"headers": {"anthropic-beta": "x"}, "extra": {"thinking": {"type": "adaptive"}}}
    (request,) = asked(stream_reply(HELLO), **settings)[1].received
    assert request.headers["anthropic-beta"] == "x"
    assert request.json["thinking"] == {"type": "adaptive"}


async def test_the_hint_for_a_dead_server_names_its_real_url():
    port = unused_port()

    async with AnthropicClient(f"http://127.0.0.1:{port}", "m", start_command="run-it") as client:
        with pytest.raises(ModelError) as caught:
            await answer_from(client)
        assert (caught.value.kind, caught.value.where) == ("connection", f"127.0.0.1:{port}")
        assert f"http://127.0.0.1:{port}" in caught.value.hint
        assert "run-it" in caught.value.hint


def test_what_is_no_base_url_is_refused_before_any_request():
    with pytest.raises(ModelError, match="not a base URL"):
        AnthropicClient("api.anthropic.com", "m")


# -- what goes wrong -----------------------------------------------------------------------------


def test_an_error_event_after_status_200_is_classified():
    sent = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    error, _ = refused(stream_reply(start() + text("x") + sent))
    assert (error.kind, error.status, error.retryable) == ("overloaded", None, True)


@pytest.mark.parametrize(
    ("status", "kind", "sent"),
    [
        ("529 Overloaded", "overloaded", "overloaded_error"),
        ("429 Too Many Requests", "rate_limit", "rate_limit_error"),
        ("413 Too Large", "context_overflow", "request_too_large"),
        ("404 Not Found", "not_found", "not_found_error"),
        ("500 Internal Server Error", "server", "api_error"),
    ],
)
def test_refusals_are_classified(status, kind, sent):
    error, server = refused(error_reply(status, "sorry", sent, "retry-after: 3"))
    assert (error.kind, error.retry_after, len(server.received)) == (kind, 3.0, 1)


@pytest.mark.parametrize("said", [True, False])
def test_a_server_that_says_whether_to_ask_again_is_obeyed(said):
    error, _ = refused(error_reply("409 Conflict", "no", "x", f"x-should-retry: {str(said).lower()}"))
    assert error.retryable is said


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000",
    ],
)
def test_a_prompt_that_does_not_fit_is_an_overflow(words):
    error, _ = refused(error_reply(REFUSED, words, "invalid_request_error"))
    assert error.kind == "context_overflow"


def test_an_answer_that_fills_the_context_is_an_overflow():
    error, _ = refused(stream_reply(start() + text("x") + stopped("model_context_window_exceeded") + END))
    assert error.kind == "context_overflow"


async def test_nothing_comes_after_a_cut_but_the_error():
    async def cut(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(start() + text("half")))
        exchange.abort()

    async with RawServer(cut) as server, AnthropicClient(server.url, "m") as client:
        stream = client.stream(hi())
        assert await anext(stream) == TextChunk("half")
        with pytest.raises(ModelError, match="lost") as caught:
            await anext(stream)
        assert caught.value.kind == "connection"
        assert [block async for block in stream] == []


def test_a_cut_behind_the_stop_reason_loses_nothing():
    async def cut(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(HELLO.removesuffix(END)))
        exchange.abort()

    assert asked(cut)[0].item.text == "Hello"


@pytest.mark.parametrize("body", [b"", b": ping\n\n", event("ping")])
def test_a_clean_end_without_any_answer_is_an_error(body):
    error, _ = refused(stream_reply(body) if body else STREAM_HEAD + STREAM_END)
    assert (error.kind, error.retryable) == ("protocol", True)


def test_a_whole_answer_is_read_though_a_stream_was_asked_for():
    answer, server = asked(recording("anthropic").raw)
    assert server.received[0].json["stream"] is True
    assert (bool(answer.item.text), answer.stop_reason) == (True, "max_tokens")


def test_a_whole_answer_can_be_asked_for():
    answer, server = asked(recording("anthropic").raw, streaming=False)
    assert server.received[0].json["stream"] is False
    assert answer.usage == Usage(37, 12, 36)


def test_an_error_object_with_status_200_is_an_error():
    error, _ = refused(reply(b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'))
    assert error.kind == "overloaded"


def test_comments_and_pings_are_signs_of_life():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        http = HttpPool(HttpSettings(Timeouts(idle=10)))

        async def slow(exchange: Exchange) -> None:
            await exchange.send(STREAM_HEAD, chunk(start() + text("a")))
            for sign in (b":\n\n", event("ping"), b":\n\n"):
                loop.step(8)
                await exchange.send(chunk(sign))
                await idle()
            await exchange.send(chunk(stopped() + END), STREAM_END)

        async with RawServer(slow) as server:
            assert (await answer_from(AnthropicClient(server.url, "m", http=http))).item.text == "a"
        await http.aclose()

    run_stepped(main())


async def test_closing_a_stream_early_frees_its_connection():
    gone = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(start() + text("a")))
        await exchange.wait_until_gone()
        gone.set()

    async with RawServer(endless) as server, AnthropicClient(server.url, "m") as client:
        stream = client.stream(hi())
        await anext(stream)
        await stream.aclose()
        await gone.wait()


async def test_one_connection_serves_one_request_after_the_other():
    async with RawServer(stream_reply(HELLO)) as server, AnthropicClient(server.url, "m") as client:
        for _ in range(5):
            await answer_from(client)
        assert (len(server.received), server.connections) == (5, 1)


async def test_many_streams_at_once_do_not_mix():
    async def echo(exchange: Exchange) -> None:
        words = exchange.received.json["messages"][0]["content"][0]["text"]
        await exchange.send(STREAM_HEAD, chunk(start()))
        for letter in words:
            await exchange.send(chunk(text(letter)))
        await exchange.send(chunk(stopped() + END), STREAM_END)

    async with RawServer(echo) as server, AnthropicClient(server.url, "m") as client:
        requests = [Request([UserItem.of(f"number {number}")]) for number in range(64)]
        answers = await asyncio.gather(*(answer_from(client, request) for request in requests))
        assert [answer.item.text for answer in answers] == [f"number {number}" for number in range(64)]


# -- caches --------------------------------------------------------------------------------------


def test_marks_for_the_cache_are_sent_unless_they_are_not_wanted():
    request = hi(system="be kind", tools=(READ,))
    (plain,) = asked(stream_reply(HELLO), request=request, caching=None)[1].received
    assert b"cache_control" not in plain.body
    (hour,) = asked(stream_reply(HELLO), request=request, caching=Caching("1h"))[1].received
    assert (hour.body.count(b'"cache_control"'), hour.body.count(b'"ttl":"1h"')) == (3, 2)


def test_what_the_cache_gave_and_took_is_reported():
    sent = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}
    answer, _ = asked(stream_reply(start(**sent) + text("x") + stopped(output_tokens=2) + END))
    assert answer.usage == Usage(111, 2, 100, 10)


# -- what servers and models do not understand ---------------------------------------------------


async def test_options_that_a_model_refuses_are_left_out_from_then_on():
    picky = error_reply(REFUSED, "`temperature` is deprecated for this model.", "invalid_request_error")
    async with RawServer(picky, stream_reply(HELLO)) as server:
        pool = HttpPool()
        for model in ("new", "new", "old"):
            client = AnthropicClient(server.url, model, http=pool)
            assert (await answer_from(client, hi(temperature=0.5))).item.text == "Hello"
        assert ["temperature" in each.json for each in server.received] == [True, False, False, True]
        await pool.aclose()


def test_a_model_that_refuses_to_be_forced_is_asked_without_force():
    picky = error_reply(REFUSED, "tool_choice: forced tool use is not supported", "invalid_request_error")
    request = hi(output_schema={"type": "object"})
    stream = start() + called(0, "final_answer") + argued('{"n":1}') + stopped("tool_use") + END
    answer, server = asked(picky, stream_reply(stream), request=request)
    assert [each.json["tool_choice"]["type"] for each in server.received] == ["any", "auto"]
    assert (answer.item.text, answer.stop_reason) == ('{"n":1}', "end_turn")


async def test_reasoning_of_another_model_is_left_out_of_that_history_alone():
    history = [
        UserItem.of("a"),
        AssistantItem((ThinkingPart("hm", "s"), TextPart("b"))),
        UserItem.of("c"),
    ]
    picky = error_reply(REFUSED, "messages.1.content.0: Invalid `signature` in `thinking` block", "x")
    async with (
        RawServer(picky, stream_reply(HELLO)) as server,
        AnthropicClient(server.url, "m") as client,
    ):
        foreign = Request(history, scratch={})
        await answer_from(client, foreign)
        await answer_from(client, foreign)
        await answer_from(client, Request(history, scratch={}))
        assert [b'"thinking"' in each.body for each in server.received] == [True, False, False, True]


async def test_nothing_is_learnt_from_a_refusal_that_leaving_out_does_not_cure():
    picky = error_reply(REFUSED, "temperature: and something else", "invalid_request_error")
    async with RawServer(picky) as server, AnthropicClient(server.url, "m") as client:
        for _ in range(2):
            with pytest.raises(ModelError):
                await answer_from(client, hi(temperature=0.5))
        assert ["temperature" in each.json for each in server.received] == [True, False, True, False]


def test_a_refusal_of_something_else_is_not_asked_again():
    _, server = refused(error_reply(REFUSED, "max_tokens: 9999999 > 64000", "invalid_request_error"))
    assert len(server.received) == 1


def test_a_long_history_is_encoded_without_holding_the_loop():
    async def main() -> None:
        async with RawServer(stream_reply(HELLO)) as server, AnthropicClient(server.url, "m") as client:
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(others())
            history = [UserItem.of(str(number)) for number in range(9000)]
            stream = client.stream(Request(history))
            await anext(stream)
            assert turns >= 4
            assert len(server.received[0].json["messages"][0]["content"]) == 9000
            task.cancel()
            await stream.aclose()

    asyncio.run(main())
