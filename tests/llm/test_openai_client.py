"""The client gets answers from real sockets, whole or not at all."""

import asyncio
import contextlib
import gzip
import json
import socket
import time

import pytest
from client_kit import answer_from, answer_of, failure_from, failure_of
from llm_recordings import events, recording
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
from ports import unused_port
from stepped_loop import SteppedLoop, idle, run_stepped

from actors.llm.base import Answer, LLMClient, Request, TextChunk
from actors.llm.http import incoming
from actors.llm.http.contract import HttpSettings, Timeouts
from actors.llm.http.http_pool import HttpPool
from actors.llm.http.presets import PRESETS
from actors.llm.openai.client import OpenAIClient
from protocol.errors import ModelError
from protocol.items import UserItem
from protocol.tools import ToolSpec
from protocol.usage import Usage

STOP = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
HELLO = events(
    *(json.dumps({"choices": [{"delta": {"content": word}}]}) for word in ("Hel", "lo")), STOP, USAGE
)


def hi(**fields: object) -> Request:
    return Request([UserItem.of("hi")], **fields)


def asked(*scripts: object, **settings: object) -> tuple[Answer, RawServer]:
    """What one request to a server with these scripts gives."""
    return answer_of(lambda url: OpenAIClient(url, "m", **settings), *scripts)


def refused(*scripts: object, **settings: object) -> tuple[ModelError, RawServer]:
    """The error that one request to a server with these scripts gives."""
    return failure_of(lambda url: OpenAIClient(url, "m", **settings), *scripts)


def test_the_client_is_an_llm_client():
    assert isinstance(OpenAIClient("http://127.0.0.1:1/v1"), LLMClient)


def test_a_streamed_answer_arrives_with_its_usage():
    answer, server = asked(stream_reply(HELLO))
    assert (answer.item.text, answer.stop_reason, answer.usage) == ("Hello", "end_turn", Usage(7, 3))
    request = server.received[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert "gzip" not in request.headers["accept-encoding"]
    assert request.json["messages"] == [{"role": "user", "content": "hi"}]


def test_what_a_real_server_sent_arrives_over_a_real_socket():
    on_the_wire = recording("tools_auto_stream")
    answer, _ = asked(on_the_wire.raw)
    assert [call.name for call in answer.item.calls] == ["read_file"]
    assert answer.usage == Usage(413, 56, 412)


def test_bug_an_event_cut_by_network_chunks_in_the_middle_of_a_character_is_whole():
    async def dribble(exchange: Exchange) -> None:
        body = events('{"choices":[{"delta":{"content":"Grüße 🙂"},"finish_reason":"stop"}]}')
        await exchange.send(STREAM_HEAD, *(chunk(bytes([byte])) for byte in body), STREAM_END)

    assert asked(dribble)[0].item.text == "Grüße 🙂"


async def test_a_stream_is_given_out_while_it_comes():
    opened = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', done=False)))
        await opened.wait()
        await exchange.send(chunk(events(STOP)), STREAM_END)

    async with RawServer(slow) as server, OpenAIClient(server.url, "m") as client:
        stream = client.stream(hi())
        assert await anext(stream) == TextChunk("a")
        opened.set()
        assert [type(block).__name__ async for block in stream] == ["End"]


def test_an_answer_that_ends_with_the_connection_is_read_to_its_end():
    async def until_eof(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", HELLO)
        exchange.close()

    assert asked(until_eof)[0].item.text == "Hello"


def test_a_whole_answer_is_read_though_a_stream_was_asked_for():
    answer, server = asked(recording("tools_auto").raw)
    assert server.received[0].json["stream"] is True
    assert [call.name for call in answer.item.calls] == ["read_file"]


def test_a_whole_answer_can_be_asked_for():
    answer, server = asked(recording("chat").raw, streaming=False)
    assert server.received[0].json["stream"] is False
    assert answer.item.text
    assert answer.usage is not None


def test_a_packed_answer_is_unpacked_though_nobody_asked_for_it():
    whole = gzip.compress(b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}')
    assert asked(reply(whole, "200 OK", "application/json", "Content-Encoding: gzip"))[0].item.text == "hi"
    packed = stream_reply(gzip.compress(HELLO)).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    assert asked(packed)[0].item.text == "Hello"


def test_a_web_page_is_no_answer_and_the_hint_says_what_to_check():
    error, _ = refused(reply(b"<!doctype html><title>Welcome</title>", "200 OK", "text/html"))
    assert error.kind == "protocol"
    assert "/v1" in error.hint


@pytest.mark.parametrize("body", [b"", b"\n", b": ping\n\n"])
def test_a_clean_end_without_any_event_is_an_error(body):
    error, _ = refused(stream_reply(body) if body else STREAM_HEAD + STREAM_END)
    assert (error.kind, error.retryable) == ("protocol", True)


def test_an_error_object_with_status_200_is_an_error():
    error, _ = refused(reply(b'{"error":{"message":"Overloaded","type":"overloaded_error"}}'))
    assert error.kind == "overloaded"


async def test_bug_nothing_comes_after_a_cut_but_the_error():
    async def cut(exchange: Exchange) -> None:
        await exchange.send(
            STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"half"}}]}', done=False))
        )
        exchange.abort()

    async with RawServer(cut) as server, OpenAIClient(server.url, "m") as client:
        stream = client.stream(hi())
        assert await anext(stream) == TextChunk("half")
        with pytest.raises(ModelError, match="lost") as caught:
            await anext(stream)
        assert (caught.value.kind, caught.value.where) == ("connection", f"127.0.0.1:{server.port}")
        assert [block async for block in stream] == []


