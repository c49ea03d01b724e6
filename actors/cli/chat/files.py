"""``@file``: files that a person's words name, read within what the pod may touch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from actors.cli.chat.typed import mentions
from actors.cli.display.format import size
from actors.cli.pods.attachments import named_text
from actors.cli.pods.pictures import LARGEST, picture_of
from actors.tools.filesystem import place
from protocol.errors import ScopeRefused, ToolError
from protocol.items import Part, TextPart
from protocol.pictures import media_type

if TYPE_CHECKING:
    from actors.tools.base import ToolContext

#: The most that goes along of a text, in bytes, and of a folder, in names; and of names that are offered.
_MOST, _NAMES, _OFFERED = 64 * 1024, 200, 50


def with_files(text: str, ctx: ToolContext) -> tuple[tuple[Part, ...], list[str]]:
    """Words with the files that they name behind them, and a line for each that says what went along.

    What names no file is left as it is. Raises ScopeRefused for a file that the pod may not read, and
    ToolError for one that cannot go along.
    """
    parts: list[Part] = [TextPart(text)]
    notes: list[str] = []
    for names in mentions(text):
        name = next((each for each in names if _exists(each, ctx)), None)
        if name is not None:
            part, note = _file(name, ctx)
            parts.append(part)
            notes.append(note)
    return tuple(parts), notes


def _exists(name: str, ctx: ToolContext) -> bool:
    try:
        return os.path.lexists(ctx.pwd / os.path.expanduser(name))  # noqa: PTH111 - refuses no name
    except (OSError, ValueError):  # no name that a file could have
        return False


def _file(name: str, ctx: ToolContext) -> tuple[Part, str]:
    path = ctx.path(os.path.expanduser(name))  # noqa: PTH111 - the same
    if path.is_dir():
        entries = sorted(place.listing(path, limit=_NAMES), key=lambda entry: entry.name)
        names = "\n".join(f"{place.shown(each.name)}{'/' if each.is_dir else ''}" for each in entries)
        return named_text(name, names), f"@{name}: {len(entries)} names"
    with place.opened(path) as file:
        data = file.read(LARGEST + 1)
    if media_type(data) is not None:
        return picture_of(data, name), f"@{name}: a picture, {size(len(data))}"
    if b"\0" in data[:8192]:
        raise ToolError(f"@{name} is neither text nor an image that models accept")
    text = data[:_MOST].decode("utf-8", "replace")
    if len(data) <= _MOST:
        return named_text(name, text), f"@{name}: {size(len(data))}"
    text += f"\n[the first {size(_MOST)} of {size(path.stat().st_size)}; read_file reads the rest]"
    return named_text(name, text), f"@{name}: the first {size(_MOST)}"


def names_of(typed: str, ctx: ToolContext) -> Iterator[str]:
    """The files and folders that may be meant by the beginning of a path, within what the pod may read."""
    folder, _, beginning = typed.rpartition("/")
    before = f"{folder}/" if "/" in typed else ""
    try:
        inside = ctx.path(os.path.expanduser(before or "."))  # noqa: PTH111 - a text that may be no path
        entries = place.listing(inside, limit=5000, sizes=False)
    except (ScopeRefused, ToolError, OSError):
        return
    offered = 0
    for entry in sorted(entries, key=lambda each: (not each.is_dir, each.name)):
        hidden = entry.name.startswith(".") and not beginning.startswith(".")
        if hidden or not entry.name.casefold().startswith(beginning.casefold()):
            continue
        if not ctx.scope.permits(inside / entry.name, "read"):
            continue
        yield f"{before}{entry.name}{'/' if entry.is_dir else ''}"
        offered += 1
        if offered == _OFFERED:
            return
