"""JSON as model servers write it, pure: broken UTF-8, half surrogate pairs, bare control characters and, in
events, numbers that are none are mended, nothing else is.

The SSE standard has a stream decoded with U+FFFD in the place of what is no UTF-8, and RFC 8259 allows half a
surrogate pair as an escape. ``msgspec`` refuses all of it, so what it refuses is read here a second time.
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from protocol.text import encodable, encodable_json

T = TypeVar("T")

#: What reading JSON may raise, whoever reads it.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)

_decode_any = msgspec.json.Decoder().decode


def decode_mended(data: bytes, kind: type[T]) -> T:
    """``data`` as a ``kind``, where ``msgspec`` could not read it; its texts may hold half surrogate pairs.

    Raises one of UNREADABLE.
    """
    import json  # noqa: PLC0415 - paid for by who gets what msgspec cannot read

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
    import json  # noqa: PLC0415 - paid for by who gets what msgspec cannot read

    return json.loads(text, strict=False, parse_constant=refuse, parse_float=finite)


def _unknown(_: str) -> None:
    """Python's way to write what is no number, as servers do among what they count, is no value."""


def refuse(told: str) -> NoReturn:
    """Take no ``NaN`` and no ``Infinity``. Raises ValueError."""
    raise ValueError(f"{told[:20]} is no number of JSON that can be kept")


def finite(told: str) -> float:
    """A number of JSON that a float can hold. Raises ValueError."""
    number = float(told)
    return number if math.isfinite(number) else refuse(told)


class HalfPairs:
    """Joins the halves of surrogate pairs that were split over two pieces of one text."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = ""  # a half whose partner may come with the next piece

    def join(self, text: str) -> str:
        """``text`` behind the half that waits; a half at its end is held back until the next piece."""
        if text.isascii() and not self.waiting:
            return text
        text = self.waiting + text
        self.waiting = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.waiting = text[:-1], text[-1]
        return encodable(text)

    def rest(self) -> str:
        """What the half that waits turns into where its partner never came."""
        half, self.waiting = self.waiting, ""
        return encodable(half)


class Braces:
    """Finds out whether a JSON object has been closed; each character is looked at once."""

    __slots__ = ("_depth", "_in_text", "closed")

    _MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        self.closed = False

    def feed(self, text: str) -> None:
        """Take the next piece."""
        for found in self._MARKS.finditer(text):
            mark = found[0]
            if mark == '"':
                self._in_text = not self._in_text
            elif self._in_text or mark[0] == "\\":
                continue
            else:
                self._depth += 1 if mark in "{[" else -1
                self.closed = self.closed or self._depth == 0


def is_closed(data: bytes) -> bool:
    """Whether a JSON object or list has come to its end; without one it was cut."""
    braces = Braces()
    braces.feed(data.decode("utf-8", "replace"))
    return braces.closed
