"""What carries requests to a model server, and how: the contract of transports, and the settings of all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from actors.llm.http.endpoint import COOLDOWN, MAX_STREAMS


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
    """What carries requests to one server; its errors are those that ``server_failures.explained`` knows."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response: ...

    async def aclose(self) -> None: ...
