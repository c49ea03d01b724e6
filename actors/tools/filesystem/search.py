"""The search tools: names by glob, lines by regular expression, both under the pod's scope."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from msgspec import Meta

from actors.tools.alike import LOOKS, alike
from actors.tools.base import ToolContext, tool
from actors.tools.filesystem import place
from actors.tools.filesystem.files import PathArgument, refuse_binary
from actors.tools.filesystem.glob import matcher, names_in
from actors.tools.filesystem.matching import LINE_CAP, Hit, Invalid, Matcher, TooSlow
from actors.tools.filesystem.walk import Found, LeftOut, walk
from actors.tools.scope import Located
from protocol.errors import ChildNotStarted, ToolError

_FILE_CAP = 8 * 1024 * 1024
_SHOWN_COLUMNS = 300
_SECONDS_A_FILE = 5.0
_SHOWN_PATTERN = 200
#: Files, or bytes of them, that are matched together.
_HANDFUL, _HANDFUL_BYTES = 64, 1 << 18

IncludeIgnored = Annotated[
    bool, Meta(description="include what .gitignore excludes, node_modules, .venv and similar")
]
Limit = Annotated[int, Meta(ge=1, le=10_000)]


@tool(concurrency="read_only", timeout=120)
def find_files(
    pattern: Annotated[str, Meta(description="a glob like *.py, src/**/*.md or {a,b}*; '*' for all")],
    path: PathArgument = ".",
    include_ignored: IncludeIgnored = False,
    limit: Limit = 200,
    *,
    ctx: ToolContext,
) -> str:
    """Find files and directories by name. A pattern without '/' fits names at any depth."""
    fits = matcher(pattern)
    where, left_out = ctx.locate(path), LeftOut()
    found = walk(
        ctx, where.path, include_ignored=include_ignored, wanted=names_in(pattern), left_out=left_out
    )
    names = [
        place.shown(f"{each.relative}/" if each.is_dir else each.relative)
        for each in islice((each for each in found if fits(each.relative)), limit + 1)
    ]
    if len(names) > limit:
        names[limit:] = [f"[more than {limit} match; narrow the pattern or the path]"]
    shown = names or [f"nothing below {path} matches {pattern!r}"]
    return "\n".join([*_noted(where), *shown, *left_out.notes(fits, nothing=not names)])


@tool(concurrency="read_only", timeout=120)
def grep(
    pattern: Annotated[str, Meta(description="a regular expression in Python's syntax")],
    path: PathArgument = ".",
    glob: Annotated[str | None, Meta(description="only files whose name matches, like *.py")] = None,
    ignore_case: bool = False,
    context: Annotated[int, Meta(ge=0, le=20, description="lines shown before and after")] = 0,
    include_ignored: IncludeIgnored = False,
    limit: Annotated[int, Meta(ge=1, le=10_000, description="matching lines at most")] = 100,
    *,
    ctx: ToolContext,
) -> str:
    """Find lines by a regular expression, as file:line: text. Binary files are passed over."""
    where, left_out = ctx.locate(path), LeftOut()
    fits = matcher(glob) if glob else _any
    wanted = names_in(glob) if glob else set()
    if where.path.is_file():
        files = iter([Found(path, where.path, is_dir=False)])
    else:
        found = walk(ctx, where.path, include_ignored=include_ignored, wanted=wanted, left_out=left_out)
        files = (each for each in found if not each.is_dir and fits(each.relative))
    try:
        with _at_work(pattern, ignore_case=ignore_case) as at_work:
            forget = ctx.cancel.on_cancel(at_work.kill)
            try:
                shown, notes = _matching(files, at_work, limit, context)
            finally:
                forget()
    except TooSlow as error:
        ctx.cancel.raise_if_cancelled()
        raise ToolError(str(error), hint="avoid nested repeats, like (a+)+") from error
    except ChildNotStarted as error:
        raise ToolError(f"nothing was searched: {error.message}", hint=error.hint) from error
    except Invalid as error:
        raise ToolError(
            f"{_short(pattern)} is not a regular expression: {error}",
            hint="escape special characters with a backslash",
        ) from error
    notes += left_out.notes(fits, nothing=not shown)
    shown = shown or [f"no line below {path} matches {_short(pattern)}{_why_none(pattern)}"]
    return "\n".join([*_noted(where), *shown, *notes])


def _at_work(pattern: str, *, ignore_case: bool) -> Matcher:
    """A matcher that also finds what only looks the same, where the pattern holds such a thing."""
    loose = alike(pattern)
    several = not loose.isascii() or re.search("[ '\"]", loose)
    return Matcher(
        pattern,
        ignore_case=ignore_case,
        seconds=_SECONDS_A_FILE,
        loose=loose if several else None,
        looks=LOOKS,
    )


def _any(_: str) -> bool:
    return True


def _noted(where: Located) -> list[str]:
    return [where.note] if where.note else []


def _matching(
    files: Iterator[Found], at_work: Matcher, limit: int, context: int
) -> tuple[list[str], list[str]]:
    """What is shown of all files, and notes on what is left out."""
    shown: list[str] = []
    notes: list[str] = []
    skipped, cut, left = 0, 0, limit
    for texts, unread in _handfuls(files):
        skipped += unread
        found = at_work.hits(texts, most=left + 1)
        for (name, text), hits in zip(texts.items(), found, strict=True):
            cut += len(text) > LINE_CAP and _has_long_line(text)
            shown += _shown(place.shown(name), text, hits[:left], context)
            left -= len(hits)
        if left < 0:
            notes.append(f"[more than {limit} lines match; narrow the pattern or the path]")
            break
    if cut:
        notes.append(f"[in {cut} files only the first {LINE_CAP:,} characters of long lines were searched]")
    if skipped:
        cap = _FILE_CAP // 1024**2
        notes.append(f"[{skipped} files were skipped: binary, over {cap} MB, or not readable]")
    return shown, notes


def _handfuls(files: Iterator[Found]) -> Iterator[tuple[dict[str, bytes], int]]:
    """Some texts at a time, by their names, with the number of files that are none."""
    texts: dict[str, bytes] = {}
    size, unread = 0, 0
    with place.Opener() as opener:
        for file in files:
            text = _text(opener, file)
            if text is None:
                unread += 1
                continue
            texts[file.relative] = text
            size += len(text)
            if len(texts) == _HANDFUL or size > _HANDFUL_BYTES:
                yield texts, unread
                texts, size, unread = {}, 0, 0
    yield texts, unread


def _has_long_line(text: bytes) -> bool:
    return max(map(len, text.split(b"\n"))) > LINE_CAP


def _short(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= _SHOWN_PATTERN else f"{pattern[:_SHOWN_PATTERN]!r}…"


def _why_none(pattern: str) -> str:
    one_line = "\n" in pattern or re.search(r"(?<!\\)(?:\\\\)*\\n", pattern)
    return " (lines are matched one by one, so no match can span a line end)" if one_line else ""


def _text(opener: place.Opener, file: Found) -> bytes | None:
    """What a file holds; None where it is not text, is too large, or cannot be read."""
    try:
        with opener.opened(file.path) as opened:
            if place.stamp(opened).size > _FILE_CAP:
                return None
            refuse_binary(opened, file.relative)
            return opened.read(_FILE_CAP)
    except ToolError:
        return None


def _shown(name: str, text: bytes, hits: list[Hit], context: int) -> list[str]:
    """The hits of one file as lines, with their neighbours where asked for."""
    if not hits:
        return []
    lines = text.split(b"\n")
    columns = {hit.line: hit.column for hit in hits}
    wanted = sorted(
        {
            number
            for hit in hits
            for number in range(max(1, hit.line - context), min(len(lines), hit.line + context) + 1)
        }
    )
    shown = []
    for before, number in zip([wanted[0] - 1, *wanted], wanted, strict=False):
        if context and number > before + 1:
            shown.append("--")
        line = _excerpt(lines[number - 1].decode("utf-8", "replace").rstrip("\r"), columns.get(number, 0))
        mark = ":" if number in columns else "-"
        shown.append(f"{name}{mark}{number}{mark} {line}")
    return shown


def _excerpt(line: str, column: int) -> str:
    """A line, or of a long one the part around the match."""
    if len(line) <= _SHOWN_COLUMNS:
        return line
    start = max(0, column - _SHOWN_COLUMNS // 3)
    end = start + _SHOWN_COLUMNS
    return f"{'…' if start else ''}{line[start:end]}{'…' if end < len(line) else ''}"


SEARCH = (find_files, grep)
