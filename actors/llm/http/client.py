"""HTTP to model servers: lazily built connections, time-outs that fit streams, every failure translated.

Importing this costs nothing: httpx and aiohttp come with the first request.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from actors.llm.address import secrets_in
from actors.llm.http.endpoint import COOLDOWN, MAX_STREAMS, Endpoint
from actors.llm.http.rate import RateLimits, RateWindow
from actors.llm.http.stream_timeout import Watch
from actors.net.encodings import unpacking
from actors.net.failures import NetworkFailure, TransportError
from actors.net.proxies import PROXY_WANTS, PROXY_WANTS_HINT, PROXY_WANTS_KEY, proxy_for, where_of
from protocol.errors import ModelError

#: What a request says of who sends it.
USER_AGENT = "polypod"
#: The most of an answer that is read, streamed or not, in bytes; more no model says.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: The most of a refusal's body that is read, in bytes.
MAX_REFUSAL_BYTES = 64 * 1024
#: From how many characters on a header may be a key, and one that holds keys does.
_KEY_LENGTH = 12
_SHORT_KEY_LENGTH = 6
#: Headers that hold keys, in lower case.
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})


class Timeouts(Struct, frozen=True):
    """How long a server may take, in seconds: to be reached, to its first byte, and between bytes.

    There is none for a whole answer. Servers send no byte at all while a request waits for a slot, so the
    first is generous; comments count as bytes.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 120.0


class HttpSettings(Struct, frozen=True):
    """What holds for all connections of a system: time-outs, how many answers of one server may be under way
    at once, how long (in seconds) a server that failed time after time is left alone, and what makes the
    httpx transport for a base URL (None: ours).
    """

    timeouts: Timeouts = Timeouts()
    streams: int = MAX_STREAMS
    cooldown: float = COOLDOWN
    transport: Callable[[str], Any] | None = None


