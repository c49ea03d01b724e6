"""What Anthropic's messages look like on the wire, as far as it is looked at: events and whole answers."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from actors.llm.lenient import UNREADABLE, decode_any, decode_mended

T = TypeVar("T")


class Delta(Struct):
    """What an event adds to a block, or to the message."""

    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    citation: Any = None


class Content(Struct):
    """A block: as it begins in a stream, or all of it."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    id: Any = None
    name: Any = None
    input: Any = None


class Event(Struct):
    """One event of a stream."""

    type: Any = None
    index: int | str | None = None
    delta: Delta | None = None
    content_block: Content | None = None
    message: Any = None
    usage: Any = None
    error: Any = None


class Whole(Struct):
    """An answer that came as one object."""

    type: Any = None
    model: Any = None
    content: list[Content] | None = None
    stop_reason: Any = None
    usage: Any = None
    error: Any = None


#: An event, where nothing in it has to be mended; raises one of UNREADABLE.
decode_event = msgspec.json.Decoder(Event).decode
_decode_whole = msgspec.json.Decoder(Whole).decode


def read(data: bytes, kind: type[T]) -> T:
    """An event or a whole answer; raises one of UNREADABLE."""
    try:
        return decode_event(data) if kind is Event else _decode_whole(data)  # type: ignore[return-value]
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError):
        return decode_mended(data, kind)


def unread(data: bytes, member: str) -> Any:
    """One member of an event as it came; None where what stands beside it cannot be read."""
    try:
        return decode_any(data)[member]
    except UNREADABLE:
        return None
