"""The file tools: read, list, count, write and edit, each under the pod's scope."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from msgspec import Meta

from actors.tools import place
from actors.tools.base import ToolContext, tool
from actors.tools.scope import check
from protocol.errors import ScopeRefused, ToolError

_LINE_CAP = 2000
_EDIT_CAP = 16 * 1024 * 1024
_LIST_SCAN = 20_000
_DIFF_LINES = 60
_DIFF_PLACES = 3
_CHUNK = 1 << 16
_PROBE = 8192

PathArgument = Annotated[str, Meta(description="relative to the working directory, or absolute")]
Limit = Annotated[int, Meta(ge=1, le=10_000)]


@tool(concurrency="read_only", timeout=60)
def read_file(
    path: PathArgument,
    offset: Annotated[int, Meta(ge=1, description="the first line to read, from 1")] = 1,
    limit: Annotated[int, Meta(ge=1, description="how many lines at most")] = 2000,
    *,
    ctx: ToolContext,
) -> str:
    """Read a text file, or some lines of it. What is left out is said at the end."""
    target = ctx.path(path)
    room = ctx.output_cap - 200  # for the note at the end
    shown: list[str] = []
    with place.opened(target) as file:
        refuse_binary(file, path)
        number = 0
        for number, line in enumerate(_lines(file), 1):
            ctx.cancel.raise_if_cancelled()
            if number < offset:
                continue
            room -= len(line.encode())
            if len(shown) == limit or (shown and room < 0):
                shown.append(f"[more lines follow; go on with offset={number}]\n")
                break
            shown.append(line)
    if not shown:
        return _nothing_at(offset, number, path)
    return "".join(shown)


@tool(concurrency="read_only", timeout=60)
def list_files(
    path: PathArgument = ".",
    hidden: Annotated[bool, Meta(description="also names that begin with a dot")] = False,
    limit: Limit = 500,
    *,
    ctx: ToolContext,
) -> str:
    """List a directory: directories first, then files with their sizes in bytes."""
    target = ctx.path(path)
    found = place.listing(target, limit=_LIST_SCAN)
    wanted = [entry for entry in found if hidden or not entry.name.startswith(".")]
    lines = []
    for entry in sorted(wanted, key=lambda entry: (not entry.is_dir, entry.name)):
        ctx.cancel.raise_if_cancelled()
        line = _entry_line(entry, target, ctx)
        if line is not None:
            lines.append(line)
        if len(lines) > limit:
            lines[limit:] = ["[more entries follow; raise limit or use find_files]"]
            break
    return "\n".join(lines) or f"{path} holds nothing that can be shown"


@tool(concurrency="read_only", timeout=60)
def count_words(path: PathArgument, *, ctx: ToolContext) -> str:
    """Count the words, lines and bytes of a text file."""
    words = lines = size = 0
    inside = False
    with place.opened(ctx.path(path)) as file:
        refuse_binary(file, path)
        while chunk := file.read(_CHUNK):
            ctx.cancel.raise_if_cancelled()
            # A word that goes on over the edge of a chunk counts once.
            words += len(chunk.split()) - (inside and not chunk[:1].isspace())
            inside = not chunk[-1:].isspace()
            lines += chunk.count(b"\n")
            size += len(chunk)
            unended = chunk[-1:] != b"\n"
    lines += bool(size and unended)
    return f"{path}: {words:,} words, {lines:,} lines, {size:,} bytes"


@tool(timeout=60)
def write_file(
    path: PathArgument,
    content: str,
    append: Annotated[bool, Meta(description="add to the end instead of replacing the file")] = False,
    *,
    ctx: ToolContext,
) -> str:
    """Write a text file: make it, replace it whole, or add to its end. Missing directories are made."""
    target = ctx.path(path, "write")
    data = content.encode()
    if append:
        place.append(target, data, may_make=_makes(ctx))
        return f"added {len(data):,} bytes to {path}"
    old = place.replace(target, data, may_make=_makes(ctx))
    what = "a new file" if old is None else f"it had {old:,} bytes before"
    return f"wrote {len(data):,} bytes to {path} ({what})"


@tool(timeout=60)
def edit_file(
    path: PathArgument,
    old: Annotated[str, Meta(description="the text to replace, exactly as it stands in the file")],
    new: Annotated[str, Meta(description="the text to put in its place")],
    replace_all: Annotated[bool, Meta(description="replace every occurrence")] = False,
    *,
    ctx: ToolContext,
) -> str:
    """Replace text in a file. ``old`` must occur exactly once, unless ``replace_all``."""
    if not old:
        raise ToolError("old is empty", hint="give the text to replace, or use write_file")
    target = ctx.path(path, "write")
    with place.opened(target) as file:
        stamp = place.stamp(file)
        if stamp.size > _EDIT_CAP:
            raise ToolError(f"{path} has {stamp.size:,} bytes; edit_file takes at most {_EDIT_CAP:,}")
        refuse_binary(file, path)
        # Bytes that are no UTF-8 go back as they came.
        text = file.read().decode("utf-8", "surrogateescape")
    if old not in text and "\r\n" in text and "\r" not in old:
        old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
    if old == new:
        raise ToolError("old and new are the same text")
    places = [found.start() for found in re.finditer(re.escape(old), text)]
    if len(places) != 1 and not (places and replace_all):
        raise ToolError(_why_not(text, old, places, path))
    data = text.replace(old, new).encode("utf-8", "surrogateescape")
    place.replace(target, data, may_make=_makes(ctx), expected=stamp)
    times = "1 place" if len(places) == 1 else f"{len(places)} places"
    return f"edited {path} in {times}\n{_diff(text, old, new, places)}"


def refuse_binary(file: BinaryIO, path: str) -> None:
    """Raise ToolError where a file begins like no text; the file is at its start again after."""
    if b"\0" in file.read(_PROBE):
        size = file.seek(0, 2)
        raise ToolError(f"{path} is a binary file of {size:,} bytes, not text")
    file.seek(0)


def _lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a file with ``\\n`` at their ends, each at most _LINE_CAP characters, then a mark."""
    while raw := file.readline(_CHUNK):
        ended = raw.endswith(b"\n")
        while not ended and (rest := file.readline(_CHUNK)):
            ended = rest.endswith(b"\n")  # what a monstrous line goes on with is never held
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        mark = f" [… cut after {_LINE_CAP:,} characters]" if len(line) > _LINE_CAP else ""
        yield f"{line[:_LINE_CAP]}{mark}\n"


