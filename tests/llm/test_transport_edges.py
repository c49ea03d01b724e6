"""What servers, proxies and environments do to an answer on its way: reported, bounded, and without secrets."""

import asyncio
import gzip
import json
import zlib

import pytest
from client_kit import answer_from, failure_from
from llm_recordings import events
from llm_server import (
    STREAM_HEAD,
    Exchange,
    RawServer,
    chunk,
    error_reply,
    reply,
    stream_reply,
)
from ports import unused_port

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.http.presets import list_models
from actors.llm.http.server_failures import MAX_ANSWER_BYTES
from actors.llm.openai.client import OpenAIClient
from actors.net.encodings import STEP, Unpacker, coding_of
from actors.net.proxies import is_bypassed, proxy_for
from protocol.errors import ModelError

HELLO = events('{"choices":[{"delta":{"content":"hello"},"finish_reason":"stop"}]}')
WHOLE = json.dumps({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}).encode()
SECRET = "hunter2-of-the-gateway"


def answered(*scripts: object) -> str:
    async def main() -> str:
        async with RawServer(*scripts) as server, OpenAIClient(server.url, "m") as client:
            return (await answer_from(client)).item.text

    return asyncio.run(main())


def failed(*scripts: object) -> ModelError:
    async def main() -> ModelError:
        async with RawServer(*scripts) as server, OpenAIClient(server.url, "m") as client:
            return await failure_from(client)

    return asyncio.run(main())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


# -- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8190, 9000, 100_000])
def test_a_long_header_does_no_harm(size):
    assert answered(reply(HELLO, "200 OK", "text/event-stream", f"Set-Cookie: {'x' * size}")) == "hello"


def test_many_headers_do_no_harm():
    headers = [f"X-Litellm-{number}: y" for number in range(500)]
    assert answered(reply(HELLO, "200 OK", "text/event-stream", *headers)) == "hello"
    many = [f"X-{number}: y" for number in range(20_000)]
    try:
        text = answered(reply(HELLO, "200 OK", "text/event-stream", *many))
    except (
        ModelError
    ) as error:  # newer versions of the HTTP library bound their number, older ones take them all
        text = error.kind
    assert text in {"hello", "protocol"}


def test_a_byte_order_mark_before_a_whole_answer_does_no_harm():
    assert answered(reply(b"\xef\xbb\xbf\n" + WHOLE)) == "hello"


def test_a_header_beyond_all_measure_is_reported_as_that():
    error = failed(reply(HELLO, "200 OK", "text/event-stream", f"Set-Cookie: {'x' * 400_000}"))
    assert (error.kind, error.retryable) == ("protocol", False)
    assert "header of more than 256 KB" in error.message


# -- packed bodies -------------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, ": raw_deflate,
    "identity": bytes,
    " gzip , identity": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
}


@pytest.mark.parametrize(("coding", "pack"), PACKED.items(), ids=PACKED)
@pytest.mark.parametrize("body", [HELLO, WHOLE], ids=["stream", "whole"])
def test_a_packed_answer_is_unpacked_though_nobody_asked_for_it(coding, pack, body):
    kind = "text/event-stream" if body is HELLO else "application/json"
    assert answered(reply(pack(body), "200 OK", kind, f"Content-Encoding: {coding}")) == "hello"


def test_a_packed_stream_is_unpacked_as_it_comes():
    async def serve(exchange: Exchange) -> None:
        packer = zlib.compressobj(wbits=31)
        head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        await exchange.send(head)
        for line in HELLO.splitlines(keepends=True):
            await exchange.send(chunk(packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH)))
        await exchange.wait_until_gone()

    assert answered(serve) == "hello"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "x"])
def test_an_encoding_that_was_not_asked_for_and_is_not_known_is_reported(coding):
    error = failed(reply(b"\x0b\x02\x80", "200 OK", "text/event-stream", f"Content-Encoding: {coding}"))
    assert (error.kind, error.retryable) == ("protocol", False)
    assert "not requested" in error.message
    assert coding_of(coding) in error.message


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_is_reported(coding):
    error = failed(reply(HELLO, "200 OK", "text/event-stream", f"Content-Encoding: {coding}"))
    assert error.kind == "protocol"
    assert f"claims to be in {coding}" in error.message


