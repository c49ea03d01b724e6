"""What a hook may answer about a tool's call or its result: deny, replace, inject; ``None`` lets it be."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from protocol.items import ToolCall, ToolResult


class Deny(Struct, frozen=True):
    """The call is not run, or what its tool gave is withheld: the model gets ``text`` as an error instead."""

    text: str


class Replace(Struct, frozen=True):
    """Something else takes its place: before a tool other arguments, or the call with other arguments; after
    a tool another result, or its text.
    """

    value: ToolCall | dict[str, Any] | ToolResult | str


class Inject(Struct, frozen=True):
    """``text`` stands behind the result that the model gets."""

    text: str
