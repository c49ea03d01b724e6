"""The tool `fetch`: what it reaches, what it refuses, and what a model sees of an answer; against real servers."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import sys
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from effort import THOROUGH
from llm_server import Exchange, RawServer, chunk, reply
from ports import unused_port

from actors.llm.scripted import ScriptedClient, call, say
from actors.net.public_addresses import Address, why_not_public
from actors.system import PodSystem
from actors.tools.base import ToolContext
from actors.tools.builtin import builtin
from actors.tools.extras import ALLOW_PRIVATE
from actors.tools.toolbox import Toolbox
from actors.tools.web import html
from actors.tools.web.page import MOST_BYTES
from actors.tools.web.requests import MOST_REDIRECTS, Web, refuse_none
from protocol.errors import ManifestError, ToolError
from protocol.items import ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.scope import Scope

IN_EARNEST = pytest.mark.skipif(
    not THOROUGH, reason="POLYPOD_THOROUGH is not set; others of its kind are tried"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def fetched(allow_private: bool = True, **arguments) -> ToolResult:
    ctx = ToolContext(pwd=Path("/"), scope=Scope(), extras={ALLOW_PRIVATE: allow_private})
    return await Toolbox(builtin(["fetch"])).run(ToolCall("c", "fetch", arguments), ctx)


async def shown(body: bytes, kind: str = "text/plain", *headers: str, **arguments) -> ToolResult:
    """What a model sees of an answer."""
    async with RawServer(reply(body, "200 OK", kind, *headers)) as server:
        return await fetched(url=server.url, **arguments)


class Names(AbstractResolver):
    """Knows a name by the addresses that it is given, one answer after the other; the last one stays."""

    def __init__(self, *answers: Iterable[str]) -> None:
        self._answers = [list(each) for each in answers]
        self.asked: list[str] = []

    async def resolve(self, host, port=0, family=socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(hostname=host, host=each, port=port, family=_family(each), proto=0, flags=0)
            for each in addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def only_2(address: Address) -> str | None:
    """As if 127.0.0.2 were on the public internet."""
    return None if str(address) == "127.0.0.2" else why_not_public(address)


# -- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *(
            "2002:7f00:1::",
            "2002:0a00:0001::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::8.8.8.8",
        ),
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_what_is_not_on_the_public_internet_is_refused(address):
    assert why_not_public(ip_address(address)) is not None


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
async def test_a_host_that_no_name_can_be_is_not_found(host):
    result = await fetched(url=f"http://{host}/")
    assert result.is_error
    assert "the host was not found" in result.text


@pytest.mark.parametrize(
    "address", ["::ffff:0:127.0.0.1", "::ffff:0:a00:1", "5f00::1", "3fff::1", "192.0.0.8"]
)
def test_what_translators_make_ipv4_and_what_older_pythons_do_not_know_to_be_reserved_is_refused(address):
    assert why_not_public(ip_address(address)) == "a private or reserved address"


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:0808:0808::1", "64:ff9b::808:808"],
)
def test_what_is_on_the_public_internet_is_not(address):
    assert why_not_public(ip_address(address)) is None


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ),
        *(
            "127.0.0.1.",
            "\uff11\uff12\uff17.0.0.1",
            "%31%32%37.0.0.1",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
        ),
    ],
)
async def test_no_way_of_writing_it_reaches_this_machine(host):
    async with RawServer(reply(b"secret")) as server:
        result = await fetched(url=f"http://{host}:{server.port}/", allow_private=False)
        assert result.is_error
        assert server.connections == 0


async def test_a_refusal_says_why_and_who_may_allow_it():
    result = await fetched(url="http://169.254.169.254/latest/meta-data", allow_private=False)
    assert "169.254.169.254 is not fetched: it has a link-local address" in result.text
    assert "allow_private" in result.text


async def test_a_name_with_a_private_address_is_refused():
    with pytest.raises(ToolError, match=r"inside\.example is not fetched: it has a private"):
        await Web(resolver=Names(["10.0.0.7", "::1"])).get("http://inside.example/")


async def test_a_name_is_asked_for_once_and_what_is_connected_to_is_what_was_checked():
    """DNS rebinding: a second look at the name would find this machine."""
    async with RawServer(reply(b"mine")) as server:
        there = await asyncio.start_server(_answer(b"theirs"), "127.0.0.2", server.port)
        names = Names(["127.0.0.2"], ["127.0.0.1"])
        async with there:
            answer = await Web(only_2, names).get(f"http://rebind.example:{server.port}/")
        assert answer.body == b"theirs"
        assert names.asked == ["rebind.example"]
        assert server.connections == 0


async def test_of_several_addresses_only_those_that_may_be_are_tried():
    async with RawServer(reply(b"mine")) as server:
        port = server.port  # nobody listens at 127.0.0.2
        with pytest.raises(ToolError, match="refused"):
            await Web(only_2, Names(["127.0.0.1", "127.0.0.2"])).get(f"http://both.example:{port}/")
        assert server.connections == 0


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:{port}/", "http://rebind.example:{port}/", "//127.0.0.1:{port}/"]
)
async def test_an_address_is_checked_after_each_redirect(to):
    async with RawServer(reply(b"secret")) as server:
        headers = (
            f"HTTP/1.1 302 Found\r\nLocation: {to.format(port=server.port)}\r\nContent-Length: 0\r\n\r\n"
        )
        there = await asyncio.start_server(_bytes(headers.encode()), "127.0.0.2", server.port)
        async with there:
            with pytest.raises(ToolError, match="not fetched: it has a loopback address"):
                await Web(only_2, Names(["127.0.0.2"], ["127.0.0.1"])).get(
                    f"http://rebind.example:{server.port}/"
                )
        assert server.connections == 0


def _answer(body: bytes):
    return _bytes(reply(body, "200 OK", "text/plain", close=True))


def _bytes(answer: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return serve


# -- URLs and redirects --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://host/",
            "/path",
            "host.example",
            "http://",
            "https:///x",
            "http://h:0/",
        ),
        *("http://h:99999/", "javascript:alert(1)", "data:text/plain,x", "", "http://[::1", "gopher://h/"),
    ],
)
async def test_what_is_no_url_of_the_web_is_refused(url):
    assert "cannot be fetched" in (await fetched(url=url)).text


async def test_credentials_in_a_url_are_refused_and_not_repeated():
    result = await fetched(url="http://user:hunter2@host.example/")
    assert result.is_error
    assert "hunter2" not in result.text


async def test_a_redirect_to_a_url_with_credentials_or_of_another_kind_is_refused():
    for where in ("http://user:hunter2@host.example/", "file:///etc/passwd"):
        async with RawServer(reply(b"", "302 Found", "text/plain", f"Location: {where}")) as server:
            result = await fetched(url=server.url)
        assert "redirects to an address that is not fetched" in result.text
        assert "hunter2" not in result.text


async def test_redirects_are_followed_and_reported():
    there = reply(b"found", "200 OK", "text/plain")
    async with RawServer(reply(b"", "301 Moved", "text/plain", "Location: ../b?q=1#part"), there) as server:
        result = await fetched(url=server.url)
    assert result.text == f"[redirected to http://127.0.0.1:{server.port}/b?q=1]\nfound"
    assert [each.path for each in server.received] == ["/v1", "/b?q=1"]


async def test_a_loop_of_redirects_ends():
    async with RawServer(reply(b"", "302 Found", "text/plain", "Location: /v1")) as server:
        result = await fetched(url=server.url)
    assert "redirect" in result.text
    assert result.is_error
    assert len(server.received) == MOST_REDIRECTS + 1


async def test_a_refusing_server_is_reported_by_its_status():
    async with RawServer(reply(b"no", "404 Not Found")) as server:
        result = await fetched(url=server.url)
    assert result.is_error
    assert f"{server.url} answers 404 Not Found" in result.text


async def test_a_reason_without_an_end_is_cut():
    async with RawServer(reply(b"no", "500 " + "R" * 60_000)) as server:
        assert len((await fetched(url=server.url)).text) < 1_000


async def test_nobody_there_is_reported():
    result = await fetched(url=f"http://127.0.0.1:{unused_port()}/")
    assert "connection was refused" in result.text


async def test_no_cookie_and_no_key_is_sent():
    kept = reply(b"", "302 Found", "text/plain", "Location: /b", "Set-Cookie: a=b")
    async with RawServer(kept, reply(b"x", "200 OK", "text/plain")) as server:
        await fetched(url=server.url)
    for each in server.received:
        assert not {"cookie", "authorization", "referer"} & set(each.headers)


async def test_a_page_is_fetched_by_name_though_the_threads_of_the_loop_are_all_held():
    held = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(held.wait)
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            async with RawServer(reply(b"x", "200 OK", "text/plain")) as server, asyncio.timeout(30):
                result = await fetched(url=server.url.replace("127.0.0.1", "localhost"))
        finally:
            held.set()
    assert not result.is_error
    assert result.text.endswith("x")


# -- proxies -------------------------------------------------------------------------------------------------


async def test_a_proxy_of_the_environment_is_on_the_way(environment):
    async with RawServer(reply(b"by proxy", "200 OK", "text/plain")) as proxy:
        environment.setenv("http_proxy", f"http://me:pass@127.0.0.1:{proxy.port}")
        answer = await Web(resolver=Names(["8.8.8.8"])).get("http://public.example/x")
    assert answer.body == b"by proxy"
    assert proxy.received[0].path == "http://public.example/x"
    assert proxy.received[0].headers["proxy-authorization"].startswith("Basic ")


async def test_what_is_refused_is_not_asked_of_a_proxy_either(environment):
    async with RawServer(reply(b"secret")) as proxy:
        environment.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        for url in ("http://10.0.0.1/", "http://inside.example/"):
            with pytest.raises(ToolError, match="private"):
                await Web(resolver=Names(["10.0.0.1"])).get(url)
    assert not proxy.received


async def test_a_proxy_that_is_away_is_named(environment):
    port = unused_port()
    environment.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(ToolError, match=rf"the proxy 127\.0\.0\.1:{port} for public\.example"):
        await Web(resolver=Names(["8.8.8.8"])).get("http://public.example/")


# -- bounds --------------------------------------------------------------------------------------------------


async def test_a_body_without_an_end_is_cut():
    sent = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            while True:
                await exchange.send(chunk(b"x" * 65536))
        except ConnectionError:
            sent.set()

    async with RawServer(endless) as server:
        answer = await Web(refuse_none).get(server.url)
        await sent.wait()  # the connection is closed
    assert answer.cut
    assert len(answer.body) == MOST_BYTES


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_bomb_is_cut(coding, pack):
    bomb = pack(b"x" * (MOST_BYTES * 20))
    result = await shown(bomb, "text/plain", f"Content-Encoding: {coding}", **{"as": "raw"})
    assert result.text.startswith("[only the first 5 MB were read]\nxxx")


async def test_a_packed_body_is_unpacked_to_its_end():
    text = b"".join(b"%d\n" % number for number in range(200_000))
    answer = await shown(gzip.compress(text), "text/plain", "Content-Encoding: gzip")
    assert answer.text.endswith("199999\n")


@pytest.mark.parametrize(
    ("body", "coding", "words"),
    [
        (b"x", "br", "not supported"),
        (b"x", "gzip, gzip", "not supported"),
        (b"no gzip", "gzip", "claims to be compressed"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_reported(body, coding, words):
    result = await shown(body, "text/plain", f"Content-Encoding: {coding}")
    assert result.is_error
    assert words in result.text


@pytest.mark.parametrize("kind", ["image/png", "application/pdf", "application/octet-stream", "video/mp4"])
async def test_what_is_no_text_is_refused_before_it_is_read(kind):
    async def head_alone(exchange: Exchange) -> None:
        await exchange.send(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 999\r\n\r\n".encode()
        )
        await exchange.wait_until_gone()

    async with RawServer(head_alone) as server:
        result = await fetched(url=server.url)
    assert f"is {kind}, which is not text" in result.text


async def test_bytes_that_say_nothing_of_themselves_and_are_no_text_are_refused():
    async with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na\0b") as server:
        result = await fetched(url=server.url)
    assert "is not text" in result.text


async def test_a_cancel_ends_the_connection():
    gone = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nbegun")
        await exchange.wait_until_gone()
        gone.set()

    async with RawServer(slow) as server:
        task = asyncio.create_task(fetched(url=server.url))
        await server.has_received(1)
        task.cancel()
        await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_time_out_ends_the_connection(monkeypatch):
    gone = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nbegun")
        await exchange.wait_until_gone()
        gone.set()

    (tool,) = builtin(["fetch"])
    monkeypatch.setattr(tool, "timeout", 0.1)
    async with RawServer(slow) as server:
        result = await fetched(url=server.url)
        await gone.wait()
    assert result.is_error
    assert "took too long" in result.text


async def test_an_answer_that_breaks_off_is_reported():
    async def break_off(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nbegun")
        exchange.close()

    async with RawServer(break_off) as server:
        result = await fetched(url=server.url)
    assert result.is_error
    assert "before the answer was complete" in result.text


# -- what a model sees ---------------------------------------------------------------------------------------

PAGE = b"""<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<nav><a href=/home>Home</a></nav><h1>Bees</h1><p>They <b>fly</b>, see <a href="../q?x=1">more</a>.</p>
<script>steal()</script><img alt=pic src="data:image/png;base64,AAAA">
<pre><code>a = 1</code></pre><table><tr><th>k</th></tr><tr><td>v</td></tr></table></body></html>"""


async def test_html_becomes_markdown_with_whole_links():
    async with RawServer(reply(PAGE, "200 OK", "text/html; charset=utf-8")) as server:
        text = (await fetched(url=f"{server.url}/a/b")).text
    assert text.startswith("# Bees\n\nThey **fly**, see ")
    assert f"[more](http://127.0.0.1:{server.port}/v1/q?x=1)" in text
    assert "| k |" in text
    assert "a = 1" in text
    for unwanted in ("steal", "base64", "Home", "p {}"):
        assert unwanted not in text


async def test_html_is_left_as_it_is_where_that_is_asked_for():
    assert (await shown(PAGE, "text/html", **{"as": "raw"})).text == PAGE.decode()


async def test_html_without_a_type_is_known_by_its_beginning():
    async with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE)) as server:
        assert (await fetched(url=server.url)).text.startswith("# Bees")


@pytest.mark.parametrize("nested", ["<div>", "<b>", "<ul><li>", "<blockquote>", "<table><tr><td>"])
async def test_html_that_is_nested_without_measure_ends_in_words(nested):
    result = await shown((nested * 20_000).encode() + b"x", "text/html")
    assert result.text


@pytest.mark.parametrize(
    ("page", "path"),
    [
        pytest.param(b"<blockquote>" * 200 + b"<p>a" * 100_000, "/", id="quotes"),
        pytest.param(b"<table><tr>" + b"<td>a" * 3_000 + b"<tr><td>b" * 100_000, "/", id="rows"),
        pytest.param(b"<a href=x>y</a> " * 200_000, "/" + "p" * 8_000 + "/", id="links"),
        pytest.param(b"<ul><li>" * 200 + b"<li>a" * 100_000, "/", id="lists", marks=IN_EARNEST),
        pytest.param(b"<table>" + b"<tr><td colspan=1000>a" * 200_000, "/", id="spans", marks=IN_EARNEST),
    ],
)
@pytest.mark.slow
async def test_a_page_that_grows_without_measure_as_markdown_is_cut_or_ends_in_words(page, path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with RawServer(reply(page, "200 OK", "text/html")) as server:
        result = await fetched(url=server.url + path)
    assert (
        result.text.startswith("[only the first 5 MB of the Markdown")
        or "takes too much memory or time" in result.text
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000  # KB: what it took was not taken here


async def test_a_page_is_made_markdown_by_a_child_that_ends_with_its_call(monkeypatch):
    program = Path(html.__file__).with_name("no-such-program.py")
    monkeypatch.setattr(html, "_PROGRAM", program)
    result = await shown(b"<p>hello</p>", "text/html")
    assert result.is_error
    assert 'fetch it with "as": "raw"' in result.text


async def test_json_and_other_texts_are_left_as_they_are():
    for kind in ("application/json", "application/ld+json", "text/markdown", "image/svg+xml", "text/csv"):
        assert (await shown(b'{"a": "<b>"}', kind)).text == '{"a": "<b>"}'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("Grüße".encode(), "text/plain"),
        ("Grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1"),
        ("Grüße".encode("latin-1"), "text/plain"),
        ("Grüße".encode("cp1252"), 'text/plain; charset="windows-1252"'),
        ("Grüße".encode("utf-16"), "text/plain"),
        ("Grüße".encode("utf-8-sig"), "text/plain; charset=latin-1"),
        ("Grüße".encode(), "text/plain; charset=no-such-thing"),
        ("Grüße".encode(), "text/plain; charset=punycode"),
        (b"<meta charset=iso-8859-1>Gr\xfc\xdfe", "text/html"),
        (b'<meta http-equiv=Content-Type content="text/html; charset=iso-8859-1">Gr\xfc\xdfe', "text/html"),
        ("<meta charset=utf-16>Grüße".encode(), "text/html"),
        (b'<?xml version="1.0" encoding="iso-8859-1"?><a>Gr\xfc\xdfe</a>', "application/xml"),
    ],
)
async def test_characters_are_read_in_the_encoding_that_is_named(body, kind):
    assert "Grüße" in (await shown(body, kind)).text


async def test_encodings_of_other_languages_are_read():
    for text, encoding in (
        ("日本語", "shift_jis"),
        ("中文", "gb2312"),
        ("한국어", "euc-kr"),
        ("мир", "koi8-r"),
    ):
        result = await shown(text.encode(encoding), f"text/plain; charset={encoding}")
        assert result.text == text


async def test_an_empty_answer_is_reported():
    assert "contains no text" in (await shown(b"")).text


async def test_arguments_that_do_not_fit_are_reported():
    assert "unknown argument 'form'" in (await fetched(url="http://h/", form="raw")).text
    assert "missing argument 'url'" in (await fetched()).text
    assert "Invalid enum value 'pdf'" in (await fetched(url="http://h/", **{"as": "pdf"})).text.replace(
        "invalid", "Invalid"
    )


# -- in a pod ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_manifest_says_whether_private_addresses_may_be_fetched(allowed):
    async with RawServer(reply(b"inside", "200 OK", "text/plain")) as server, PodSystem() as system:
        client = ScriptedClient([call("fetch", {"url": server.url}), say("done")])
        manifest = PodManifest.from_toml(
            f'[tools]\nbuiltin = ["fetch"]\n[fetch]\nallow_private = {str(allowed).lower()}'
        )
        pod = await system.spawn(manifest, client=client)
        await pod.run("read it")
        (result,) = [each for each in await pod.history() if isinstance(each, ToolResult)]
    assert (result.text == "inside") == allowed
    assert result.is_error != allowed


def test_a_missing_library_is_named_before_a_pod_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "html_to_markdown", None)
    with pytest.raises(ManifestError, match=r"polypod\[fetch\]"):
        builtin(["fetch"])
