"""What a hook may answer about a request, a tool's call or its result: deny, replace, inject; ``None`` lets
it be.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from protocol.items import Item, ToolCall, ToolResult
from protocol.tools import ToolSpec


class ModelView(Struct, frozen=True):
    """What a request shows the model: the conversation, oldest first, the system prompt, and the tools that
    it may call. Nothing in it is to be changed in place: items belong to the pod's history.
    """

    items: tuple[Item, ...]
    system: str | None = None
    tools: tuple[ToolSpec, ...] = ()


class Deny(Struct, frozen=True):
    """The call is not run, or what its tool gave is withheld: the model gets ``text`` as an error instead. A
    request is not sent, and its run fails with a HookError.
    """

    text: str


class Replace(Struct, frozen=True):
    """Something else takes its place: before a request another view; before a tool other arguments, or the
    call with other arguments; after a tool another result, or its text.
    """

    value: ModelView | ToolCall | dict[str, Any] | ToolResult | str


class Inject(Struct, frozen=True):
    """``text`` stands behind the result that the model gets, or behind the items of a request, as words of
    the runtime.
    """

    text: str