def test_a_packed_answer_that_was_cut_can_be_asked_for_again():
    body = gzip.compress(WHOLE)[:-20]
    error = failed(reply(body, "200 OK", "application/json", "Content-Encoding: gzip"))
    assert error.retryable


def test_the_status_of_a_refusal_counts_though_its_reason_cannot_be_read():
    error = failed(reply(b"\x0b", "429 Too Many Requests", "application/json", "Content-Encoding: br"))
    assert (error.kind, error.status) == ("rate_limit", 429)
    assert "'br'" in error.message


def test_a_small_body_that_unpacks_to_a_huge_one_comes_in_steps():
    unpacker = Unpacker("gzip")
    size, data = 0, gzip.compress(b"a" * 20_000_000)
    while out := unpacker.feed(data):
        assert len(out) <= STEP
        size, data = size + len(out), b""
    assert size == 20_000_000


# -- answers without an end ----------------------------------------------------------------------


def flood(head: bytes, piece: bytes) -> object:
    async def serve(exchange: Exchange) -> None:
        await exchange.send(head)
        sent = 0
        while sent < 2 * MAX_ANSWER_BYTES:
            await exchange.send(piece)
            sent += len(piece)

    return serve


OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DELTA = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"a" * 100_000)
FLOODS = {
    "events": (OPEN, DELTA),
    "comments": (OPEN, b": " + b"x" * 100_000 + b"\n\n"),
    "a whole answer": (OPEN + b'{"choices": ["', b"x" * 100_000),
    "blanks": (OPEN, b" " * 100_000),
}


@pytest.mark.parametrize(("head", "piece"), FLOODS.values(), ids=FLOODS)
def test_an_answer_that_never_ends_is_given_up(head, piece):
    error = failed(flood(head, piece))
    assert (error.kind, error.retryable) == ("protocol", False)
    assert "64 MB" in error.message


@pytest.mark.parametrize("line", [b"data: " + b"x" * 16_000 + b"\n", b"x" * 16_000, b":\n" * 8_000])
def test_an_event_that_never_ends_is_given_up(line):
    error = failed(flood(OPEN, line))
    assert error.kind == "protocol"
    assert "an event of more than" in error.message


# -- proxies -------------------------------------------------------------------------------------

BYPASSES = [
    ("model.test", 8000, "model.test:8000", True),
    ("model.test", 8000, "model.test:8001", False),
    ("model.test", 8000, "model.test", True),
    ("gpu.model.test", 8000, "model.test", True),
    ("gpu.model.test", 8000, ".model.test", True),
    ("gpu.model.test", 8000, "*.model.test", True),
    ("model.test", 8000, "*.model.test", True),
    ("gpu.model.test", 8000, "*.model.test:8000", True),
    ("gpu.model.test", 8000, "*.model.test:9", False),
    ("notmodel.test", 8000, "model.test", False),
    ("MODEL.test.", 8000, "other , Model.Test", True),
    ("model.test", 80, "a.test b.test model.test", True),
    ("model.test", 80, "http://model.test", True),
    ("model.test", 80, "*", True),
    ("model.test", 80, "", False),
    ("model.test", 80, ",", False),
    ("model.test", 80, ".", False),
    ("10.1.2.3", 8000, "10.0.0.0/8", True),
    ("10.1.2.3", 8000, "10.1.2.3", True),
    ("10.1.2.3", 8000, "10.1.2.3:8000", True),
    ("10.1.2.3", 8000, "10.1.2.3:80", False),
    ("10.1.2.3", 8000, "10.1.2.7/24", True),
    ("10.1.2.3", 8000, "10.*", True),
    ("11.1.2.3", 8000, "10.0.0.0/8", False),
    ("110.1.2.3", 8000, "10.1.2.3", False),
    ("model.test", 8000, "10.0.0.0/8", False),
    ("10.1.2.3", 8000, "10.0.0.0/99", False),
    ("fd00::7", 8000, "fd00::/8", True),
    ("fd00::7", 8000, "fd00:0:0::7", True),
    ("fd00::7", 8000, "[fd00::7]:8000", True),
    ("fd00::7", 8000, "[fd00::7]:80", False),
    ("fd00::7", 8000, "[fd00::7]", True),
    ("fe80::1%eth0", 8000, "fe80::/10", True),
    ("::ffff:10.1.2.3", 8000, "10.0.0.0/8", True),
]


