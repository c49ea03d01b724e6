"""``--file``: files, texts or pictures, that go along with a person's words; also standard input."""

from __future__ import annotations

import os
from typing import TextIO

import click

from actors.cli.display.format import size
from actors.cli.pods.pictures import picture_of
from protocol.errors import InvalidInput
from protocol.files import read_file
from protocol.items import Part, TextPart
from protocol.pictures import media_type

#: What stands for standard input.
STDIN = "-"
#: The most that goes along of all files, in bytes.
MOST = 4 * 1024 * 1024


def attached(places: tuple[str, ...], stdin: TextIO) -> tuple[Part, ...]:
    """The parts that go with the words, a file each. Raises UsageError for what cannot go along."""
    parts: list[Part] = []
    left = MOST
    for place in places:
        data = _read(place, stdin, left + 1)
        left -= len(data)
        if left < 0:
            raise click.UsageError(f"--file: more than {size(MOST)} cannot be attached")
        parts.append(_part(place, data))
    return tuple(parts)


def _read(place: str, stdin: TextIO, most: int) -> bytes:
    if place == STDIN:
        return stdin.buffer.read(most)
    try:
        return read_file(os.path.expanduser(place), most, pipes=True)  # noqa: PTH111 - refuses no name
    except OSError as error:
        raise click.UsageError(f"--file {place}: {error.strerror}") from error


def _part(place: str, data: bytes) -> Part:
    name = "standard input" if place == STDIN else place
    if media_type(data) is not None:
        try:
            return picture_of(data, name)
        except InvalidInput as error:
            raise click.UsageError(f"--file {place}: {error.message}") from error
    if b"\0" in data[:8192]:
        raise click.UsageError(f"--file {place}: it is neither text nor an image that models accept")
    return named_text(name, data.decode("utf-8", "replace").removeprefix("\ufeff"))


def named_text(name: str, text: str) -> TextPart:
    """A file's text as it stands behind the words."""
    return TextPart(f"\n\n--- {name} ---\n{text}\n--- end of {name} ---")
