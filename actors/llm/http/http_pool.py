"""``HttpPool``: the connections of one system to model servers, each server and key a ``Peer``, lazily built.

Importing this costs nothing: httpx and aiohttp come with the first request.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from actors.llm.address import secrets_in
from actors.llm.http.contract import HttpSettings, Response, Timeouts, Transport
from actors.llm.http.endpoint import Endpoint
from actors.llm.http.rate import RateLimits, RateWindow
from actors.llm.http.reply import Reply
from actors.llm.http.server_failures import ServerFailures
from actors.llm.http.stream_timeout import Watch
from actors.net.failures import TransportError
from actors.net.proxies import proxy_for, where_of
from actors.runtime.in_thread import in_thread
from protocol.errors import ModelError

#: What a request says of who sends it.
USER_AGENT = "polypod"
#: The most of a refusal's body that is read, in bytes.
MAX_REFUSAL_BYTES = 64 * 1024
#: From how many characters on a header may be a key, and one that holds keys does.
_KEY_LENGTH = 12
_SHORT_KEY_LENGTH = 6
#: Headers that hold keys, in lower case.
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})


class Peer:
    """One server as one key sees it, on one event loop: its connections, its endpoint, and what was learnt
    about it.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        settings: HttpSettings,
        *,
        start_command: str | None,
        timeouts: Timeouts | None = None,
        rate: RateWindow | None = None,
    ) -> None:
        self.base_url = base_url
        self.where = where_of(base_url)
        self.timeouts = timeouts or settings.timeouts
        self.endpoint = Endpoint(self.where, streams=settings.streams, cooldown=settings.cooldown, rate=rate)
        #: What clients have learnt of this server, by names of their own.
        self.learnt: dict[str, Any] = {}
        self.failures = ServerFailures(base_url, start_command)
        self._headers = {**headers, "user-agent": USER_AGENT, "accept-encoding": "identity"}
        self._headers_of_json = {**self._headers, "content-type": "application/json"}
        self._make_transport = settings.transport
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._answered = False

    def __repr__(self) -> str:
        return f"<Peer {self.base_url}, {self.endpoint!r}>"

    async def post(self, path: str, body: bytes, *, deadline: float | None = None) -> Reply:
        """Send JSON and wait for the head of the answer. Raises ModelError.

        ``deadline`` (``time.monotonic()`` seconds) bounds the whole answer.
        """
        return await self._send("POST", path, body, deadline)

    async def get(self, path: str, *, deadline: float | None = None) -> Reply:
        """Ask for something and wait for the head of the answer. Raises ModelError."""
        return await self._send("GET", path, b"", deadline)

    @property
    def has_key(self) -> bool:
        """Whether requests have a key, or a user and a password."""
        return any(name.lower() in _KEY_HEADERS for name in self._headers)

    def without_secrets(self, body: bytes) -> bytes:
        """A body of a server, with any key of ours in it removed."""
        for name, value in self._headers.items():
            least = _SHORT_KEY_LENGTH if name.lower() in _KEY_HEADERS else _KEY_LENGTH
            for secret in secrets_in([value]):
                if len(secret) >= least:
                    body = re.sub(rb"(?<![\w-])%b(?![\w-])" % re.escape(secret), "…".encode(), body)
        return body

    async def aclose(self) -> None:
        """Close all connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _send(self, method: str, path: str, body: bytes, deadline: float | None) -> Reply:
        transport = self._transport or await self._open_named()
        watch = Watch()
        seconds = self.timeouts.first_byte
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
        try:
            response = await watch.over(self._answer(transport, method, path, body), seconds)
        except BaseException as error:
            watch.stop()
            if isinstance(error, Exception):
                raise self.failures.translated(error, seconds, deadline) from error
            raise
        self._answered = True
        return Reply(response, watch, self.timeouts, self.failures, deadline)

    async def _answer(self, transport: Transport, method: str, path: str, body: bytes) -> Response:
        url = self.base_url + path
        headers = self._headers_of_json if method == "POST" else self._headers
        try:
            return await transport.send(method, url, headers, body)
        except Exception as error:
            if not (self._answered and _was_kept_too_long(error)):
                raise
        # the server closed an idle connection just as we used it; nothing of the request was answered
        return await transport.send(method, url, headers, body)

    async def _open_named(self) -> Transport:
        try:
            return await self._open()
        except ModelError as error:
            if error.where is None:
                raise ModelError(
                    f"{self.where}: {error.message}",
                    kind=error.kind,
                    hint=error.hint,
                    where=self.where,
                    retryable=error.retryable,
                ) from error
            raise

    async def _open(self) -> Transport:
        async with self._opening:
            if self._transport is None:
                if self._needs_time_to_load():
                    await in_thread(_load, secure=self.base_url.startswith("https:"))
                self._transport = self._build_transport()
            return self._transport

    def _needs_time_to_load(self) -> bool:
        plain = self._make_transport is None and not self.base_url.startswith("https:")
        return not plain or (proxy_for(self.base_url) is not None and _AIOHTTP not in sys.modules)

    def _build_transport(self) -> Transport:
        if self._make_transport is not None:
            from actors.llm.http.httpx_transport import HttpxTransport  # noqa: PLC0415 - at the first request

            return HttpxTransport(self._make_transport(self.base_url))
        proxy = self.failures.proxy = proxy_for(self.base_url)
        if proxy is None:
            from actors.llm.http.direct_transport import DirectTransport  # noqa: PLC0415 - at the first request

            return DirectTransport(self.base_url, connect_seconds=self.timeouts.connect)
        from actors.llm.http.aiohttp_transport import AiohttpTransport  # noqa: PLC0415 - where it is needed

        return AiohttpTransport(self.base_url, connect_seconds=self.timeouts.connect, proxy=proxy)


_AIOHTTP = "actors.llm.http.aiohttp_transport"


def _was_kept_too_long(error: Exception) -> bool:
    """Whether a connection was closed on us before any of the answer came, as idle ones are."""
    if isinstance(error, TransportError):
        return error.unanswered
    from actors.net.aiohttp_failures import was_kept_too_long  # noqa: PLC0415 - loaded by now, or a defect

    return was_kept_too_long(error)


def _load(*, secure: bool) -> None:
    """Import what requests need, off the loop: it takes a fifth of a second, once."""
    from actors.llm.http import aiohttp_transport  # noqa: F401, PLC0415 - that is the point
    from actors.net.certificates import certificates  # noqa: PLC0415

    if secure:
        certificates()


_PeerKey = tuple[
    asyncio.AbstractEventLoop, str, tuple[tuple[str, str], ...], Timeouts | None, RateLimits | None
]


class HttpPool:
    """The connections of one system: a Peer for each base URL, key and event loop."""

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self._settings = settings or HttpSettings()
        self._peers: dict[_PeerKey, Peer] = {}
        #: Of servers that take so much in a minute, by loop, address, key and limits.
        self._rates: dict[tuple[Any, ...], RateWindow] = {}

    def peer(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        start_command: str | None = None,
        timeouts: Timeouts | None = None,
        limits: RateLimits | None = None,
    ) -> Peer:
        """The peer at ``base_url`` for these headers (which hold the key), on the running loop. Those of one
        server and key that have the same ``limits`` share what it takes in a minute.
        """
        key = (asyncio.get_running_loop(), base_url, tuple((headers or {}).items()), timeouts, limits)
        known = self._peers.get(key)
        if known is None:
            self._forget_closed_loops()
            known = self._peers[key] = Peer(
                base_url,
                headers or {},
                self._settings,
                start_command=start_command,
                timeouts=timeouts,
                rate=None if limits is None else self._rate(base_url, headers or {}, limits),
            )
        return known

    def _rate(self, base_url: str, headers: Mapping[str, str], limits: RateLimits) -> RateWindow:
        keys = tuple((name, value) for name, value in headers.items() if name.lower() in _KEY_HEADERS)
        return self._rates.setdefault(
            (asyncio.get_running_loop(), where_of(base_url), keys, limits), RateWindow(limits)
        )

    async def aclose(self) -> None:
        """Close all connections of the running loop; the pool can be used again."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._peers if key[0] is loop]:
            await self._peers.pop(key).aclose()
        self._forget_closed_loops()

    def _forget_closed_loops(self) -> None:
        """Drop what belonged to loops that are gone; there is nothing left to wait for."""
        for key in [key for key in self._peers if key[0].is_closed()]:
            closing = self._peers.pop(key).aclose()
            try:
                closing.send(None)
            except StopIteration:
                continue
            closing.close()
        for lost in [key for key in self._rates if key[0].is_closed()]:
            del self._rates[lost]
