"""HTTP to model servers: lazily built connections, time-outs that fit streams, every failure translated.

Importing this costs nothing: httpx and aiohttp come with the first request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from actors.llm.endpoint import MAX_STREAMS, Endpoint
from protocol.errors import ModelError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

#: What a request says of who sends it.
USER_AGENT = "polypod"
#: The most of a whole answer that is read, in bytes.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: The most of a refusal's body that is read, in bytes.
MAX_REFUSAL_BYTES = 64 * 1024


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
    at once, and what makes the httpx transport for a base URL (None: ours, over aiohttp).
    """

    timeouts: Timeouts = Timeouts()
    streams: int = MAX_STREAMS
    transport: Callable[[str], Any] | None = None


class Watch:
    """A time-out on what one task waits for, without a timer per wait.

    The timer is set once and looks, when it rings, how long the wait under way has lasted; it interrupts
    nothing but that wait.
    """

    __slots__ = ("_cancelling", "_due", "_loop", "_rang", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._due = 0.0
        self._rang = False

    async def over(self, waiting: Awaitable[T], seconds: float) -> T:
        """What ``waiting`` gives; raises TimeoutError after ``seconds``."""
        task = self._task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        due = self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            self._set(due)
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._rang and task.uncancel() <= self._cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def stop(self) -> None:
        """No more waits: let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits; the next wait sets the timer anew
        if self._loop.time() < self._due:
            self._set(self._due)
        else:
            self._rang = True
            self._task.cancel()


class Reply:
    """A server's answer: its status and headers, and its body as it arrives.

    ``settle`` or ``aclose`` ends it. ``patience`` is how long the next read may take, in seconds.
    """

    def __init__(self, peer: Peer, response: httpx.Response, watch: Watch, deadline: float | None) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.patience = peer.timeouts.first_byte
        self._peer = peer
        self._response = response
        self._watch = watch
        self._deadline = deadline
        self._next = _reader(response)
        self._settled = False

    async def read(self) -> bytes:
        """The bytes that are there, waiting for some where there are none; ``b""`` is the end.

        Raises ModelError: ``timeout``, or ``connection`` where the answer was cut.
        """
        seconds = self.patience
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        try:
            data = await self._watch.over(self._next(), seconds)
        except Exception as error:
            raise self._peer.translated(error, seconds, self._deadline) from error
        self.patience = self._peer.timeouts.idle
        return data

    async def read_all(self, limit: int = MAX_ANSWER_BYTES, *, begun: bytes = b"") -> bytes:
        """The whole body (behind ``begun``), cut at ``limit`` bytes."""
        pieces, size = [begun], len(begun)
        while size < limit and (data := await self.read()):
            pieces.append(data)
            size += len(data)
        return b"".join(pieces)[:limit]

    def settle(self) -> None:
        """The answer is complete: keep the connection for the next request if its end is near."""
        settle = getattr(self._response.stream, "settle", None)
        if settle is not None:
            settle()
            self._settled = True

    async def aclose(self) -> None:
        """Let go of the answer and, unless it has come to its end, of its connection."""
        self._watch.stop()
        if self._settled:
            return
        try:
            await self._response.aclose()
        except Exception as error:
            raise self._peer.translated(error, 0.0, None) from error


def _reader(response: httpx.Response) -> Callable[[], Awaitable[bytes]]:
    """What gives the next bytes of a body: our own transport's at once, others' (or packed ones) by httpx."""
    read: Callable[[], Awaitable[bytes]] | None = getattr(response.stream, "read", None)
    if read is not None and "content-encoding" not in response.headers:
        return read
    pieces = response.aiter_bytes()
    return lambda: anext(pieces, b"")


class Peer:
    """One server as one key sees it, on one event loop: connections, door, and what was learnt of it."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        settings: HttpSettings,
        *,
        start_command: str | None,
    ) -> None:
        self.base_url = base_url
        self.where = where_of(base_url)
        self.timeouts = settings.timeouts
        self.endpoint = Endpoint(self.where, streams=settings.streams)
        #: What clients have learnt of this server, by names of their own.
        self.learnt: dict[str, Any] = {}
        self._start_command = start_command
        self._headers = {**headers, "user-agent": USER_AGENT, "accept-encoding": "identity"}
        self._make_transport = settings.transport
        self._transport: httpx.AsyncBaseTransport | None = None
        self._opening = asyncio.Lock()
        self._sent: dict[str, tuple[httpx.URL, httpx.Headers]] = {}
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

    async def aclose(self) -> None:
        """Close all connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _send(self, method: str, path: str, body: bytes, deadline: float | None) -> Reply:
        transport = self._transport or await self._open()
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

    async def _answer(
        self, transport: httpx.AsyncBaseTransport, method: str, path: str, body: bytes
    ) -> httpx.Response:
        request = self._request(method, path, body)
        try:
            return await transport.handle_async_request(request)
        except Exception as error:
            from actors.llm.transport import was_kept_too_long  # noqa: PLC0415 - loaded by now

            if not (self._answered and was_kept_too_long(error)):
                raise
        # the server closed an idle connection just as we used it; nothing of the request was answered
        return await transport.handle_async_request(self._request(method, path, body))

    def _request(self, method: str, path: str, body: bytes) -> httpx.Request:
        import httpx  # noqa: PLC0415 - loaded by now

        if path not in self._sent:
            kind = {"content-type": "application/json"} if method == "POST" else {}
            self._sent[path] = (httpx.URL(self.base_url + path), httpx.Headers({**self._headers, **kind}))
        url, headers = self._sent[path]
        return httpx.Request(method, url, headers=headers, content=body or None)

    async def _open(self) -> httpx.AsyncBaseTransport:
        async with self._opening:
            if self._transport is None:
                if "actors.llm.transport" not in sys.modules or self.base_url.startswith("https:"):
                    await asyncio.to_thread(_load, secure=self.base_url.startswith("https:"))
                self._transport = self._built()
            return self._transport

    def _built(self) -> httpx.AsyncBaseTransport:
        if self._make_transport is not None:
            made: httpx.AsyncBaseTransport = self._make_transport(self.base_url)
            return made
        from actors.llm.transport import AiohttpTransport  # noqa: PLC0415 - at the first request

        proxy = proxy_for(self.base_url)
        return AiohttpTransport(self.base_url, connect_seconds=self.timeouts.connect, proxy=proxy)

    def translated(self, error: Exception, seconds: float, deadline: float | None) -> ModelError:
        """The ModelError that a failure of the network means; ``seconds`` is what the wait was given."""
        if isinstance(error, ModelError):
            return error
        from actors.llm.transport import explained  # noqa: PLC0415 - loaded by now

        if type(error) is TimeoutError:
            return self._late(seconds, deadline)
        trouble = explained(error)
        return ModelError(
            f"{self.where}: {trouble.words}",
            kind=trouble.kind,
            hint=trouble.hint or self._reach_hint(),
            where=self.where,
            retryable=trouble.retryable,
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


def _load(*, secure: bool) -> None:
    """Import what requests need, off the loop: it takes a fifth of a second, once."""
    from actors.llm import transport  # noqa: PLC0415 - that is the point

    if secure:
        transport.certificates()


class HttpPool:
    """The connections of one system: a Peer for each base URL, key and event loop."""

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self._settings = settings or HttpSettings()
        self._peers: dict[tuple[asyncio.AbstractEventLoop, str, tuple[tuple[str, str], ...]], Peer] = {}

    def peer(
        self, base_url: str, headers: Mapping[str, str] | None = None, *, start_command: str | None = None
    ) -> Peer:
        """The peer at ``base_url`` for these headers (which hold the key), on the running loop."""
        key = (asyncio.get_running_loop(), base_url, tuple((headers or {}).items()))
        known = self._peers.get(key)
        if known is None:
            self._forget_closed_loops()
            known = self._peers[key] = Peer(
                base_url, headers or {}, self._settings, start_command=start_command
            )
        return known

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


def where_of(url: str) -> str:
    """The host and port of a URL, as failures name it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def base_url_of(text: str) -> str:
    """A base URL without what people add to it: a slash at its end, or the path of the endpoint itself.

    Raises ModelError where it is no http URL.
    """
    url = text.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/")
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "?" in url or "#" in url:
        raise ModelError(
            f"{text!r} is no base URL",
            kind="invalid_request",
            hint="write it like http://127.0.0.1:11434/v1",
        )
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or number."""
    return host in {"localhost", "::1", "0.0.0.0"} or host.startswith("127.") or host.endswith(".localhost")  # noqa: S104


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment asks for, never for this machine itself.

    Raises ModelError for a kind of proxy that is not spoken.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - 9 ms

    if proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise ModelError(
            f"the proxy {where_of(proxy)} that the environment asks for is not an HTTP proxy",
            kind="connection",
            hint=f"set HTTPS_PROXY to an HTTP proxy, or add {host} to NO_PROXY",
            where=where_of(base_url),
            retryable=False,
        )
    return proxy