class Response(Protocol):
    """What a transport gives for a request. ``read`` gives the bytes that are there, waiting for some where
    there are none, packed as ``coding`` says; ``b""`` is the end. Where there is a ``pour`` besides, it hands
    the same to a function, as ``direct.Answer`` says.
    """

    status: int
    coding: str

    @property
    def headers(self) -> Mapping[str, str]: ...

    def read(self) -> Awaitable[bytes]: ...

    def settle(self) -> bool:
        """Keep the connection for the next request, if it can be: the answer is complete."""
        ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """What carries requests to one server; its errors are those that ``transport.explained`` knows."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response: ...

    async def aclose(self) -> None: ...


class Reply:
    """A server's answer: its status and headers, and its body as it arrives.

    ``settle`` or ``aclose`` ends it. ``patience`` is how long the next read may take, in seconds.
    """

    def __init__(self, peer: Peer, response: Response, watch: Watch, deadline: float | None) -> None:
        self.status = response.status
        self.patience = peer.timeouts.first_byte
        self._idle = peer.timeouts.idle
        self._peer = peer
        self._response = response
        self._watch = watch
        self._deadline = deadline
        self._next = unpacking(response.read, response.coding)
        pour = None if response.coding else getattr(response, "pour", None)
        self._pour: Callable[[Callable[[bytes], bool]], Awaitable[None]] | None = pour
        self._room = MAX_ANSWER_BYTES
        self._settled = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by names in any case."""
        return self._response.headers

    async def read(self) -> bytes:
        """The bytes that are there, waiting for some where there are none; ``b""`` is the end.

        Raises ModelError: ``timeout``, ``connection`` where the answer was cut, ``protocol`` where it never
        ends or is packed in a way that cannot be read.
        """
        seconds = self.patience
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        watch = self._watch
        watch.begin(seconds)  # and not `over`: this comes with every chunk
        try:
            data = await self._next()
        except asyncio.CancelledError:
            if watch.has_rung():
                raise self._peer.translated(TimeoutError(), seconds, self._deadline) from None
            raise
        except Exception as error:
            raise self._peer.translated(error, seconds, self._deadline) from error
        finally:
            watch.end()
        self.patience = self._idle
        self._room -= len(data)
        if self._room < 0:
            raise self._peer.endless()
        return data

    async def pour(self, take: Callable[[bytes], bool]) -> ModelError | None:
        """Hand over the body as it comes, ``b""`` being its end, until ``take`` has enough: as ``read`` time
        and again, but without a wait for each piece where the transport can do that. ``take`` may be called
        outside of any task, and sets ``patience`` for what follows.

        Gives back the error that ``read`` would raise; raises what ``take`` raises.
        """
        if self._pour is None:
            return await self._read_into(take)
        watch, seconds, deadline = self._watch, self.patience, self._deadline
        latest = math.inf
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
            latest = asyncio.get_running_loop().time() + deadline - time.monotonic()
        broke: BaseException | None = None

        def arrive(data: bytes) -> bool:
            nonlocal broke
            self.patience = self._idle
            self._room -= len(data)
            try:
                if self._room < 0:
                    raise self._peer.endless()  # noqa: TRY301 - to be raised where it is waited for
                enough = take(data)
            except BaseException as error:  # noqa: BLE001 - as any other
                broke = error
                return True
            watch.prolong(self.patience, latest)
            return enough

        watch.begin(seconds)
        try:
            await self._pour(arrive)
        except asyncio.CancelledError:
            if watch.has_rung():
                return self._peer.translated(TimeoutError(), self.patience, deadline)
            raise
        except Exception as error:  # noqa: BLE001 - a defect is raised again
            failure = self._peer.translated(error, self.patience, deadline)
            failure.__cause__ = error
            return failure
        finally:
            watch.end()
        if broke is not None:
            raise broke
        return None

    async def _read_into(self, take: Callable[[bytes], bool]) -> ModelError | None:
        enough = False
        while not enough:
            try:
                data = await self.read()
            except ModelError as error:
                return error
            enough = take(data) or not data
        return None

    async def read_all(self, limit: int = MAX_ANSWER_BYTES, *, begun: bytes = b"") -> bytes:
        """The whole body (behind ``begun``), cut at ``limit`` bytes. Raises ModelError as ``read`` does."""
        pieces, size = [begun], len(begun)
        while size < limit and (data := await self.read()):
            pieces.append(data)
            size += len(data)
        return b"".join(pieces)[:limit]

    def settle(self) -> None:
        """The answer is complete: keep the connection for the next request if its end is near."""
        self._settled = self._response.settle()

    async def aclose(self) -> None:
        """Let go of the answer and, unless it has come to its end, of its connection."""
        self._watch.stop()
        if self._settled:
            return
        try:
            await self._response.aclose()
        except Exception as error:  # noqa: BLE001 - a defect is raised again, the network's failures are over
            _explained(error)


