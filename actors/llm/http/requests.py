"""What makers of requests share, whatever format a server speaks: encoding things only once; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from actors.llm.base import Request
from protocol.tools import ToolSpec

D_contra = TypeVar("D_contra", contravariant=True)
D = TypeVar("D")

_encode = msgspec.json.Encoder().encode


class Encoded(Protocol[D_contra]):
    """A history as bytes that grow with it, for servers of one dialect."""

    def suits(self, dialect: D_contra, origin: str | None) -> bool:
        """Whether it is encoded for such a server."""


E = TypeVar("E", bound=Encoded[Any])


def kept_history(
    request: Request, key: str, make: Callable[[D, str | None], E], dialect: D, origin: str | None
) -> E:
    """The encoded history of earlier requests, kept in a pod's scratch under ``key``; a new one if there is
    none, or if the server or its dialect has changed.
    """
    known: E | None = request.scratch.get(key)
    if known is None or not known.suits(dialect, origin):
        known = request.scratch[key] = make(dialect, origin)
    return known


def encoded_tools(request: Request, key: str, form: Callable[[ToolSpec], dict[str, Any]]) -> bytes:
    """The tools as a member of a body, each in that ``form``; encoded once as long as they stay the same."""
    if not request.tools:
        return b""
    kept: tuple[tuple[ToolSpec, ...], bytes] | None = request.scratch.get(key)
    if kept is None or (kept[0] is not request.tools and kept[0] != request.tools):
        member = b',"tools":' + _encode([form(tool) for tool in request.tools])
        kept = request.scratch[key] = (request.tools, member)
    return kept[1]
