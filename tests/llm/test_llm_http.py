"""HTTP's edges: addresses, proxies, and time-outs that interrupt nothing but a wait."""

import asyncio
import ssl

import aiohttp
import httpx
import pytest
from stepped_loop import SteppedLoop, idle, run_stepped

from actors.llm.address import base_url_of
from actors.llm.http.http_pool import HttpPool
from actors.llm.http.stream_timeout import Watch
from actors.net.aiohttp_failures import explained
from actors.net.proxies import is_loopback, proxy_for, where_of
from protocol.errors import ModelError


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
        ("https://api.openai.com/v1", "api.openai.com:443"),
        ("http://user:secret@host/v1", "host:80"),
        ("http://[::1]:8080/v1", "[::1]:8080"),
    ],
)
def test_a_place_is_a_host_and_a_port_and_no_secret(url, where):
    assert where_of(url) == where
    assert base_url_of(url + "/") == url


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "models.localhost"])
def test_a_proxy_never_stands_before_this_machine(host, environment):
    environment.setenv("http_proxy", "http://proxy:3128")
    shown = f"[{host}]" if ":" in host else host
    assert is_loopback(host)
    assert proxy_for(f"http://{shown}:8080/v1") is None


def test_a_proxy_of_the_environment_stands_before_other_hosts(environment):
    environment.setenv("https_proxy", "proxy:3128")
    environment.setenv("no_proxy", "inside.example")
    assert proxy_for("https://api.openai.com/v1") == "http://proxy:3128"
    assert proxy_for("http://api.openai.com/v1") is None
    assert proxy_for("https://inside.example/v1") is None


def test_a_proxy_of_another_kind_is_a_clear_error(environment):
    environment.setenv("all_proxy", "socks5://user:secret@proxy:1080")
    with pytest.raises(ModelError, match="not an HTTP proxy") as caught:
        proxy_for("https://api.openai.com/v1")
    assert "secret" not in str(caught.value)
    assert not caught.value.retryable


def test_a_watch_interrupts_a_wait_that_takes_too_long_and_no_other():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        watch, free = Watch(), asyncio.Event()

        async def waits() -> str:
            assert await watch.over(asyncio.sleep(0, "a"), 10) == "a"
            await free.wait()  # not a wait that is watched, however long it takes
            return await watch.over(asyncio.sleep(0, "b"), 10)

        task = asyncio.create_task(waits())
        await idle()
        loop.step(100)
        await idle()
        free.set()
        assert await task == "b"

        late = asyncio.create_task(watch.over(asyncio.Event().wait(), 10))
        await idle()
        loop.step(11)
        with pytest.raises(TimeoutError):
            await late
        watch.stop()

    run_stepped(main())


def test_a_watch_takes_a_shorter_time_behind_a_longer_one():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        watch = Watch()
        await watch.over(asyncio.sleep(0), 600)
        task = asyncio.create_task(watch.over(asyncio.Event().wait(), 5))
        await idle()
        loop.step(6)
        with pytest.raises(TimeoutError):
            await task
        watch.stop()

    run_stepped(main())


def test_a_task_that_is_cancelled_while_it_is_watched_is_cancelled_and_not_late():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        watch = Watch()
        task = asyncio.create_task(watch.over(asyncio.Event().wait(), 5))
        await idle()
        loop.step(6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        watch.stop()

    run_stepped(main())


async def test_the_same_server_and_key_share_their_connections_and_others_do_not():
    pool = HttpPool()
    first = pool.peer("http://127.0.0.1:1/v1", {"authorization": "Bearer a"})
    assert pool.peer("http://127.0.0.1:1/v1", {"authorization": "Bearer a"}) is first
    assert pool.peer("http://127.0.0.1:1/v1", {"authorization": "Bearer b"}) is not first
    assert "Bearer" not in repr(first)
    await pool.aclose()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("x"), "connection"),
        (httpx.ConnectTimeout("x"), "connection"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ReadError("x"), "connection"),
        (httpx.RemoteProtocolError("x"), "connection"),
        (httpx.UnsupportedProtocol("x"), "invalid_request"),
        (httpx.DecodingError("x"), "protocol"),
        (aiohttp.ServerDisconnectedError(), "connection"),
        (aiohttp.ConnectionTimeoutError(), "connection"),
        (aiohttp.ClientPayloadError("x"), "connection"),
        (aiohttp.InvalidURL("x"), "invalid_request"),
        (ConnectionResetError(), "connection"),
        (ssl.SSLCertVerificationError("x"), "connection"),
    ],
)
def test_every_error_of_the_network_has_a_kind(error, kind):
    assert explained(error).kind == kind


def test_a_defect_is_not_taken_for_an_error_of_the_network():
    with pytest.raises(KeyError):
        explained(KeyError("x"))
