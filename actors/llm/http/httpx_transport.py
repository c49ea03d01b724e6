"""An httpx transport in place of polypod's own, if ``HttpSettings.transport`` makes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import httpx

from actors.net.encodings import coding_of


class HttpxTransport:
    """An ``http.Transport`` over an httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> HttpxResponse:
        request = httpx.Request(method, url, headers=headers, content=body or None)
        return HttpxResponse(await self._transport.handle_async_request(request))

    async def aclose(self) -> None:
        await self._transport.aclose()


class HttpxResponse:
    """An ``http.Response`` over an httpx response."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        whole = response.is_stream_consumed  # and unpacked
        self.coding = "" if whole else coding_of(response.headers.get("content-encoding"))
        pieces = response.aiter_bytes() if whole else response.aiter_raw()
        self.read: Callable[[], Awaitable[bytes]] = lambda: anext(pieces, b"")

    def settle(self) -> bool:
        return False

    async def aclose(self) -> None:
        await self._response.aclose()
