"""Makes what came from outside fit for a session log: what is recorded reads back as it is."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from protocol.text import encodable

T = TypeVar("T", bound=Struct)

#: How deep values may be nested; what stands deeper, or within itself, becomes an ellipsis.
MAX_DEPTH = 200
#: The most bits of a whole number; a longer one becomes its hexadecimal text.
MAX_BITS = 8192
#: What encoding raises for what no JSON can hold.
UNFIT = (TypeError, ValueError, OverflowError, RecursionError)


def recordable(value: T) -> T:
    """A copy of a protocol type that can be encoded and reads back equal: lone surrogates become U+FFFD,
    numbers that JSON has not become null, bytes and other objects their text, keys texts.

    Raises msgspec.ValidationError, a ValueError, where a field cannot be made of its type.
    """
    return msgspec.convert(plain(value), type(value), strict=False)


def plain(value: Any) -> Any:
    """``value`` in dicts, lists, texts and numbers that JSON has."""
    return _plain(value, set())


def _plain(value: Any, around: set[int]) -> Any:
    """As ``plain``; ``around`` has the ids of all that ``value`` stands in."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return encodable(value.value if isinstance(value, Enum) else value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MAX_BITS else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return _entered(value, around)


def _entered(value: Any, around: set[int]) -> Any:
    """What may hold other values, unless it is too deep, or within itself."""
    if len(around) >= MAX_DEPTH or id(value) in around:
        return "…"
    around.add(id(value))
    try:
        return _nested(value, around)
    finally:
        around.discard(id(value))


def _nested(value: Any, around: set[int]) -> Any:
    """What holds other values, or else is shown as its words."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, Struct):
        return _fields(value, around)
    if isinstance(value, dict):
        return {_key(key): _plain(member, around) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(member, around) for member in value]
    return _text(value)


def _fields(value: Struct, around: set[int]) -> dict[str, Any]:
    config = value.__struct_config__
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    fields = {encoded: _plain(getattr(value, name), around) for name, encoded in names}
    return fields if config.tag is None else {str(config.tag_field): config.tag, **fields}


def _key(key: Any) -> str:
    return encodable(key) if isinstance(key, str) else _text(key)


def _text(value: Any) -> str:
    """The words of an object, which may have none."""
    try:
        return encodable(str(value))
    except Exception:  # noqa: BLE001 - whatever a foreign object raises, its kind is its text
        return f"<{type(value).__name__}>"
