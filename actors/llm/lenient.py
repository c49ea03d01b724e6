"""JSON as model servers write it, pure: broken UTF-8, half surrogate pairs, bare control characters and, in
events, numbers that are none are mended, nothing else is.

The SSE standard has a stream decoded with U+FFFD in the place of what is not UTF-8, and RFC 8259 allows half
a surrogate pair as an escape. ``msgspec`` refuses all of it, so what it refuses is read here a second time.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn, TypeVar

import msgspec

from protocol.text import UNDECODABLE, encodable_json

T = TypeVar("T")

#: What reading JSON may raise, whoever reads it.
UNREADABLE = (*UNDECODABLE, ValueError)

_decode_any = msgspec.json.Decoder().decode


def decode_mended(data: bytes, kind: type[T]) -> T:
    """``data`` as a ``kind``, where ``msgspec`` could not read it; its texts may hold half surrogate pairs.

    Raises one of UNREADABLE.
    """
    import json  # noqa: PLC0415 - paid for by whoever gets what msgspec cannot read

    text = data.decode("utf-8", "replace")
    return msgspec.convert(json.loads(text, strict=False, parse_constant=_unknown), kind)


def decode_any(data: bytes | str) -> Any:
    """What a JSON text holds, every text in it encodable. Raises one of UNREADABLE."""
    try:
        return _decode_any(data)
    except msgspec.ValidationError:
        raise  # a number beyond all measure
    except (msgspec.DecodeError, UnicodeError):
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        return encodable_json(_loads(text))


def _loads(text: str) -> Any:
    """What a JSON text holds, half surrogate pairs as they are and infinities refused."""
    import json  # noqa: PLC0415 - paid for by whoever gets what msgspec cannot read

    return json.loads(text, strict=False, parse_constant=refuse, parse_float=finite)


def _unknown(_: str) -> None:
    """Python's way to write what is not a number, as servers do among what they count, is not a value."""


def refuse(digits: str) -> NoReturn:
    """Take no ``NaN`` and no ``Infinity``. Raises ValueError."""
    raise ValueError(f"{digits[:20]} is not a valid JSON number")


def finite(digits: str) -> float:
    """A number of JSON that a float can hold. Raises ValueError."""
    number = float(digits)
    return number if math.isfinite(number) else refuse(digits)
