"""What a pod's process and its parent say of MCP servers, whose connections the parent has: frames of JSON
as in ``protocol.channel``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from protocol.channel import head
from protocol.errors import Failure, WireError
from protocol.items import Part
from protocol.mcp import McpServer
from protocol.recordable import UNFIT, recordable
from protocol.wire import encode


class ListedTool(Struct, frozen=True):
    """A tool as a server lists it, by its own name; ``schema`` is the JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]
    read_only: bool


# -- to the parent -------------------------------------------------------------------------------


class HoldServer(Struct, frozen=True, tag=True):
    """Have this server started where it is not, and known by that number. Answered by a ``ServerState`` that
    is ``settled``, and by others as long as the server is held.
    """

    server: int
    of: McpServer
    folder: str


class BeginServer(Struct, frozen=True, tag=True):
    """Have a server that is held started again, unless it is at work or has ended too often."""

    server: int


class ReleaseServer(Struct, frozen=True, tag=True):
    """A server is needed no more."""

    server: int


class CallTool(Struct, frozen=True, tag=True, omit_defaults=True):
    """Call a tool by the server's own name for it. It may take ``seconds`` from its last sign of life;
    ``asks`` is whether the pod asks people. Answered by a ``CallGave`` or a ``CallFailed`` of the same id.
    """

    id: int
    server: int
    tool: str
    arguments: dict[str, Any]
    seconds: float
    pod: str
    asks: bool = False


class CancelCall(Struct, frozen=True, tag=True):
    """Nobody waits for that call any more."""

    id: int


class PersonAnswered(Struct, frozen=True, tag=True):
    """What a person answered to a ``PersonAsked``; None where nobody did."""

    question: int
    answer: dict[str, Any] | None


# -- to the process ------------------------------------------------------------------------------


class ServerState(Struct, frozen=True, tag=True, omit_defaults=True):
    """Where a server stands: the tools that it listed last (None: it never has), what people should know of
    it, and whether a process of it is at work. It is ``settled`` once nothing more is to be waited for.
    """

    server: int
    tools: tuple[ListedTool, ...] | None = None
    failure: str | None = None
    has_process: bool = False
    settled: bool = False


class CallProgress(Struct, frozen=True, tag=True):
    """How far a call is, in words."""

    id: int
    words: str


class PersonAsked(Struct, frozen=True, tag=True):
    """A server asks the person in the middle of a call; ``form`` is the JSON Schema of the answer."""

    id: int
    question: int
    words: str
    form: dict[str, Any]


class CallGave(Struct, frozen=True, tag=True):
    """What a call gave."""

    id: int
    parts: tuple[Part, ...]


class CallFailed(Struct, frozen=True, tag=True):
    """Why a call gave nothing."""

    id: int
    failure: Failure


ToParent = HoldServer | BeginServer | ReleaseServer | CallTool | CancelCall | PersonAnswered
ToProcess = ServerState | CallProgress | PersonAsked | CallGave | CallFailed
_to_parent: msgspec.json.Decoder[ToParent] = msgspec.json.Decoder(ToParent)
_to_process: msgspec.json.Decoder[ToProcess] = msgspec.json.Decoder(ToProcess)


def frame(message: ToParent | ToProcess) -> bytes:
    """A message as the bytes of its frame. Raises WireError for one that is too large."""
    try:
        body = encode(message)
    except UNFIT:
        body = encode(recordable(message))
    return head(len(body)) + body


def decode_to_parent(body: bytes) -> ToParent:
    """What came for the parent. Raises WireError."""
    message: ToParent = _decode(_to_parent, body)
    return message


def decode_to_process(body: bytes) -> ToProcess:
    """What came for the process. Raises WireError."""
    message: ToProcess = _decode(_to_process, body)
    return message


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message about MCP servers: {error}") from error
