"""What failures of aiohttp, of httpx and of the system mean: each as a ``NetworkFailure``."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import aiohttp
import httpx

from actors.net.failures import (
    NetworkFailure,
    lost,
    no_http,
    no_tls,
    overlong_head,
    slow_to_reach,
    unreached,
    unresolved,
    untrusted,
)
from actors.net.proxies import PROXY_WANTS, PROXY_WANTS_HINT, PROXY_WANTS_KEY


def explained(error: Exception) -> NetworkFailure:
    """What an error of aiohttp, httpx or the system means; anything else is a defect and is raised again."""
    for kinds, failure in _FAILURES:
        if isinstance(error, kinds):
            return failure(error)
    raise error


def is_of(error: Exception, host: str | None, port: int | None) -> bool:
    """Whether a failure to connect is that of the proxy at ``host`` and ``port``, not of the server."""
    if isinstance(error, aiohttp.ClientHttpProxyError | aiohttp.ClientProxyConnectionError):
        return True
    return (getattr(error, "host", None), getattr(error, "port", None)) == (host, port)


def was_kept_too_long(error: Exception) -> bool:
    """Whether a connection was closed on us before any of the answer came, as idle ones are."""
    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError, aiohttp.ClientOSError)
    never_made = (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)
    return isinstance(error, lost) and not isinstance(error, never_made)


def _refused_by_proxy(error: Exception) -> NetworkFailure:
    status, words = getattr(error, "status", 0), " ".join(str(getattr(error, "message", "")).split())[:200]
    if status == PROXY_WANTS_KEY:
        return NetworkFailure("auth", PROXY_WANTS, PROXY_WANTS_HINT, connecting=True)
    hint = "ask its operator, or add the server's host to NO_PROXY"
    return NetworkFailure("connection", f"refuses to connect ({status} {words})", hint, connecting=True)


def _slow(_: Exception) -> NetworkFailure:
    return NetworkFailure("timeout", "took too long to answer", "use a smaller model, or a longer timeout")


def _no_http(error: Exception) -> NetworkFailure:
    words = str(getattr(error, "message", error))
    too_long = "Got more than" in words or "Too many headers" in words
    return overlong_head() if too_long else no_http(words)


def _no_url(error: Exception) -> NetworkFailure:
    return NetworkFailure("invalid_request", f"is not a valid URL: {error}", "check base_url")


#: The first that fits; kinds of errors before the kinds they are kinds of.
_FAILURES: tuple[tuple[tuple[type[Exception], ...], Callable[[Exception], NetworkFailure]], ...] = (
    ((aiohttp.ClientHttpProxyError,), _refused_by_proxy),
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), untrusted),
    ((aiohttp.ClientConnectorSSLError, ssl.SSLError), no_tls),
    ((aiohttp.ClientConnectorDNSError,), unresolved),
    ((aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, httpx.PoolTimeout), slow_to_reach),
    ((aiohttp.ClientConnectorError, httpx.ConnectError, httpx.ProxyError), unreached),
    ((aiohttp.ServerTimeoutError, httpx.TimeoutException, TimeoutError), _slow),
    ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol), _no_url),
    ((aiohttp.ClientResponseError,), _no_http),
    ((aiohttp.ClientError, httpx.NetworkError, httpx.ProtocolError, httpx.StreamError, OSError), lost),
    ((httpx.DecodingError,), _no_http),
)