def test_a_cut_behind_the_finish_reason_loses_nothing():
    async def cut(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(HELLO.removesuffix(b"data: [DONE]\n\n")))
        exchange.abort()

    assert asked(cut)[0].item.text == "Hello"


async def test_bug_the_key_is_sent_and_appears_nowhere_else():
    key = "secret-key-0123456789"

    async with RawServer(error_reply("401 Unauthorized", "Invalid API Key")) as server:
        client = OpenAIClient(server.url, "m", key)
        error = await failure_from(client)
        assert server.received[0].headers["authorization"] == f"Bearer {key}"
        assert error.kind == "auth"
        assert key not in repr(client) + str(error) + repr(error) + str(error.details())
        await client.aclose()


def test_a_key_that_a_server_repeats_is_not_passed_on():
    key = "0123456789abcdef-key"
    error, _ = refused(error_reply("401 Unauthorized", f"the key {key} is unknown"), api_key=key)
    assert "is unknown" in error.message
    assert key not in str(error)


async def test_what_is_learnt_of_a_server_that_is_asked_for_no_model_is_kept():
    async def script(exchange: Exchange) -> None:
        sent = exchange.received.json
        if "stream_options" in sent:
            await exchange.send(error_reply("400 Bad Request", "unknown field stream_options"))
        elif "tool_choice" in sent:
            await exchange.send(error_reply("400 Bad Request", "tool_choice is not supported"))
        else:
            await exchange.send(stream_reply(HELLO))

    asked = hi(
        tools=(ToolSpec("read", "", {"type": "object"}),), forced_tool="read", deadline=time.monotonic() + 9
    )
    async with RawServer(script) as server, OpenAIClient(server.url, "") as client:
        for requests in (3, 4):
            await answer_from(client, asked)
            assert len(server.received) == requests


async def test_what_two_requests_learn_of_a_server_at_once_is_all_kept():
    both = asyncio.Barrier(2)

    async def picky(exchange: Exchange) -> None:
        on_the_wire = exchange.received.json
        if len(server.received) <= 2:
            await both.wait()
        if "stream_options" in on_the_wire:
            await exchange.send(error_reply("400 Bad Request", "unknown field stream_options"))
        elif "max_tokens" in on_the_wire:
            await exchange.send(error_reply("400 Bad Request", "use max_completion_tokens"))
        else:
            await exchange.send(stream_reply(HELLO))

    async with RawServer(picky) as server, OpenAIClient(server.url, "m") as client:
        await asyncio.gather(*(answer_from(client, hi(max_tokens=5)) for _ in range(2)))
        await answer_from(client, hi(max_tokens=5))
        assert len(server.received) <= 7


def test_without_a_key_no_authorization_is_sent():
    assert "authorization" not in asked(stream_reply(HELLO))[1].received[0].headers


