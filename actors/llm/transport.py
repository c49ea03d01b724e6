"""The httpx transport that requests travel on: aiohttp's connections under httpx's requests and answers.

Imported at the first request only. It differs from ``httpx-aiohttp`` in what a thousand streams at once make
expensive or wrong: answers are read as whole network chunks, without a generator per layer; there is no limit
on connections; a certificate store is loaded for https alone; refused connections, lost connections and
time-outs are told apart; and a connection whose answer is about to end is kept for the next request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import cache

import aiohttp
import httpx
import yarl
from msgspec import Struct

from protocol.errors import ModelErrorKind

#: How long the end of an answer may lag behind its last event before its connection is given up, in seconds.
SETTLE_SECONDS = 1.0


class AiohttpBody(httpx.AsyncByteStream):
    """The body of an answer, read as it arrives; ``settling`` are those of which only the end is to come."""

    def __init__(self, response: aiohttp.ClientResponse, settling: set[AiohttpBody]) -> None:
        self._response = response
        self._settling = settling
        self._timer: asyncio.TimerHandle | None = None
        #: The bytes that are there, waiting for some where there are none; ``b""`` is the end.
        self.read = response.content.readany

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    def settle(self) -> None:
        """Let the framing's end arrive, so that the connection can be used again; close it if it does not."""
        if not self._response.closed:
            self._settling.add(self)
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.close)
            self._response.content.on_eof(self.close)

    def close(self) -> None:
        """Let go of the connection: back to the pool where the answer has ended, else closed."""
        self._settling.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    async def aclose(self) -> None:
        self.close()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A pool of connections to one server, without redirects, cookies or decoding."""

    def __init__(self, url: str, *, connect_seconds: float, proxy: str | None = None) -> None:
        secure = url.startswith("https:") or (proxy or "").startswith("https:")
        self._proxy = proxy
        self._urls: dict[httpx.URL, yarl.URL] = {}
        self._settling: set[AiohttpBody] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=certificates() if secure else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_connect=connect_seconds),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._session.request(
            request.method,
            self._url(request.url),
            headers=[
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw
            ],
            data=_payload(request.content),
            allow_redirects=False,
            proxy=self._proxy,
        )
        body = AiohttpBody(response, self._settling)
        return httpx.Response(response.status, headers=response.raw_headers, stream=body)

    async def aclose(self) -> None:
        for body in list(self._settling):
            body.close()
        await self._session.close()

    def _url(self, url: httpx.URL) -> yarl.URL:
        known = self._urls.get(url)
        if known is None:
            known = self._urls[url] = yarl.URL(str(url), encoded=True)
        return known


#: Bytes handed to a connection at a time; aiohttp warns of more than a megabyte at once.
_SLICE = 256 * 1024


def _payload(content: bytes) -> bytes | AsyncIterator[bytes] | None:
    if len(content) <= _SLICE:
        return content or None
    return _slices(content)


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    """A long body in pieces, so that the loop gets its turns while it is sent."""
    for start in range(0, len(content), _SLICE):
        yield content[start : start + _SLICE]


@cache
def certificates() -> ssl.SSLContext:
    """The certificate store, loaded once (20 ms)."""
    return httpx.create_ssl_context()


class Trouble(Struct, frozen=True):
    """What a failure of the network means, in our words; ``hint`` is None where the usual one fits."""

    kind: ModelErrorKind
    words: str
    hint: str | None = None
    retryable: bool | None = None


def explained(error: Exception) -> Trouble:
    """What an error of aiohttp, httpx or the system means; anything else is a defect and is raised again."""
    for kinds, trouble in _TROUBLES:
        if isinstance(error, kinds):
            return trouble(error)
    raise error


def was_kept_too_long(error: Exception) -> bool:
    """Whether a connection was closed on us before any of the answer came, as idle ones are."""
    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError, aiohttp.ClientOSError)
    never_made = (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)
    return isinstance(error, lost) and not isinstance(error, never_made)


def _untrusted(error: Exception) -> Trouble:
    words = f"its certificate is not trusted: {getattr(error, 'certificate_error', None) or error}"
    hint = "set SSL_CERT_FILE to the certificates that you trust"
    return Trouble("connection", words, hint, retryable=False)


def _no_tls(error: Exception) -> Trouble:
    words = f"no secure connection could be made: {getattr(error, 'os_error', None) or error}"
    return Trouble("connection", words, "look whether base_url should begin with http:", retryable=False)


def _unresolved(_: Exception) -> Trouble:
    return Trouble("connection", "no such host can be found", "check the host in base_url, and the network")


def _unreached(error: Exception) -> Trouble:
    cause = getattr(error, "os_error", None) or error.__cause__ or error
    if isinstance(cause, ConnectionRefusedError):
        return Trouble("connection", "nothing answers there: the connection was refused")
    return Trouble("connection", f"cannot be reached: {getattr(cause, 'strerror', None) or cause}")


def _slow_to_reach(_: Exception) -> Trouble:
    return Trouble("connection", "cannot be reached: no connection was made in time")


def _lost(_: Exception) -> Trouble:
    hint = "the server stopped or a proxy gave up: its log may say why"
    return Trouble("connection", "the connection was lost before the answer was complete", hint)


def _slow(_: Exception) -> Trouble:
    return Trouble("timeout", "took too long to answer", "use a smaller model, or longer time-outs")


def _no_http(error: Exception) -> Trouble:
    words = f"does not answer in HTTP: {' '.join(str(getattr(error, 'message', error)).split())[:200]}"
    return Trouble("protocol", words, "check the port, and whether base_url should begin with https:")


def _no_url(error: Exception) -> Trouble:
    return Trouble("invalid_request", f"is no usable address: {error}", "check base_url")


#: The first that fits; kinds of errors before the kinds they are kinds of.
_TROUBLES: tuple[tuple[tuple[type[Exception], ...], Callable[[Exception], Trouble]], ...] = (
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), _untrusted),
    ((aiohttp.ClientConnectorSSLError, ssl.SSLError), _no_tls),
    ((aiohttp.ClientConnectorDNSError,), _unresolved),
    ((aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, httpx.PoolTimeout), _slow_to_reach),
    ((aiohttp.ClientConnectorError, httpx.ConnectError, httpx.ProxyError), _unreached),
    ((aiohttp.ServerTimeoutError, httpx.TimeoutException, TimeoutError), _slow),
    ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol), _no_url),
    ((aiohttp.ClientResponseError,), _no_http),
    ((aiohttp.ClientError, httpx.NetworkError, httpx.ProtocolError, httpx.StreamError, OSError), _lost),
    ((httpx.DecodingError,), _no_http),
)
