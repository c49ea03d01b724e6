"""Model servers behind TLS: answers stream, connections are kept, and nobody but the named server is talked to."""

import asyncio
import ssl
from pathlib import Path

import pytest
from client_kit import HI, answer_from, failure_from
from llm_recordings import events
from llm_server import STREAM_END, STREAM_HEAD, Exchange, RawServer, chunk, stream_reply

from actors.llm.base import TextChunk
from actors.llm.openai.client import OpenAIClient
from polypod import PodManifest, PodSystem

#: A certificate of 127.0.0.1, signed by itself, and its key; made for these tests.
TLS = Path(__file__).parents[1] / "data" / "tls"
HELLO = '{"choices":[{"delta":{"content":"hello"},"finish_reason":"stop"}]}'


def server(*scripts: object) -> RawServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    return RawServer(*scripts, tls=context)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    return monkeypatch


async def test_an_answer_streams_over_tls(trusted):
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', done=False)))
        await begun.wait()
        await exchange.send(chunk(events(HELLO)), STREAM_END)

    async with server(slow) as there, OpenAIClient(there.url, "m") as client:
        stream = client.stream(HI)
        assert await anext(stream) == TextChunk("a")
        begun.set()
        assert [type(block).__name__ async for block in stream] == ["TextChunk", "End"]


async def test_a_connection_over_tls_is_kept_for_the_next_request(trusted):
    async with server(stream_reply(events(HELLO))) as there, OpenAIClient(there.url, "m") as client:
        answers = [(await answer_from(client)).item.text for _ in range(3)]
        assert (answers, there.connections) == (["hello"] * 3, 1)


async def test_a_pod_runs_over_tls_with_a_long_history_and_a_long_answer(trusted):
    long = "x" * 300_000
    answer = HELLO.replace("hello", long)
    async with server(stream_reply(events(answer))) as there, PodSystem() as system:
        pod = await system.spawn(PodManifest.of(model="openai/m", base_url=there.url))
        for _ in range(3):
            assert (await pod.run(long)).text == long
        assert there.connections == 1
        assert len(there.received[2].json["messages"]) == 5


async def test_a_server_whose_certificate_is_of_another_name_gets_no_request(trusted):
    async with server(stream_reply(events(HELLO))) as there:
        async with OpenAIClient(f"https://localhost:{there.port}/v1", "m", "secret") as client:
            error = await failure_from(client)
        assert (error.kind, error.where) == ("connection", f"localhost:{there.port}")
        assert "certificate" in error.message
        assert there.received == []


async def test_a_server_that_nobody_trusts_gets_no_request(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with server(stream_reply(events(HELLO))) as there:
        async with OpenAIClient(there.url, "m", "secret") as client:
            error = await failure_from(client)
        assert (error.kind, error.where) == ("connection", f"127.0.0.1:{there.port}")
        assert "certificate" in error.message
        assert there.received == []


async def test_an_answer_over_tls_that_is_cut_is_an_error_and_its_connection_is_not_used_again(trusted):
    async def cut(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events('{"choices":[{"delta":{"content":"a"}}]}', done=False)))
        exchange.abort()

    async with server(cut, stream_reply(events(HELLO))) as there, OpenAIClient(there.url, "m") as client:
        error = await failure_from(client)
        assert (error.kind, error.where) == ("connection", f"127.0.0.1:{there.port}")
        assert (await answer_from(client)).item.text == "hello"
        assert there.connections == 2


async def test_plain_http_to_a_server_behind_tls_says_so_or_names_the_server(trusted):
    async with server(stream_reply(events(HELLO))) as there:
        async with OpenAIClient(f"http://127.0.0.1:{there.port}/v1", "m") as client:
            error = await failure_from(client)
        assert (error.kind, error.where) == ("connection", f"127.0.0.1:{there.port}")