@pytest.mark.parametrize("end", ["", "/", "//", "/chat/completions", "/chat/completions/"])
async def test_bug_a_slash_or_path_too_many_in_the_base_url_does_no_harm(end):
    async with RawServer(stream_reply(HELLO)) as server, OpenAIClient(server.url + end, "m") as client:
        await answer_from(client)
        assert server.received[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://x/v1", "http://", "http://x:99999/v1", "http://x/v1?a=b"]
)
def test_what_is_no_base_url_is_refused_before_any_request(url):
    with pytest.raises(ModelError, match="not a base URL"):
        OpenAIClient(url, "m")


async def test_bug_the_hint_for_a_dead_server_names_its_real_url():
    port = unused_port()

    async with OpenAIClient(f"http://127.0.0.1:{port}/v1/", "m", start_command="run-it --now") as client:
        error = await failure_from(client)
        assert (error.kind, error.where, error.retryable) == ("connection", f"127.0.0.1:{port}", True)
        assert "refused" in error.message
        assert f"http://127.0.0.1:{port}/v1" in error.hint
        assert "run-it --now" in error.hint


def test_the_hint_for_a_preset_names_the_command_that_starts_it():
    for scheme in ("ollama", "lm_studio", "vllm", "llama_cpp"):
        client = OpenAIClient(PRESETS[scheme].base_url, "m")
        assert client._start_command == PRESETS[scheme].start_command


async def test_a_host_that_does_not_exist_is_a_clear_error():
    async with OpenAIClient("http://no-such-host.invalid/v1", "m") as client:
        error = await failure_from(client)
        assert (error.kind, error.where) == ("connection", "no-such-host.invalid:80")


def test_bug_both_ways_of_asking_word_the_same_refusal_the_same():
    script = error_reply("400 Bad Request", "bad temperature", "invalid_request_error")
    streamed, first = refused(script)
    whole, second = refused(script, streaming=False)
    assert str(streamed).replace(str(first.port), "") == str(whole).replace(str(second.port), "")


def test_a_refusal_says_when_to_come_back():
    error, _ = refused(error_reply("429 Too Many Requests", "slow down", "", "Retry-After: 7"))
    assert (error.kind, error.status, error.retry_after) == ("rate_limit", 429, 7.0)


async def test_a_redirect_is_not_followed_with_the_key():
    async with RawServer(stream_reply(HELLO)) as other:
        moved = reply(b"", "307 Temporary Redirect", "text/plain", f"Location: {other.url}/chat/completions")
        async with RawServer(moved) as server, OpenAIClient(server.url, "m", "key") as client:
            error = await failure_from(client)
            assert other.url in error.message
        assert other.received == []


async def test_a_server_that_speaks_no_tls_is_a_clear_error():
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIClient(f"https://127.0.0.1:{port}/v1", "m") as client:
        error = await failure_from(client)
        assert (error.kind, error.retryable) == ("connection", False)
        assert "http:" in error.hint


def test_a_server_that_does_not_speak_http_is_a_clear_error():
    error, _ = refused(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    assert error.kind == "protocol"
    assert "HTTP" in error.message


async def test_bug_options_that_a_server_refuses_are_left_out_from_then_on():
    picky = error_reply("400 Bad Request", "Unknown field: stream_options")
    async with RawServer(picky, stream_reply(HELLO)) as server:
        pool = HttpPool()
        client = OpenAIClient(server.url, "m", http=pool)
        assert (await answer_from(client)).item.text == "Hello"
        assert (await answer_from(OpenAIClient(server.url, "other", http=pool))).item.text == "Hello"
        assert ["stream_options" in each.json for each in server.received] == [True, False, False]
        await pool.aclose()


async def test_a_server_that_wants_the_new_name_of_max_tokens_gets_it():
    picky = error_reply("400 Bad Request", "Unsupported parameter: use 'max_completion_tokens' instead.")
    async with RawServer(picky, stream_reply(HELLO)) as server, OpenAIClient(server.url, "m") as client:
        await answer_from(client, hi(max_tokens=5))
        assert server.received[1].json["max_completion_tokens"] == 5
        assert "max_tokens" not in server.received[1].json


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is",
        "invalid temperature: only 1 is allowed for this model",
    ],
)
async def test_a_model_that_takes_no_temperature_is_sent_none_from_then_on(words: str):
    picky = error_reply("400 Bad Request", words)
    async with RawServer(picky, stream_reply(HELLO)) as server, OpenAIClient(server.url, "m") as client:
        for _ in range(2):
            assert (await answer_from(client, hi(temperature=0.2))).item.text == "Hello"
    assert ["temperature" in each.json for each in server.received] == [True, False, False]


