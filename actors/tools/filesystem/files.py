"""The file tools: read, list, count, write and edit, each under the pod's scope."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from msgspec import Meta

from actors.tools.base import ToolContext, tool
from actors.tools.cancel import Cancel
from actors.tools.filesystem import place
from actors.tools.filesystem.ignored import ignored_at
from actors.tools.filesystem.replacing import diff, edit, with_ends_of
from actors.tools.filesystem.walk import secret_notes
from actors.tools.scope import Located, check
from protocol.errors import ScopeRefused, ToolError
from protocol.guarded import is_secret

_LINE_CAP = 2000
_EDIT_CAP = 16 * 1024 * 1024
_LIST_SCAN = 20_000
_CHUNK = 1 << 16
_SHOWN_NAMES = 5
_PROBE = 8192
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

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
    where = ctx.locate(path)
    room = ctx.output_cap - 200 - len(where.note)  # for the notes
    shown: list[str] = []
    with place.opened(where.path) as file:
        refuse_binary(file, path)
        number = 0
        for number, line in enumerate(_lines(file, ctx.cancel), 1):
            ctx.cancel.raise_if_cancelled()
            if number < offset:
                continue
            room -= len(line.encode())
            if len(shown) == limit or (shown and room < 0):
                shown.append(f"[more lines follow; go on with offset={number}]\n")
                break
            shown.append(line)
    return _noted(where, "".join(shown) or _nothing_at(offset, number, path))


@tool(concurrency="read_only", timeout=60)
def list_files(
    path: PathArgument = ".",
    hidden: Annotated[bool, Meta(description="include names that begin with a dot")] = False,
    include_ignored: Annotated[bool, Meta(description="include what .gitignore excludes")] = False,
    limit: Limit = 500,
    *,
    ctx: ToolContext,
) -> str:
    """List a directory: directories first, then files with their sizes in bytes."""
    where = ctx.locate(path)
    found = place.listing(where.path, limit=_LIST_SCAN)
    wanted = [entry for entry in found if hidden or not entry.name.startswith(".")]
    rules = None if include_ignored else ignored_at(ctx, where.path).below(ctx, where.path, "")
    lines: list[str] = []
    secret: list[str] = []
    ignored: list[str] = []
    for entry in sorted(wanted, key=lambda entry: (not entry.is_dir, entry.name)):
        ctx.cancel.raise_if_cancelled()
        line = _entry_line(entry, where.path, ctx)
        if line is not None and rules is not None and rules.holds(entry.name, is_dir=entry.is_dir):
            ignored.append(place.shown(f"{entry.name}/" if entry.is_dir else entry.name))
        elif line is not None:
            lines.append(line)
        elif is_secret(entry.name, where.path.name):
            secret.append(entry.name)
        if len(lines) > limit:
            lines[limit:] = ["[more entries follow; raise limit or use find_files]"]
            break
    lines = lines or [f"{path} has no entries that can be shown"]
    if ignored:
        lines.append(f"[left out as ignored: {_some(ignored)}; set include_ignored to see all]")
    lines += secret_notes(secret)
    return _noted(where, "\n".join(lines))


@tool(concurrency="read_only", timeout=60)
def count_words(path: PathArgument, *, ctx: ToolContext) -> str:
    """Count the words, lines and bytes of a text file."""
    words = lines = size = 0
    inside = False
    where = ctx.locate(path)
    with place.opened(where.path) as file:
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
    return _noted(where, f"{path}: {words:,} words, {lines:,} lines, {size:,} bytes")


@tool(timeout=60)
def write_file(
    path: PathArgument,
    content: str,
    append: Annotated[bool, Meta(description="add to the end instead of replacing the file")] = False,
    *,
    ctx: ToolContext,
) -> str:
    """Write a text file: make it, replace it whole, or add to its end. Missing directories are made."""
    if path.endswith(("/", "/.")):
        raise ToolError(
            f"{path} names a directory", hint="give the path of a file; missing directories are created"
        )
    where = ctx.locate(path, "write")
    if append:
        data = with_ends_of(_beginning(where.path), content).encode()
        place.append(where.path, data, may_make=_makes(ctx))
        return _noted(where, f"added {len(data):,} bytes to {path}")
    data = content.encode()
    old = place.replace(where.path, data, may_make=_makes(ctx))
    what = "a new file" if old is None else f"it had {old:,} bytes before"
    return _noted(where, f"wrote {len(data):,} bytes to {path} ({what})")


@tool(timeout=60)
def edit_file(
    path: PathArgument,
    old: Annotated[str, Meta(description="the text to replace, exactly as it stands in the file")],
    new: Annotated[str, Meta(description="the text to put in its place")],
    replace_all: Annotated[bool, Meta(description="replace every occurrence")] = False,
    any_form: Annotated[bool, Meta(description="match composed and decomposed characters alike")] = False,
    *,
    ctx: ToolContext,
) -> str:
    """Replace text in a file, which keeps its line ends. ``old`` must occur exactly once, unless
    ``replace_all``.
    """
    if not old:
        raise ToolError("old is empty", hint="give the text to replace in old, or use write_file")
    if old == new:
        raise ToolError("old and new are the same text")
    where = ctx.locate(path, "write")
    with place.opened(where.path) as file:
        stamp = place.stamp(file)
        if stamp.size > _EDIT_CAP:
            raise ToolError(f"{path} has {stamp.size:,} bytes; edit_file takes at most {_EDIT_CAP:,}")
        refuse_binary(file, path)
        # Bytes that are not UTF-8 go back as they came.
        text = file.read(_EDIT_CAP + 1).decode("utf-8", "surrogateescape")
    edited = edit(text, old, new, everywhere=replace_all, any_form=any_form, name=path)
    data = edited.text.encode("utf-8", "surrogateescape")
    place.replace(where.path, data, may_make=_makes(ctx), expected=stamp)
    times = "1 place" if edited.places == 1 else f"{edited.places:,} places"
    loosely = "; old differed from the file in spaces, quotes or Unicode forms" if edited.loosely else ""
    return _noted(where, f"edited {path} in {times}{loosely}\n{diff(text, edited.changes)}")


def refuse_binary(file: BinaryIO, path: str) -> None:
    """Raise ToolError where a file begins like no text; the file is at its start again after."""
    beginning = file.read(_PROBE)
    if beginning.startswith(_UTF_16):
        raise ToolError(f"{path} is in UTF-16; only UTF-8 can be read", hint="convert it to UTF-8")
    if b"\0" in beginning:
        size = file.seek(0, 2)
        raise ToolError(f"{path} is a binary file of {size:,} bytes, not text")
    file.seek(0)


def _beginning(path: Path) -> str:
    """How the file at ``path`` begins; nothing where there is none."""
    try:
        with place.opened(path) as file:
            return file.read(_CHUNK).decode("utf-8", "replace")
    except ToolError:
        return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_NAMES]) + (" and more" if len(names) > _SHOWN_NAMES else "")


def _noted(where: Located, text: str) -> str:
    return f"{where.note}\n{text}" if where.note else text


def _lines(file: BinaryIO, cancel: Cancel) -> Iterator[str]:
    """The lines of a file with ``\\n`` at their ends, each at most _LINE_CAP characters, then a mark."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    while raw := file.readline(_CHUNK):
        ended = raw.endswith(b"\n")
        while not ended and (rest := file.readline(_CHUNK)):
            cancel.raise_if_cancelled()
            ended = rest.endswith(b"\n")  # what a monstrous line goes on with is never held
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        mark = f" [… cut after {_LINE_CAP:,} characters]" if len(line) > _LINE_CAP else ""
        yield f"{line[:_LINE_CAP]}{mark}\n"


def _nothing_at(offset: int, count: int, path: str) -> str:
    if offset == 1:
        return f"[{path} is empty]"
    raise ToolError(f"{path} has only {count:,} lines; offset={offset:,} is past its end")


def _entry_line(entry: place.Entry, folder: Path, ctx: ToolContext) -> str | None:
    """How an entry is shown; None where the scope does not permit to read it."""
    try:
        target = check(ctx.scope, folder, entry.name, "read")
    except ScopeRefused:
        return None
    if entry.is_link:
        return f"{place.shown(entry.name)} -> {place.shown(str(target))}"
    if entry.is_dir:
        return place.shown(f"{entry.name}/")
    name = place.shown(entry.name)
    return name if entry.size is None else f"{name} ({entry.size:,} bytes)"


def _makes(ctx: ToolContext) -> Callable[[Path], bool]:
    """Missing directories are made only where the scope lets the pod write."""
    return lambda parent: ctx.scope.permits(parent, "write")


FILES = (read_file, list_files, count_words, write_file, edit_file)
