"""What every transport owes: the same over our own connections and over aiohttp's."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from llm_server import STREAM_HEAD, Exchange, RawServer, chunk, reply, stream_reply
from ports import unused_port

from actors.llm.http.aiohttp_transport import AiohttpTransport
from actors.llm.http.contract import Response, Transport
from actors.llm.http.direct_transport import DirectTransport
from actors.net.aiohttp_failures import explained, is_of, was_kept_too_long
from actors.net.failures import NetworkFailure, TransportError

BODY = b"one\n\ntwo\n\n" * 100


@pytest.fixture(params=[DirectTransport, AiohttpTransport])
def made(request) -> Callable[[str], Any]:
    @asynccontextmanager
    async def make(url: str) -> AsyncIterator[Transport]:
        transport = request.param(url, connect_seconds=5.0)
        try:
            yield transport
        finally:
            await transport.aclose()

    return make


async def body_of(response: Response) -> bytes:
    pieces = []
    while data := await response.read():
        pieces.append(data)
    return b"".join(pieces)


def failure_of(error: Exception) -> NetworkFailure:
    return error.failure if isinstance(error, TransportError) else explained(error)


async def asked(transport: Transport, url: str) -> bytes:
    response = await transport.send("POST", url + "/x", {"a": "b"}, b"{}")
    try:
        return await body_of(response)
    finally:
        await response.aclose()


@pytest.mark.parametrize(
    "sent",
    [
        reply(BODY),
        stream_reply(BODY),
        STREAM_HEAD + b"".join(chunk(BODY[at : at + 7]) for at in range(0, len(BODY), 7)) + b"0\r\n\r\n",
    ],
    ids=["sized", "one chunk", "many chunks"],
)
def test_a_body_arrives_and_its_connection_is_used_again(made, sent):
    async def main() -> None:
        async with RawServer(sent) as server, made(server.url) as transport:
            for _ in range(3):
                assert await asked(transport, server.url) == BODY
            assert server.connections == 1
            assert server.received[0].headers["a"] == "b"
            assert server.received[0].path == "/v1/x"

    asyncio.run(main())


def test_a_body_that_ends_with_its_connection_arrives(made):
    async def ends(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n", BODY)
        exchange.close()

    async def main() -> None:
        async with RawServer(ends) as server, made(server.url) as transport:
            assert await asked(transport, server.url) == BODY

    asyncio.run(main())


def test_a_body_that_is_cut_is_a_lost_connection(made):
    async def cut(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, b"ff\r\nhalf")
        exchange.close()

    async def main() -> None:
        async with RawServer(cut) as server, made(server.url) as transport:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each has errors of its own
                await asked(transport, server.url)
            assert "lost before the answer was complete" in failure_of(caught.value).words

    asyncio.run(main())


def test_a_kept_connection_that_is_closed_before_any_answer_is_known(made):
    async def shut(exchange: Exchange) -> None:
        exchange.close()

    async def main() -> None:
        async with RawServer(reply(b"{}"), shut) as server, made(server.url) as transport:
            await asked(transport, server.url)
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each has errors of its own
                await asked(transport, server.url)
            error = caught.value
            known = error.unanswered if isinstance(error, TransportError) else was_kept_too_long(error)
            assert known

    asyncio.run(main())


def test_a_port_that_nobody_listens_at_is_reported(made):
    async def main() -> None:
        url = f"http://127.0.0.1:{unused_port()}/v1"
        async with made(url) as transport:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each has errors of its own
                await asked(transport, url)
            failure = failure_of(caught.value)
            assert "refused" in failure.words
            assert failure.connecting
            assert not is_of(caught.value, "elsewhere", 1)

    asyncio.run(main())


def test_closing_an_answer_in_its_middle_closes_its_connection(made):
    gone = asyncio.Event()

    async def begins(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(b"x"))
        await exchange.wait_until_gone()
        gone.set()

    async def main() -> None:
        async with RawServer(begins) as server, made(server.url) as transport:
            response = await transport.send("POST", server.url + "/x", {}, b"{}")
            assert await response.read() == b"x"
            await response.aclose()
            async with asyncio.timeout(60):
                await gone.wait()

    asyncio.run(main())


def test_pouring_gives_what_reading_gives():
    async def main() -> None:
        async with RawServer(stream_reply(BODY)) as server:
            transport = DirectTransport(server.url, connect_seconds=5.0)
            answer = await transport.send("POST", server.url + "/x", {}, b"{}")
            pieces: list[bytes] = []
            await answer.pour(lambda data: pieces.append(data) or False)  # type: ignore[func-returns-value]
            assert b"".join(pieces) == BODY
            assert pieces[-1] == b""
            await transport.aclose()

    asyncio.run(main())


def test_a_host_by_name_is_reached():
    async def main() -> None:
        async with RawServer(reply(BODY)) as server:
            url = server.url.replace("127.0.0.1", "localhost")
            transport = DirectTransport(url, connect_seconds=5.0)
            assert await asked(transport, url) == BODY
            await transport.aclose()

    asyncio.run(main())


async def test_a_host_is_found_by_name_though_the_threads_of_the_loop_are_all_held(made):
    held = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(held.wait)
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            async with RawServer(reply(BODY)) as server, asyncio.timeout(30):
                url = server.url.replace("127.0.0.1", "localhost")
                async with made(url) as transport:
                    assert await asked(transport, url) == BODY
        finally:
            held.set()


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 70}.example"])
async def test_a_host_whose_name_no_network_allows_cannot_be_found(host):
    url = f"http://{host}/v1"
    transport = DirectTransport(url, connect_seconds=5.0)
    with pytest.raises(TransportError) as caught:
        await transport.send("POST", url, {}, b"")
    assert "the host was not found" in caught.value.failure.words
    await transport.aclose()


async def test_only_a_request_on_a_kept_connection_counts_as_never_read():
    async def drop(exchange: Exchange) -> None:
        exchange.close()

    async with RawServer(drop) as server:
        transport = DirectTransport(server.url, connect_seconds=5.0)
        with pytest.raises(TransportError) as caught:
            await transport.send("POST", server.url, {}, b"{}")
        assert not caught.value.unanswered
        await transport.aclose()