@pytest.mark.parametrize(
    "words", ["temperature must be between 0 and 2", "temperature: only values between 0 and 2 are allowed"]
)
async def test_a_temperature_that_is_out_of_range_is_refused(words: str):
    picky = error_reply("400 Bad Request", words)
    async with RawServer(picky) as server, OpenAIClient(server.url, "m") as client:
        assert (await failure_from(client, hi(temperature=3))).kind == "invalid_request"
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("body", "words", "kind"),
    [
        ({"code": 500, "msg": "404 NOT_FOUND", "success": False}, "404 NOT_FOUND", "server"),
        (
            {
                "choices": None,
                "usage": {"total_tokens": 0},
                "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"},
            },
            "insufficient balance",
            "billing",
        ),
    ],
)
def test_an_error_with_status_200_and_no_member_error_is_one(body: dict, words: str, kind: str):
    failure, _ = refused(reply(json.dumps(body).encode()))
    assert words in str(failure)
    assert failure.kind == kind


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
def test_what_a_model_wrote_and_its_server_could_not_read_can_be_asked_for_again(code: str, streamed: bool):
    error = {"message": "Failed to call a function.", "type": "invalid_request_error", "code": code}
    body = json.dumps({"error": {**error, "failed_generation": "<function=look{"}}).encode()
    event = b"event: error\ndata: %b\n\n" % body
    failure, _ = refused(stream_reply(event) if streamed else reply(body, "400 Bad Request"))
    assert (failure.kind, failure.retryable) == ("protocol", True)
    assert "Failed to call a function" in str(failure)


def test_a_refusal_of_something_else_is_not_asked_again():
    _, server = refused(error_reply("400 Bad Request", "bad temperature"))
    assert len(server.received) == 1


async def test_one_connection_serves_one_request_after_the_other():
    async with RawServer(stream_reply(HELLO)) as server, OpenAIClient(server.url, "m") as client:
        for _ in range(5):
            await answer_from(client)
        assert (len(server.received), server.connections) == (5, 1)


async def test_a_connection_is_kept_though_its_end_comes_after_the_done_mark():
    ended = asyncio.Event()

    async def late_end(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(HELLO))
        await ended.wait()
        await exchange.send(STREAM_END)

    async with (
        RawServer(late_end, stream_reply(HELLO)) as server,
        OpenAIClient(server.url, "m") as client,
    ):
        await answer_from(client)  # does not wait for the end
        ended.set()
        await idle()
        await answer_from(client)
        assert server.connections == 1


def test_a_connection_whose_end_never_comes_is_given_up():
    async def main() -> None:
        gone = asyncio.Event()

        async def no_end(exchange: Exchange) -> None:
            await exchange.send(STREAM_HEAD, chunk(HELLO))
            await exchange.wait_until_gone()
            gone.set()

        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        async with RawServer(no_end) as server, OpenAIClient(server.url, "m") as client:
            await answer_from(client)
            assert not gone.is_set()
            loop.step(1.1)
            await gone.wait()

    run_stepped(main())


async def test_a_kept_connection_that_the_server_has_closed_costs_nobody_an_answer():
    async def closes(exchange: Exchange) -> None:
        exchange.abort()  # as if the idle connection had been closed just now

    server = RawServer(stream_reply(HELLO), closes, stream_reply(HELLO))
    async with server, OpenAIClient(server.url, "m") as client:
        assert (await answer_from(client)).item.text == "Hello"
        assert (await answer_from(client)).item.text == "Hello"
        assert len(server.received) == 3


def test_a_server_that_closes_every_connection_is_an_error_and_no_endless_loop():
    async def closes(exchange: Exchange) -> None:
        exchange.abort()

    error, server = refused(closes)
    assert (error.kind, len(server.received)) == ("connection", 1)


async def test_closing_a_stream_early_frees_its_connection():
    gone = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', done=False)))
        await exchange.wait_until_gone()
        gone.set()

    async with RawServer(endless) as server, OpenAIClient(server.url, "m") as client:
        stream = client.stream(hi())
        await anext(stream)
        await stream.aclose()
        await gone.wait()