@pytest.mark.parametrize(("host", "port", "no_proxy", "bypassed"), BYPASSES)
def test_what_no_proxy_takes_out(host, port, no_proxy, bypassed, environment):
    assert is_bypassed(host, port, no_proxy) == bypassed
    shown = f"[{host}]" if ":" in host else host
    environment.setenv("http_proxy", "http://proxy:3128")
    environment.setenv("no_proxy", no_proxy)
    assert (proxy_for(f"http://{shown}:{port}/v1") is None) == bypassed


@pytest.mark.parametrize("reported", ["http://proxy:abc", "http://", "http://u:p:q@:3128", "http://:3128"])
def test_a_proxy_that_is_no_address_is_a_clear_error(reported, environment):
    environment.setenv("all_proxy", reported)
    with pytest.raises(ModelError, match="not a valid address") as caught:
        proxy_for("https://api.openai.com/v1")
    assert caught.value.where == "api.openai.com:443"
    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_named_and_not_the_server_behind_it(scheme, environment):
    port = unused_port()
    environment.setenv("all_proxy", f"http://user:{SECRET}@127.0.0.1:{port}")

    async def main() -> ModelError:
        async with OpenAIClient(f"{scheme}://model.test/v1", "m") as client:
            return await failure_from(client)

    error = asyncio.run(main())
    assert error.kind == "connection"
    assert error.message.startswith("model.test:")
    assert f"the proxy 127.0.0.1:{port}" in error.message
    assert "add model.test to NO_PROXY" in error.hint
    assert SECRET not in str(error)


async def test_a_proxy_gets_its_own_credentials_and_the_server_its_key(environment):
    async with RawServer(stream_reply(HELLO)) as proxy:
        environment.setenv("http_proxy", f"http://us%40er:{SECRET}@127.0.0.1:{proxy.port}")
        async with OpenAIClient("http://model.test/v1", "m", "key") as client:
            assert (await answer_from(client)).item.text == "hello"
        (received,) = proxy.received
        assert received.path == "http://model.test/v1/chat/completions"
        assert received.headers["authorization"] == "Bearer key"
        assert received.headers["proxy-authorization"] == "Basic " + basic(f"us@er:{SECRET}")


