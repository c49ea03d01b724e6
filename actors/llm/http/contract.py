"""The contract of transports, which carry requests to a model server, and the settings of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from actors.llm.http.endpoint import COOLDOWN, MAX_STREAMS


class Timeouts(Struct, frozen=True):
    """How long a server may take, in seconds: to be reached, to its first byte, and between bytes.

    There is no limit for a whole answer. Servers send no byte at all while a request waits for a slot, or
    while a model reasons unseen, which takes minutes and is paid for again with each attempt; so the limits
    are generous. Comments count as bytes.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 300.0


class HttpSettings(Struct, frozen=True):
    """The settings of all connections of a system: time-outs, how many answers of one server may be under way
    at once, how long (in seconds) a server that keeps failing is left alone, and what makes the httpx
    transport for a base URL (None: polypod's own transport).
    """

    timeouts: Timeouts = Timeouts()
    streams: int = MAX_STREAMS
    cooldown: float = COOLDOWN
    transport: Callable[[str], Any] | None = None


class Response(Protocol):
    """A transport's answer to a request.

    ``read`` gives the bytes that are there, or the next that arrive, compressed as ``coding`` says; ``b""``
    is the end. If there is a ``pour`` as well, it hands the same bytes to a function, as
    ``connection.Answer`` does.
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
    """Carries requests to one server; its errors are those that ``server_failures.explained`` knows."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response: ...

    async def aclose(self) -> None: ...
