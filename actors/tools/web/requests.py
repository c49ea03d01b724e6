"""Requests to addresses that a model has chosen: what they may reach, and how much they may bring."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.net.aiohttp_failures import explained, is_of
from actors.net.certificates import certificates
from actors.net.encodings import coding_of
from actors.net.failures import MAX_HEADER_BYTES
from actors.net.proxies import ProxyRoute, proxy_for, route_through, where_of
from actors.net.public_addresses import Address, why_not_public
from actors.net.resolver import Resolver
from actors.runtime.in_thread import in_thread
from actors.tools.web.page import MOST_BYTES, Answer, media_type, refuse_unreadable
from protocol.errors import ModelError, ToolError

#: Why an address may not be connected to, in words; None where it may.
Refuse = Callable[[Address], str | None]

MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_URL = 8192
_TIMES = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_HEADERS = {
    "user-agent": "polypod",
    "accept": "text/html, text/markdown, text/plain, application/json, text/*;q=0.9, */*;q=0.5",
    "accept-encoding": "gzip, deflate",
}


def refuse_none(_: Address) -> str | None:
    """Every address may be connected to."""


class Web:
    """Fetches by GET, without cookies and credentials.

    An address is judged by ``refuse`` once it is known: a name's where ``resolver`` has found them, and what
    is then connected to are these very addresses; so is each that a redirect leads to. Through a proxy it is
    the proxy that finds a host; then names are judged by what they are here, where they are known here.
    """

    def __init__(self, refuse: Refuse = why_not_public, resolver: AbstractResolver | None = None) -> None:
        self._refuse = refuse
        self._resolver = resolver

    async def get(self, text: str) -> Answer:
        """What is at the URL ``text``. Raises ToolError."""
        url, redirected = url_of(text), False
        for _ in range(MOST_REDIRECTS + 1):
            found = await self._ask(url, redirected=redirected)
            if isinstance(found, Answer):
                return found
            url, redirected = found, True
        raise ToolError(f"{text} redirects too often: more than {MOST_REDIRECTS} times")

    async def _ask(self, url: yarl.URL, *, redirected: bool) -> Answer | yarl.URL:
        """What is there, or where a redirect leads."""
        resolver = _CheckedResolver(self._resolver or Resolver(in_thread), self._refuse)
        route = None
        try:
            route = await self._route(url, resolver)
            secure = url.scheme == "https" or (route is not None and route.url.startswith("https:"))
            trusted = await in_thread(certificates) if secure else True
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        # a proxy of ours may well have a private address
                        resolver=resolver if route is None else Resolver(in_thread),
                        use_dns_cache=False,
                        force_close=True,
                        ssl=trusted,
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=_TIMES,
                    auto_decompress=False,
                    max_line_size=MAX_HEADER_BYTES,
                    max_field_size=MAX_HEADER_BYTES,
                ) as session,
                session.get(
                    url,
                    headers=_HEADERS if route is None else {**_HEADERS, **route.request_headers},
                    allow_redirects=False,
                    proxy=None if route is None else route.url,
                    proxy_headers=None if route is None else route.tunnel_headers,
                ) as response,
            ):
                return await _read(url, response, redirected=redirected)
        except ModelError as error:  # of a proxy or of certificates that the environment names
            raise ToolError(error.message, hint=error.hint) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ToolError(f"{_blamed(error, url, route)}: {explained(error).words}") from error

    async def _route(self, url: yarl.URL, resolver: _CheckedResolver) -> ProxyRoute | None:
        """The proxy on the way there, if there is one. Raises ToolError for an address that is refused."""
        host = url.host or ""
        address = _address_in(host)
        if address is not None and (why := self._refuse(address)) is not None:
            raise _refusal(host, why)
        proxy = proxy_for(str(url))
        if proxy is None:
            return None
        if address is None:
            await resolver.look_at(host, url.port or 0)
        return route_through(proxy, str(url))


def _address_in(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, in any way to write one: also ``127.1`` or ``2130706433``, for which some
    versions of aiohttp ask no resolver. None for a name.
    """
    with contextlib.suppress(ValueError):
        return ip_address(host)
    with contextlib.suppress(OSError, ValueError):
        return IPv4Address(socket.inet_aton(host.removesuffix(".")))
    return None


class _CheckedResolver(AbstractResolver):
    """Finds the addresses of a name, and gives only those that may be connected to."""

    def __init__(self, inner: AbstractResolver, refuse: Refuse) -> None:
        self._inner = inner
        self._refuse = refuse

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            found = await self._inner.resolve(host, port, family)
        except UnicodeError as error:  # an empty label, or one of more than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        reasons = [self._refuse(ip_address(each["host"])) for each in found]
        allowed = [each for each, why in zip(found, reasons, strict=True) if why is None]
        if found and not allowed:
            raise _refusal(host, str(reasons[0]))
        return allowed

    async def look_at(self, host: str, port: int) -> None:
        """Raise ToolError for a name that is known here and refused."""
        try:
            await self.resolve(host, port, socket.AF_UNSPEC)
        except OSError:
            return

    async def close(self) -> None:
        await self._inner.close()


def url_of(text: str) -> yarl.URL:
    """``text`` as a URL that can be fetched. Raises ToolError, which never shows credentials."""
    if len(text) > _MOST_URL:
        raise ToolError(f"the URL has more than {_MOST_URL:,} characters")
    try:
        url = yarl.URL(text.strip()).with_fragment(None)
        sound = url.is_absolute() and url.scheme in {"http", "https"} and bool(url.host) and url.port != 0
    except ValueError:
        sound = False
    if not sound:
        shown = "the URL" if "@" in text else repr(text[:200])
        raise ToolError(
            f"{shown} cannot be fetched: a URL must begin with https:// or http:// and name a host",
            hint="give the whole URL",
        )
    if url.user is not None or url.password is not None:
        raise ToolError(
            f"the URL of {url.host} contains a user or password, which are never sent",
            hint="remove them from the URL",
        )
    return url


async def _read(url: yarl.URL, response: aiohttp.ClientResponse, *, redirected: bool) -> Answer | yarl.URL:
    where = response.headers.get("location")
    if response.status in _REDIRECTS and where is not None:
        return _target(url, where)
    if response.status >= 400:
        raise ToolError(f"{url} answers {response.status} {(response.reason or '')[:200]}".rstrip())
    content_type = response.headers.get("content-type", "")
    refuse_unreadable(str(url), media_type(content_type))
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MOST_BYTES:
            break
    coding = coding_of(", ".join(response.headers.getall("content-encoding", ())))
    cut = len(body) > MOST_BYTES
    return Answer(str(url), content_type, coding, bytes(body[:MOST_BYTES]), cut, redirected)


def _target(url: yarl.URL, where: str) -> yarl.URL:
    """Where a redirect leads. Raises ToolError."""
    try:
        return url_of(str(url.join(yarl.URL(where))))
    except (ToolError, ValueError) as error:
        raise ToolError(f"{url} redirects to an address that is not fetched: {error}") from error


def _blamed(error: Exception, url: yarl.URL, route: ProxyRoute | None) -> str:
    """What a failure is reported of: the host, or the proxy on the way to it."""
    if route is not None:
        proxy = yarl.URL(route.url)
        if is_of(error, proxy.host, proxy.port):
            return f"the proxy {where_of(route.url)} for {url.host}"
    return str(url.host)


def _refusal(host: str, why: str) -> ToolError:
    return ToolError(
        f"{host} is not fetched: it has {why}",
        hint="the user can allow it with [fetch] allow_private = true",
    )
