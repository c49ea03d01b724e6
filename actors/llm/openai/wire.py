"""The wire format of OpenAI's chat completions, as far as it is read: events and whole answers."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.lenient import UNREADABLE, decode_any, decode_mended
from actors.llm.openai.calls import CallPiece, Function


class Delta(Struct):
    """What a chunk adds to the message, or the message of a whole answer."""

    role: Any = None
    content: Any = None
    tool_calls: list[CallPiece] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    refusal: Any = None
    function_call: Function | None = None
    # sent empty with every piece by servers that keep vendor data elsewhere
    name: Any = None
    annotations: Any = None
    audio: Any = None


class Choice(Struct):
    """One of several answers."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class Chunk(Struct):
    """One event of a stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: Any = None
    model: Any = None
    error: Any = None
    object: Any = None
    detail: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


# Variants that refuse a message or a call with unknown members, which are then kept.


class _StrictFunction(Function, forbid_unknown_fields=True):
    pass


class _StrictPiece(CallPiece, forbid_unknown_fields=True):
    function: _StrictFunction | None = None


class _StrictDelta(Delta, forbid_unknown_fields=True):
    tool_calls: list[_StrictPiece] | None = None  # type: ignore[assignment]


class _StrictChoice(Choice):
    delta: _StrictDelta | None = None
    message: _StrictDelta | None = None


class _StrictChunk(Chunk):
    choices: list[_StrictChoice] | None = None  # type: ignore[assignment]


#: Decodes an event with known members only; raises one of UNREADABLE for any other.
decode_strictly = msgspec.json.Decoder(_StrictChunk).decode


def read_with_care(data: bytes) -> tuple[Chunk, dict[str, Any] | None]:
    """One event, and the undecoded event if it has unknown members; raises one of UNREADABLE."""
    try:
        return _decode(data), _unread(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError):
        return decode_mended(data, Chunk), _unread(data)


def _unread(data: bytes) -> dict[str, Any] | None:
    """An event as a plain dict; None if its known members can be read and the rest cannot."""
    try:
        decoded: dict[str, Any] = decode_any(data)
    except UNREADABLE:
        return None
    return decoded
