"""What a tool returned, as parts for the model: turned to text, and cut where it is too long."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.runtime.user_folders import make_private
from actors.tools.dump import dump
from protocol.items import ImagePart, Part, TextPart, ThinkingPart
from protocol.text import encodable, encodable_json

_PARTS = (TextPart, ImagePart, ThinkingPart)
_NOTHING = (TextPart(""),)
#: Most of what is not text, and shown as JSON.
_DATA = frozenset({int, float, bool, dict})


class Output(Struct, frozen=True):
    """Parts as the model sees them, and the file that holds the whole where they were cut."""

    parts: tuple[Part, ...]
    kept: str | None = None


def parts_from(value: Any) -> tuple[Part, ...]:
    """A tool's return value as parts: text as it is, bytes decoded, None as nothing, parts as they
    are, anything else as JSON. Raises nothing: the tool has run by then, and what it did is done.
    """
    if type(value) is str or (isinstance(value, str) and not isinstance(value, enum.Enum)):
        return (TextPart(encodable(str.__str__(value))),)
    if value is None or type(value) in _DATA:
        return _NOTHING if value is None else (TextPart(dump(value)),)
    if isinstance(value, _PARTS):
        return (_clean(value),)
    if isinstance(value, list | tuple) and any(isinstance(each, _PARTS) for each in value):
        return tuple(part for each in value for part in parts_from(each))
    if isinstance(value, bytes | bytearray | memoryview):
        return (TextPart(bytes(value).decode("utf-8", "replace")),)
    return (TextPart(dump(value)),)


def size(parts: tuple[Part, ...]) -> int:
    """How many bytes the text of ``parts`` takes."""
    return sum(map(_size, parts))


def capped(parts: tuple[Part, ...], cap: int, *, directory: Path | None, stem: str) -> Output:
    """``parts`` with at most ``cap`` bytes of text, head and tail, and a marker where text is missing.

    The whole text goes into a file of its own in ``directory`` (mode 0600), which the marker names;
    without a directory, or where it cannot be written, the marker says only how much is missing.
    """
    if size(parts) <= cap:
        return Output(parts)
    kept = None if directory is None else _keep(parts, directory, stem)
    where = f"; the whole output is in {kept}" if kept else ""
    shown: list[Part] = []
    left = cap
    for part in parts:
        long = _size(part)
        if long > left and isinstance(part, TextPart):
            part = TextPart(_cut(part.text, left, where))  # noqa: PLW2901 - the part as it is shown
        shown.append(part)
        left = max(0, left - long)
    return Output(tuple(shown), kept)


def limited(text: str, cap: int) -> str:
    """``text`` with its middle cut where it is longer than ``cap`` bytes."""
    return text if len(text.encode()) <= cap else _cut(text, cap, "")


def _cut(text: str, cap: int, where: str) -> str:
    """``text``, which is longer than ``cap`` bytes, without its middle."""
    head, tail = split_at(text, text, cap)
    size = len(text.encode())
    missing = size - len(head.encode()) - len(tail.encode())
    return f"{head}{cut_mark(missing, size, where)}{tail}"


def split_at(first: str, last: str, cap: int) -> tuple[str, str]:
    """Two thirds of ``cap`` bytes from the beginning of ``first``, one third from the end of ``last``."""
    tail_size = cap // 3
    beginning, end = first.encode(), last.encode()
    head = beginning[: cap - tail_size].decode("utf-8", "ignore")
    return head, end[max(0, len(end) - tail_size) :].decode("utf-8", "ignore")


def cut_mark(missing: int, size: int, where: str) -> str:
    """What stands in the place of text that was cut; ``where`` says what has it."""
    return f"\n[… {missing:,} of {size:,} bytes cut here{where} …]\n"


def write_new(directory: Path, stem: str, data: bytes | bytearray) -> str:
    """The name of a new file with ``data`` that nobody else may read. Raises OSError: then there is none."""
    import tempfile  # noqa: PLC0415 - loads what unpacks archives too

    make_private(directory)
    handle, name = tempfile.mkstemp(prefix=f"{stem}-", suffix=".txt", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except OSError:
        os.unlink(name)  # noqa: PTH108 - a plain name
        raise
    return name


def _keep(parts: tuple[Part, ...], directory: Path, stem: str) -> str | None:
    """The name of a new file with all text of ``parts``, or None where none can be written."""
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    try:
        return write_new(directory, stem, text.encode())
    except OSError:
        return None  # the model still gets the cut output, and sees nothing of a file


def _clean(part: Part) -> Part:
    if isinstance(part, TextPart) and part.text.isascii():
        return part
    cleaned: Part = type(part)(*encodable_json(msgspec.structs.astuple(part)))
    return cleaned


def _size(part: Part) -> int:
    if not isinstance(part, TextPart):
        return 0
    text = part.text
    return len(text) if text.isascii() else len(text.encode())
