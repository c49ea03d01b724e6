"""Addresses of model servers: as people write them, as failures name them, and proxies on the way."""

from __future__ import annotations

from urllib.parse import urlsplit

from protocol.errors import ModelError


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