class Peer:
    """One server as one key sees it, on one event loop: connections, door, and what was learnt of it."""

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
        self._start_command = start_command
        self._headers = {**headers, "user-agent": USER_AGENT, "accept-encoding": "identity"}
        self._headers_of_json = {**self._headers, "content-type": "application/json"}
        self._make_transport = settings.transport
        self._proxy: str | None = None
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
        """A body in which a server repeats no key of ours."""
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
                raise self.translated(error, seconds, deadline) from error
            raise
        self._answered = True
        return Reply(self, response, watch, deadline)

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
                    await asyncio.to_thread(_load, secure=self.base_url.startswith("https:"))
                self._transport = self._built()
            return self._transport

    def _needs_time_to_load(self) -> bool:
        plain = self._make_transport is None and not self.base_url.startswith("https:")
        return not plain or (proxy_for(self.base_url) is not None and _AIOHTTP not in sys.modules)

    def _built(self) -> Transport:
        if self._make_transport is not None:
            from actors.llm.http.httpx_transport import HttpxTransport  # noqa: PLC0415 - at the first request

            return HttpxTransport(self._make_transport(self.base_url))
        self._proxy = proxy_for(self.base_url)
        if self._proxy is None:
            from actors.llm.http.direct import DirectTransport  # noqa: PLC0415 - at the first request

            return DirectTransport(self.base_url, connect_seconds=self.timeouts.connect)
        from actors.llm.http.transport import AiohttpTransport  # noqa: PLC0415 - where it is needed

        return AiohttpTransport(self.base_url, connect_seconds=self.timeouts.connect, proxy=self._proxy)

    def translated(self, error: Exception, seconds: float, deadline: float | None) -> ModelError:
        """The ModelError that a failure of the network means; ``seconds`` is what the wait was given."""
        if isinstance(error, ModelError):
            return error
        if type(error) is TimeoutError:
            return self._late(seconds, deadline)
        if type(error) is ValueError:
            hint = "look at what the server or a proxy before it does to answers"
            return ModelError(f"{self.where} sent {error}", kind="protocol", hint=hint, where=self.where)
        failure = _explained(error)
        words, hint = failure.words, failure.hint or self._reach_hint()
        if failure.connecting and self._proxy is not None:
            words, hint = self._blamed(error, failure)
        return ModelError(
            f"{self.where}: {words}",
            kind=failure.kind,
            hint=hint,
            where=self.where,
            retryable=failure.retryable,
        )

    def _blamed(self, error: Exception, failure: NetworkFailure) -> tuple[str, str]:
        """The words and the hint of a failure to connect with a proxy on the way."""
        from actors.net.aiohttp_failures import is_of  # noqa: PLC0415 - loaded by now

        assert self._proxy is not None
        proxy = where_of(self._proxy)
        host = urlsplit(self.base_url).hostname
        hint = f"look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or add {host} to NO_PROXY"
        parts = urlsplit(self._proxy)
        if is_of(error, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)):
            return f"the proxy {proxy} on the way there: {failure.words}", failure.hint or hint
        return f"{failure.words} (through the proxy {proxy})", failure.hint or hint

    def proxy_wants_key(self) -> ModelError | None:
        """The error of a proxy that asks for credentials; None where there is no proxy."""
        if self._proxy is None:
            return None
        return ModelError(
            f"{self.where}: the proxy {where_of(self._proxy)} on the way there: {PROXY_WANTS}",
            kind="auth",
            hint=PROXY_WANTS_HINT,
            status=PROXY_WANTS_KEY,
            where=self.where,
        )

    def endless(self) -> ModelError:
        """The error of an answer that is larger than any."""
        return ModelError(
            f"{self.where} sent more than {MAX_ANSWER_BYTES // 2**20} MB and did not stop",
            kind="protocol",
            hint="the server may not heed max_tokens, or the model repeats itself",
            where=self.where,
            retryable=False,
        )

    def _late(self, seconds: float, deadline: float | None) -> ModelError:
        if deadline is not None and time.monotonic() >= deadline:
            return ModelError(
                f"{self.where}: the run's time is up before the answer was complete",
                kind="timeout",
                where=self.where,
                retryable=False,
            )
        return ModelError(
            f"{self.where} sent nothing for {seconds:g} s",
            kind="timeout",
            hint="local inference can be slow: use a smaller model, or longer time-outs",
            where=self.where,
        )

    def _reach_hint(self) -> str:
        start = f" Start it with: {self._start_command}" if self._start_command else ""
        parts = urlsplit(self.base_url)
        return f"is the server running at {parts.scheme}://{self.where}{parts.path}?{start}"


_AIOHTTP = "actors.llm.http.transport"


def _explained(error: Exception) -> NetworkFailure:
    """What a failure of a transport means; anything else is a defect and is raised again."""
    if isinstance(error, TransportError):
        return error.failure
    from actors.net.aiohttp_failures import explained  # noqa: PLC0415 - loaded by now, or a defect

    return explained(error)


def _was_kept_too_long(error: Exception) -> bool:
    """Whether a connection was closed on us before any of the answer came, as idle ones are."""
    if isinstance(error, TransportError):
        return error.unanswered
    from actors.net.aiohttp_failures import was_kept_too_long  # noqa: PLC0415 - loaded by now, or a defect

    return was_kept_too_long(error)


def _load(*, secure: bool) -> None:
    """Import what requests need, off the loop: it takes a fifth of a second, once."""
    from actors.llm.http import transport  # noqa: F401, PLC0415 - that is the point
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