def basic(text: str) -> str:
    from base64 import b64encode  # noqa: PLC0415

    return b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [("407 Proxy Authentication Required", "auth", "user"), ("503 Busy", "connection", "503")],
)
async def test_a_proxy_that_makes_no_connection_is_named(status, kind, words, environment):
    async with RawServer(reply(b"", status, close=True)) as proxy:
        environment.setenv("https_proxy", f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        async with OpenAIClient("https://model.test/v1", "m", "key") as client:
            error = await failure_from(client)
    assert error.kind == kind
    assert f"the proxy 127.0.0.1:{proxy.port}" in error.message
    assert words in error.message
    assert SECRET not in str(error)
    assert [each.method for each in proxy.received] == ["CONNECT"]
    assert "authorization" not in proxy.received[0].headers


def test_a_proxy_that_wants_a_password_for_plain_http_is_named(environment):
    async def main() -> ModelError:
        async with RawServer(error_reply("407 Proxy Authentication Required", "who are you?")) as proxy:
            environment.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            async with OpenAIClient("http://model.test/v1", "m") as client:
                return await failure_from(client)

    error = asyncio.run(main())
    assert error.kind == "auth"
    assert "proxy" in error.message
    assert "HTTP_PROXY" in error.hint


# -- certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_named(variable, environment, tmp_path):
    path = str(tmp_path / "nothing.pem")
    environment.setenv(variable, path)

    async def main() -> ModelError:
        async with OpenAIClient("https://127.0.0.1:9/v1", "m") as client:
            return await failure_from(client)

    error = asyncio.run(main())
    assert (error.kind, error.where, error.retryable) == ("connection", "127.0.0.1:9", False)
    assert error.message.startswith("127.0.0.1:9: ")
    assert f"{variable}={path}" in error.message
    assert "PEM" in error.hint


def test_a_file_that_holds_no_certificates_is_named(environment, tmp_path):
    path = tmp_path / "words.pem"
    path.write_text("nothing to trust")
    environment.setenv("SSL_CERT_FILE", str(path))

    async def main() -> ModelError:
        async with OpenAIClient("https://127.0.0.1:9/v1", "m") as client:
            return await failure_from(client)

    assert f"SSL_CERT_FILE={path}" in asyncio.run(main()).message


def test_plain_http_needs_no_certificates(environment, tmp_path):
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
    assert answered(stream_reply(HELLO)) == "hello"


# -- credentials in a base URL -------------------------------------------------------------------


async def test_a_user_and_a_password_in_the_base_url_are_sent_as_a_header_and_shown_nowhere():
    async with RawServer(stream_reply(HELLO), error_reply("401 Unauthorized", f"no {SECRET} here")) as server:
        url = server.url.replace("//", f"//us%40er:{SECRET}@")
        async with OpenAIClient(url, "m") as client:
            assert (await answer_from(client)).item.text == "hello"
            assert server.received[0].headers["authorization"] == "Basic " + basic(f"us@er:{SECRET}")
            assert SECRET not in f"{client!r} {client.base_url}"
            error = await failure_from(client)
        assert SECRET not in f"{error} {error.details()} {error.hint}"


@pytest.mark.parametrize("key", ["wrong-key", "sk-abcdefghijklmnop", None])
@pytest.mark.parametrize("kind", [OpenAIClient, AnthropicClient])
def test_a_refused_key_is_not_shown_and_a_missing_one_is_named(kind, key):
    async def main() -> ModelError:
        words = f"Incorrect API key provided: {key}. Key provided here: see the docs."
        refusal = error_reply("401 Unauthorized", words)
        async with RawServer(refusal) as server, kind(server.url, "m", api_key=key) as client:
            return await failure_from(client)

    error = asyncio.run(main())
    assert "Key provided here: see the docs." in error.message
    assert "check the key" in (error.hint or "") if key else "no key was sent" in (error.hint or "")
    assert key is None or key not in str(error)


def test_a_password_in_the_base_url_and_a_key_besides_are_refused_with_what_to_do():
    with pytest.raises(ModelError, match="also a key") as caught:
        OpenAIClient(f"http://user:{SECRET}@127.0.0.1:9/v1", "m", "key")
    assert "api_key_env" in caught.value.hint
    assert SECRET not in str(caught.value)


async def test_a_gateways_password_and_a_key_of_anthropics_kind_go_side_by_side():
    async with RawServer(error_reply("400 Bad Request", "no")) as server:
        url = server.url.replace("//", f"//user:{SECRET}@")
        async with AnthropicClient(url, "m", "key") as client:
            await failure_from(client)
        headers = server.received[0].headers
        assert headers["x-api-key"] == "key"
        assert headers["authorization"] == "Basic " + basic(f"user:{SECRET}")


def test_a_base_url_that_is_none_is_shown_without_its_password():
    with pytest.raises(ModelError, match="not a base URL") as caught:
        OpenAIClient(f"ftp://user:{SECRET}@host/v1", "m")
    assert SECRET not in str(caught.value)


async def test_models_are_listed_behind_a_password_too():
    async with RawServer(reply(b'{"data":[{"id":"m"}]}')) as server:
        assert await list_models(server.url.replace("//", f"//user:{SECRET}@")) == ["m"]
        assert server.received[0].headers["authorization"] == "Basic " + basic(f"user:{SECRET}")


def test_a_redirect_is_reported_without_the_password_it_names():
    moved = f"Location: https://user:{SECRET}@elsewhere.test/v1"
    error = failed(reply(b"", "307 Temporary Redirect", "text/plain", moved))
    assert "elsewhere.test" in error.message
    assert SECRET not in str(error)
