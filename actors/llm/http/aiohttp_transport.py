"""The transport of requests that go through a proxy: aiohttp's connections.

Imported where a proxy stands on the way. It differs from httpx's transports, and from ``httpx-aiohttp``, in
what a thousand streams at once make expensive or wrong: answers are read as whole network chunks, without a
generator per layer; there is no limit on connections; a certificate store is loaded for https alone; refused
connections, lost connections and time-outs are distinct errors; and a connection whose answer is about to
end is kept for the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from inspect import signature
from typing import Any

import aiohttp
import httpx
import yarl

from actors.net.certificates import certificates
from actors.net.encodings import coding_of
from actors.net.failures import MAX_HEADER_BYTES, MAX_HEADERS
from actors.net.proxies import route_through
from actors.net.resolver import Resolver
from actors.runtime.in_thread import in_thread

_MORE_HEADERS: dict[str, Any] = (
    {"max_headers": MAX_HEADERS} if "max_headers" in signature(aiohttp.ClientSession).parameters else {}
)
#: How long the end of an answer may lag behind its last event before its connection is given up, in seconds.
SETTLE_SECONDS = 1.0


class AiohttpResponse:
    """An answer, read as it arrives; ``settling`` are those of which only the end is to come."""

    def __init__(self, response: aiohttp.ClientResponse, settling: set[AiohttpResponse]) -> None:
        self.status = response.status
        self.coding = coding_of(", ".join(response.headers.getall("content-encoding", ())))
        self._response = response
        self._settling = settling
        self._timer: asyncio.TimerHandle | None = None
        #: The bytes that are there, waiting for some where there are none; ``b""`` is the end.
        self.read: Callable[[], Awaitable[bytes]] = response.content.readany

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, decoded where they are asked for."""
        return httpx.Headers(self._response.raw_headers)

    def settle(self) -> bool:
        """Let the framing's end arrive, so that the connection can be used again; close it if it does not."""
        if not self._response.closed:
            self._settling.add(self)
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.close)
            self._response.content.on_eof(self.close)
        return True

    def close(self) -> None:
        """Let go of the connection: back to the pool where the answer has ended, else closed."""
        self._settling.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    async def aclose(self) -> None:
        self.close()


class AiohttpTransport:
    """A pool of connections to one server, without redirects, cookies or decoding."""

    def __init__(self, url: str, *, connect_seconds: float, proxy: str | None = None) -> None:
        secure = url.startswith("https:") or (proxy or "").startswith("https:")
        self._route = None if proxy is None else route_through(proxy, url)
        self._urls: dict[str, yarl.URL] = {}
        self._settling: set[AiohttpResponse] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=Resolver(in_thread), ssl=certificates() if secure else True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_connect=connect_seconds),
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            **_MORE_HEADERS,
        )

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> AiohttpResponse:
        data: bytes | AsyncIterator[bytes] | None = body or None
        route = self._route
        if route is not None and route.request_headers:
            headers = {**headers, **route.request_headers}
        if len(body) > _SLICE:
            data, headers = _slices(body), {**headers, "content-length": str(len(body))}
        response = await self._session.request(
            method,
            self._url(url),
            headers=headers,
            data=data,
            allow_redirects=False,
            proxy=None if route is None else route.url,
            proxy_headers=None if route is None else route.tunnel_headers,
        )
        return AiohttpResponse(response, self._settling)

    async def aclose(self) -> None:
        for response in list(self._settling):
            response.close()
        await self._session.close()

    def _url(self, url: str) -> yarl.URL:
        known = self._urls.get(url)
        if known is None:
            known = self._urls[url] = yarl.URL(str(httpx.URL(url)), encoded=True)
        return known


#: Bytes handed to a connection at a time; aiohttp warns of more than a megabyte at once.
_SLICE = 256 * 1024


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    """A long body in pieces, so that the loop gets its turns while it is sent."""
    for start in range(0, len(content), _SLICE):
        yield content[start : start + _SLICE]