def _nothing_at(offset: int, count: int, path: str) -> str:
    if offset == 1:
        return f"[{path} is empty]"
    raise ToolError(f"{path} has only {count:,} lines, so there is none from {offset:,} on")


def _entry_line(entry: place.Entry, folder: Path, ctx: ToolContext) -> str | None:
    """How an entry is shown; None where the scope does not permit to read it."""
    try:
        target = check(ctx.scope, folder, entry.name, "read")
    except ScopeRefused:
        return None
    if entry.is_link:
        return f"{entry.name} -> {target}"
    if entry.is_dir:
        return f"{entry.name}/"
    return entry.name if entry.size is None else f"{entry.name} ({entry.size:,} bytes)"


def _makes(ctx: ToolContext) -> Callable[[Path], bool]:
    """Missing directories are made only where the scope lets the pod write."""
    return lambda parent: ctx.scope.permits(parent, "write")


def _why_not(text: str, old: str, places: list[int], path: str) -> str:
    if places:
        lines = ", ".join(str(_line_of(text, at)) for at in places[:10])
        return (
            f"the text occurs {len(places)} times in {path} (lines {lines}): "
            "give more of what stands around it, or set replace_all"
        )
    loose = r"\s+".join(re.escape(word) for word in old.split()[:200])
    near = re.search(loose, text) if loose else None
    if near is not None:
        at = _line_of(text, near.start())
        return f"the text does not occur in {path}; at line {at} it differs in spaces or line ends"
    return f"the text does not occur in {path}: read it again, and copy the text exactly"


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _diff(text: str, old: str, new: str, places: list[int]) -> str:
    """A small unified diff around the first places."""
    parts = []
    for at in places[:_DIFF_PLACES]:
        start, end = _around(text, at, at + len(old))
        before = text[start:end].splitlines()
        after = (text[start:at] + new + text[at + len(old) : end]).splitlines()
        first = _line_of(text, start)
        lines = _small_diff(before, after)[:_DIFF_LINES]
        parts.append("\n".join([f"@@ line {first} @@", *lines]))
    return "\n".join(parts).encode("utf-8", "replace").decode()


def _around(text: str, start: int, end: int, lines: int = 2) -> tuple[int, int]:
    """The stretch from ``lines`` lines before ``start`` to as many after ``end``."""
    for _ in range(lines + 1):
        start = text.rfind("\n", 0, start)
        if start < 0:
            break
    for _ in range(lines + 1):
        found = text.find("\n", end)
        if found < 0:
            end = len(text)
            break
        end = found + 1
    return start + 1, end


def _small_diff(before: list[str], after: list[str]) -> list[str]:
    """Lines with ``-``, ``+`` or a space in front: what both sides begin and end with is context."""
    short = min(len(before), len(after))
    head = next((n for n in range(short) if before[n] != after[n]), short)
    tail = next((n for n in range(short - head) if before[-1 - n] != after[-1 - n]), short - head)
    return [
        *(f" {line}" for line in before[:head]),
        *(f"-{line}" for line in before[head : len(before) - tail]),
        *(f"+{line}" for line in after[head : len(after) - tail]),
        *(f" {line}" for line in before[len(before) - tail :]),
    ]


FILES = (read_file, list_files, count_words, write_file, edit_file)
