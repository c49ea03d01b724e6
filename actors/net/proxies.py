"""Proxies on the way to a host, as the environment asks for them, and credentials that stand in addresses."""

from __future__ import annotations

from base64 import b64encode
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from protocol.errors import ModelError

#: The status by which a proxy asks for credentials, and what its error says.
PROXY_WANTS_KEY = 407
PROXY_WANTS = "it requires a user and a password (407)"
PROXY_WANTS_HINT = "put user:password@ before the proxy's host in HTTPS_PROXY (or HTTP_PROXY)"


def where_of(url: str) -> str:
    """The host and port of a URL, as failures name it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or number."""
    if host.startswith("127."):  # and no name that only begins so
        return host.replace(".", "").isdigit()
    return host in {"localhost", "::1", "0.0.0.0"} or host.endswith(".localhost")  # noqa: S104


def without_credentials(url: str) -> str:
    """A URL without the user and password that may stand in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def basic_credentials(url: str) -> tuple[str, str] | None:
    """The user and password of a URL, as they are before they are quoted."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def authorization_of(credentials: tuple[str, str] | None, name: str = "authorization") -> dict[str, str]:
    """The header by which a user and a password are sent."""
    if credentials is None:
        return {}
    return {name: f"Basic {b64encode(':'.join(credentials).encode()).decode()}"}


class ProxyRoute(NamedTuple):
    """How a request goes through a proxy, as aiohttp takes it: its address without credentials, and these in
    the headers of a tunnel's making, or in those of each request. A server behind a tunnel never sees them.
    """

    url: str
    tunnel_headers: dict[str, str] | None
    request_headers: dict[str, str]


def route_through(proxy: str, url: str) -> ProxyRoute:
    """The way to ``url`` through ``proxy``, whose credentials may stand in its address."""
    headers = authorization_of(basic_credentials(proxy), "Proxy-Authorization")
    tunnel = url.startswith("https:")
    return ProxyRoute(without_credentials(proxy), headers if tunnel else None, {} if tunnel else headers)


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment asks for (with its credentials), never for this machine itself.

    Raises ModelError for one that is not an address, or of a kind that is not spoken.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    if is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - 9 ms

    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxy is None or is_bypassed(host, port, proxies.get("no", "")) or proxy_bypass(host):
        return None
    return _proxy_of(proxy.strip(), base_url)


def is_bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` takes a host out.

    Its entries are names (which stand for what is below them too), addresses, networks (``10.0.0.0/8``) and
    patterns (``*.internal``), each with or without a port.
    """
    host = host.lower().rstrip(".")
    return any(_fits(entry, host, port) for entry in no_proxy.lower().replace(",", " ").split())


def _fits(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    if "/" in entry:
        return _is_within(host, entry)
    name, only_port = _split_port(entry)
    if only_port is not None and only_port != port:
        return False
    name = name.strip("[]").rstrip(".")
    if (address := _address(host)) is not None and (other := _address(name)) is not None:
        return address == other
    if "*" in name:
        return fnmatchcase(host, name) or (name.startswith("*.") and host == name[2:])
    name = name.lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name, int(port[:6])
    return entry, None


def _is_within(host: str, network: str) -> bool:
    address = _address(host)
    if address is None:
        return False
    try:
        return address in ip_network(network.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, if it is a number."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _proxy_of(proxy: str, base_url: str) -> str:
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0 and ":" not in unquote(parts.username or "")
    except ValueError:
        sound = False
    if sound and parts.scheme in {"http", "https"}:
        return url
    raise ModelError(
        f"the proxy {where_of(url)} in the environment is not an HTTP proxy"
        if sound
        else "the proxy in the environment is not a valid address",
        kind="connection",
        hint=f"write HTTPS_PROXY (or HTTP_PROXY, ALL_PROXY) like http://proxy.example:3128, or add "
        f"{urlsplit(base_url).hostname} to NO_PROXY",
        where=where_of(base_url),
        retryable=False,
    )
