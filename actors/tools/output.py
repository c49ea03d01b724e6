"""What a tool returned, as parts for the model: turned to text, and cut where it is too long."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.tools.dump import dump
from protocol.items import ImagePart, Part, TextPart, ThinkingPart
from protocol.text import encodable, encodable_json

_PARTS = (TextPart, ImagePart, ThinkingPart)
_NOTHING = (TextPart(""),)


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
    if value is None:
        return _NOTHING
    if isinstance(value, _PARTS):
        return (_clean(value),)
    if isinstance(value, list | tuple) and any(isinstance(each, _PARTS) for each in value):
        return tuple(part for each in value for part in parts_from(each))
    if isinstance(value, bytes | bytearray | memoryview):
        return (TextPart(bytes(value).decode("utf-8", "replace")),)
    return (TextPart(dump(value)),)


def fits(parts: tuple[Part, ...], cap: int) -> bool:
    """Whether the text of ``parts`` is at most ``cap`` bytes long."""
    return sum(_size(part) for part in parts) <= cap


def capped(parts: tuple[Part, ...], cap: int, *, directory: Path | None, stem: str) -> Output:
    """``parts`` with at most ``cap`` bytes of text, head and tail, and a marker where text is missing.

    The whole text goes into a file of its own in ``directory`` (mode 0600), which the marker names;
    without a directory, or where it cannot be written, the marker says only how much is missing.
    """
    if fits(parts, cap):
        return Output(parts)
    kept = None if directory is None else _keep(parts, directory, stem)
    where = f"; the whole output is in {kept}" if kept else ""
    shown: list[Part] = []
    left = cap
    for part in parts:
        size = _size(part)
        if size > left and isinstance(part, TextPart):
            part = TextPart(_cut(part.text, left, where))  # noqa: PLW2901 - the part as it is shown
        shown.append(part)
        left = max(0, left - size)
    return Output(tuple(shown), kept)


def _cut(text: str, cap: int, where: str) -> str:
    """Two thirds of ``cap`` bytes from the head of ``text``, one third from its tail."""
    data = text.encode()
    tail_size = cap // 3
    head = data[: cap - tail_size].decode("utf-8", "ignore")
    tail = data[len(data) - tail_size :].decode("utf-8", "ignore")
    missing = len(data) - len(head.encode()) - len(tail.encode())
    return f"{head}\n[… {missing:,} of {len(data):,} bytes cut here{where} …]\n{tail}"


def _keep(parts: tuple[Part, ...], directory: Path, stem: str) -> str | None:
    """The name of a new file with all text of ``parts``, or None where none can be written."""
    import tempfile  # noqa: PLC0415 - loads what unpacks archives too

    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{stem}-", suffix=".txt", dir=directory)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError:
        return None  # the model still gets the cut output, and is not told of a file
    return name


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