@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling_a_task_that_waits_for_an_answer_frees_its_connection_and_its_place(begun):
    gone = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        if begun:
            await exchange.send(STREAM_HEAD, chunk(b": hello\n\n"))
        await exchange.wait_until_gone()
        gone.set()

    pool = HttpPool()
    async with RawServer(silent) as server:
        task = asyncio.create_task(answer_from(OpenAIClient(server.url, "m", http=pool)))
        await server.has_received(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
        assert pool.peer(f"{server.url}").endpoint.statistics().running == 0
    await pool.aclose()


async def test_many_streams_run_at_once_without_a_limit_of_a_hundred():
    everybody = asyncio.Event()

    async def together(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        await everybody.wait()
        await exchange.send(chunk(HELLO), STREAM_END)

    async with RawServer(together) as server, OpenAIClient(server.url, "m") as client:
        answers = [asyncio.create_task(answer_from(client)) for _ in range(300)]
        await server.has_received(300)
        everybody.set()
        assert {answer.item.text for answer in await asyncio.gather(*answers)} == {"Hello"}


async def test_no_more_streams_run_at_one_server_than_the_settings_say():
    go = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await go.wait()
        await exchange.send(stream_reply(HELLO))

    pool = HttpPool(HttpSettings(streams=2))
    async with RawServer(waits) as server:
        clients = [OpenAIClient(server.url, "m", http=pool) for _ in range(5)]
        answers = [asyncio.create_task(answer_from(client)) for client in clients]
        await server.has_received(2)
        assert pool.peer(server.url).endpoint.statistics().waiting == 3
        go.set()
        await asyncio.gather(*answers)
    await pool.aclose()


#: How long a server may be silent in the middle of an answer, in seconds.
IDLE = 300


class Stepping:
    """A server under way on a loop whose clock is put forward."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        self.loop = loop
        self.pool = HttpPool(HttpSettings(timeouts or Timeouts()))


def test_bug_no_time_out_covers_the_whole_answer_and_comments_are_signs_of_life():
    async def main() -> None:
        stepping = Stepping()
        turn = asyncio.Semaphore(0)
        seen = asyncio.Semaphore(0)

        async def slow(exchange: Exchange) -> None:
            await exchange.send(STREAM_HEAD)
            for piece in [b":\n\n"] * 8 + [events('{"choices":[{"delta":{"content":"a"}}]}', done=False)] * 3:
                await turn.acquire()
                await exchange.send(chunk(piece))
                seen.release()
            await exchange.send(chunk(events(STOP)), STREAM_END)

        async with RawServer(slow) as server:
            task = asyncio.create_task(answer_from(OpenAIClient(server.url, "m", http=stepping.pool)))
            for _ in range(11):
                await server.has_received(1)
                await idle()
                stepping.loop.step(IDLE - 20)  # far more in all, but never so long without a byte
                turn.release()
                await seen.acquire()
            assert (await task).item.text == "aaa"
        await stepping.pool.aclose()

    run_stepped(main())


def test_bug_silence_in_the_middle_of_an_answer_is_a_time_out():
    async def main() -> None:
        stepping = Stepping()

        async def falls_silent(exchange: Exchange) -> None:
            await exchange.send(
                STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', done=False))
            )
            await exchange.wait_until_gone()

        async with RawServer(falls_silent) as server:
            stream = OpenAIClient(server.url, "m", http=stepping.pool).stream(hi())
            assert await anext(stream) == TextChunk("a")
            rest = asyncio.create_task(anext(stream))
            await idle()
            stepping.loop.step(IDLE - 10)
            await idle()
            assert not rest.done()  # a model may reason unseen for minutes
            stepping.loop.step(11)
            with pytest.raises(ModelError, match="sent nothing for 300 s") as caught:
                await rest
            assert (caught.value.kind, caught.value.retryable) == ("timeout", True)
        await stepping.pool.aclose()

    run_stepped(main())


@pytest.mark.parametrize("headed", [False, True])
def test_a_first_byte_may_take_long_but_not_for_ever(headed):
    async def main() -> None:
        stepping = Stepping()

        async def silent(exchange: Exchange) -> None:
            if headed:
                await exchange.send(STREAM_HEAD)
            await exchange.wait_until_gone()

        async with RawServer(silent) as server:
            task = asyncio.create_task(answer_from(OpenAIClient(server.url, "m", http=stepping.pool)))
            await server.has_received(1)
            await idle()
            stepping.loop.step(590)
            await idle()
            stepping.loop.step(11)
            with pytest.raises(ModelError, match="sent nothing for 600 s") as caught:
                await task
            assert caught.value.kind == "timeout"
        await stepping.pool.aclose()

    run_stepped(main())


def test_a_server_that_takes_no_connection_is_a_failure_to_connect():
    async def main() -> None:
        stepping = Stepping()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as queue:
            for _ in range(4):  # a queue that is full takes no connection and refuses none
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            client = OpenAIClient(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "m", http=stepping.pool)
            task = asyncio.create_task(failure_from(client))
            await idle()
            stepping.loop.step(11)
            error = await task
            assert error.kind == "connection"
            assert "in time" in error.message
        await stepping.pool.aclose()

    run_stepped(main())


async def test_the_runs_deadline_ends_an_answer_and_is_not_retried():
    async def silent(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(b": ping\n\n"))
        await exchange.wait_until_gone()

    async with RawServer(silent) as server, OpenAIClient(server.url, "m") as client:
        error = await failure_from(client, hi(deadline=time.monotonic() + 0.1))
        assert (error.kind, error.retryable) == ("timeout", False)
        assert "time was up" in error.message


@pytest.mark.parametrize(
    ("sent", "seconds"), [((STOP,), incoming.AFTER_FINISH), ((STOP, USAGE), incoming.AFTER_USAGE)]
)
def test_a_server_that_holds_the_socket_after_its_finish_reason_does_not_hold_the_answer(sent, seconds):
    async def main() -> None:
        stepping = Stepping()

        async def holds(exchange: Exchange) -> None:
            await exchange.send(
                STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', *sent, done=False))
            )
            await exchange.wait_until_gone()

        async with RawServer(holds) as server:
            task = asyncio.create_task(answer_from(OpenAIClient(server.url, "m", http=stepping.pool)))
            await server.has_received(1)
            await idle()
            stepping.loop.step(seconds + 0.1)
            assert (await task).item.text == "a"
        await stepping.pool.aclose()

    run_stepped(main())


async def test_a_long_history_is_sent_whole():
    async with RawServer(stream_reply(HELLO)) as server, OpenAIClient(server.url, "m") as client:
        text = "x" * 3_000_000
        await answer_from(client, Request([UserItem.of(text)]))
        assert server.received[0].json["messages"][0]["content"] == text
        assert "transfer-encoding" not in server.received[0].headers


def test_one_client_serves_one_event_loop_after_the_other():
    client = OpenAIClient("http://127.0.0.1:1/v1", "m")

    async def main() -> None:
        async with RawServer(stream_reply(HELLO)) as server:
            client.base_url = server.url
            assert (await answer_from(client)).item.text == "Hello"
        await client.aclose()

    asyncio.run(main())
    asyncio.run(main())


async def test_a_closed_pool_can_be_used_again():
    async with RawServer(stream_reply(HELLO)) as server:
        pool = HttpPool()
        for _ in range(2):
            await answer_from(OpenAIClient(server.url, "m", http=pool))
            await pool.aclose()


async def test_another_httpx_transport_can_carry_the_requests():
    import httpx  # noqa: PLC0415

    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=HELLO)

    pool = HttpPool(HttpSettings(transport=lambda url: httpx.MockTransport(handle)))
    assert (await answer_from(OpenAIClient("http://model.test/v1", "m", http=pool))).item.text == "Hello"
    assert str(seen[0].url) == "http://model.test/v1/chat/completions"
    await pool.aclose()


async def test_a_dead_server_is_not_stampeded_by_a_thousand_pods():
    port = unused_port()

    pool = HttpPool()
    client = OpenAIClient(f"http://127.0.0.1:{port}/v1", "m", http=pool)
    for _ in range(5):
        assert "refused" in (await failure_from(client)).message
    failures = await asyncio.gather(*(failure_from(client) for _ in range(1000)))
    assert all("requests are paused" in failure.message for failure in failures)
    await pool.aclose()
