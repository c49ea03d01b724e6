"""``Resolver``: finds the addresses of hosts for aiohttp."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """Asks the system, as aiohttp's own, but not in the loop's threads, all of which tools may hold."""

    def __init__(self, in_thread: Callable[..., Awaitable[list[ResolveResult]]]) -> None:
        """``in_thread`` calls a function with arguments in some other thread."""
        self._in_thread = in_thread

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await self._in_thread(_resolve, host, port, family)

    async def close(self) -> None:
        """Holds nothing."""


def _resolve(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found: list[Any] = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(
            hostname=host, host=_number(address), port=address[1], family=kind, proto=proto, flags=flags
        )
        for kind, _, proto, _, address in found
    ]


def _number(address: Any) -> str:
    """The number of an address, with the interface where it is of one's link alone."""
    return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
