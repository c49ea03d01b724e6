"""Makes what came from outside fit for a session log: what is recorded reads back as it is."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from protocol.text import encodable

T = TypeVar("T", bound=Struct)

#: How deep values may be nested; what stands deeper becomes an ellipsis.
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


def plain(value: Any, depth: int = 0) -> Any:
    """``value`` in dicts, lists, texts and numbers that JSON has."""
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
    return _nested(value, depth) if depth < MAX_DEPTH else "…"


def _nested(value: Any, depth: int) -> Any:
    """What holds other values, or else is shown as its words."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, Struct):
        return _fields(value, depth)
    if isinstance(value, dict):
        return {_key(key): plain(member, depth + 1) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(member, depth + 1) for member in value]
    return _text(value)


def _fields(value: Struct, depth: int) -> dict[str, Any]:
    config = value.__struct_config__
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    fields = {encoded: plain(getattr(value, name), depth + 1) for name, encoded in names}
    return fields if config.tag is None else {str(config.tag_field): config.tag, **fields}


def _key(key: Any) -> str:
    return encodable(key) if isinstance(key, str) else _text(key)


def _text(value: Any) -> str:
    """The words of an object, which may have none."""
    try:
        return encodable(str(value))
    except Exception:  # noqa: BLE001 - whatever a foreign object raises, its kind is its text
        return f"<{type(value).__name__}>"
