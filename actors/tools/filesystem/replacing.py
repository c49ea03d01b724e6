"""Replacing a text within a file's text, pure: the file's own line ends stay, and what is shown is a diff."""

from __future__ import annotations

import bisect
import re
import unicodedata
from itertools import islice
from typing import NamedTuple

from actors.tools.alike import LOOKS, alike
from actors.tools.filesystem.view import view
from protocol.errors import ToolError

_DIFF_LINES = 60
_DIFF_PLACES = 3
#: Where ``old`` should occur once, how many places are counted.
_MOST_COUNTED = 1_000
#: How many places are replaced one by one, each with the line ends around it.
_MOST_PLACES = 50_000
_ENDS = re.compile(r"\r\n|\n")
#: Bytes that are not UTF-8, as they were decoded.
_NO_UTF_8 = re.compile("[\udc80-\udcff]")
_CR_ENDS = re.compile(r"\r\n|\n|\r")


class Change(NamedTuple):
    """A stretch of the text, and what comes in its place."""

    start: int
    end: int
    new: str


class Edited(NamedTuple):
    """The new text, the first changes to the old one in order, how many there are, and whether ``old``
    only looked the same.
    """

    text: str
    changes: list[Change]
    places: int
    loosely: bool


def edit(text: str, old: str, new: str, *, everywhere: bool, any_form: bool, name: str) -> Edited:
    """``text`` (of the file ``name``; bytes that are not UTF-8 as surrogates) with ``new`` for ``old``.

    ``old`` may have other line ends than the text, and where it does not occur as it is, other blanks
    and quotes; with ``any_form`` also composed characters for decomposed ones. What comes in has the
    line ends of what it replaces, or of its neighbours. Raises ToolError where ``old`` does not occur
    exactly once, unless ``everywhere``.
    """
    if everywhere and "\r" not in text and not _NO_UTF_8.search(text):
        plain = _ENDS.sub("\n", old)
        if plain in text:
            return _replaced_plainly(text, plain, _ENDS.sub("\n", new))
    cr_ends = "\n" not in text and "\r" in text  # a lone CR ends a line where nothing else does
    ends = _CR_ENDS if cr_ends else _ENDS
    wanted = ends.sub("\n", old)
    most = _MOST_PLACES if everywhere else _MOST_COUNTED
    spans = list(islice(view(text, loose=False, cr_ends=cr_ends).spans(wanted, apart=everywhere), most + 1))
    loosely = not spans
    if loosely and alike(wanted) in alike(ends.sub("\n", text)):  # else no place needs to be found
        found = view(text, loose=True, cr_ends=cr_ends).spans(alike(wanted), apart=everywhere)
        spans = list(islice(found, most + 1))
        if spans and not any_form and _forms_differ(text, spans, wanted, ends):
            raise ToolError(
                f"the text occurs in {name} (line {line_of(text, spans[0][0])}) in another Unicode form: "
                "its characters are composed in one and decomposed in the other",
                hint="set any_form to replace it anyway",
            )
    if len(spans) != 1 and not (spans and everywhere):
        raise ToolError(_why_not(text, old, spans, name))
    if len(spans) > _MOST_PLACES:
        raise ToolError(f"the text occurs more than {_MOST_PLACES:,} times in {name}, too many for an edit")
    _check_encoding(text, new, spans, name)
    if any_form and loosely and all(unicodedata.is_normalized("NFD", text[slice(*span)]) for span in spans):
        new = unicodedata.normalize("NFD", new)  # so that the file does not come to hold both
    changes = [Change(*span, _with_ends(text, span, ends.split(new), ends)) for span in spans]
    if all(text[change.start : change.end] == change.new for change in changes):
        raise ToolError("old and new differ only in line endings, which stay as they are in the file")
    pieces, at = [], 0
    for change in changes:
        pieces += [text[at : change.start], change.new]
        at = change.end
    return Edited("".join([*pieces, text[at:]]), changes[:_DIFF_PLACES], len(changes), loosely)


def _replaced_plainly(text: str, old: str, new: str) -> Edited:
    """Every ``old`` by ``new`` where line ends and encodings have one form, however many there are."""
    if old == new:
        raise ToolError("old and new differ only in line endings, which stay as they are in the file")
    changes: list[Change] = []
    at = text.find(old)
    while at >= 0 and len(changes) < _DIFF_PLACES:
        changes.append(Change(at, at + len(old), new))
        at = text.find(old, at + len(old))
    return Edited(text.replace(old, new), changes, text.count(old), loosely=False)


def with_ends_of(sample: str, new: str) -> str:
    """``new`` with the line ends of ``sample`` where these are all CRLF; else as it is."""
    crlf = sample.count("\r\n")
    return _ENDS.sub("\r\n", new) if crlf and crlf == sample.count("\n") else new


def _forms_differ(text: str, spans: list[tuple[int, int]], wanted: str, ends: re.Pattern[str]) -> bool:
    """Whether more differs than blanks and quotes."""
    plain = wanted.translate(LOOKS)
    return any(ends.sub("\n", text[slice(*span)]).translate(LOOKS) != plain for span in spans)


def _with_ends(text: str, span: tuple[int, int], lines: list[str], ends: re.Pattern[str]) -> str:
    """``lines`` with the line ends that stand in the stretch, then its last, or that of a neighbour."""
    own = ends.findall(text, *span)
    if not own and len(lines) > 1:
        after = ends.search(text, span[1])
        before = None if after else _last(ends, text, span[0])
        own = [after[0]] if after else [before or "\n"]
    pieces = [lines[0]]
    for n, line in enumerate(lines[1:]):
        pieces += [own[min(n, len(own) - 1)], line]
    return "".join(pieces)


def _last(ends: re.Pattern[str], text: str, until: int) -> str | None:
    found = ends.findall(text, 0, until)
    return found[-1] if found else None


def _check_encoding(text: str, new: str, spans: list[tuple[int, int]], name: str) -> None:
    """Refuse what would be read as something else in a file of another encoding than UTF-8."""
    if not _NO_UTF_8.search(text):
        return
    hint = "convert the file to UTF-8 first"
    if not new.isascii():
        raise ToolError(f"{name} is not in UTF-8, so only ASCII text can be inserted", hint=hint)
    for start, _ in spans:
        # the second byte of a character of two, in encodings of East Asia, may look like a letter
        if start and "\udc80" <= text[start - 1] <= "\udcff" and "@" <= text[start] <= "~":
            raise ToolError(
                f"{name} is not in UTF-8, and old may begin inside a character (line {line_of(text, start)})",
                hint=f"begin old at a space, a digit or the start of a line, or {hint}",
            )


def _why_not(text: str, old: str, spans: list[tuple[int, int]], name: str) -> str:
    if spans:
        lines = ", ".join(str(line_of(text, start)) for start, _ in spans[:10])
        many = f"more than {_MOST_COUNTED:,}" if len(spans) > _MOST_COUNTED else len(spans)
        return (
            f"the text occurs {many} times in {name} (lines {lines}): include more of the "
            "surrounding text, or set replace_all"
        )
    at = _line_but_for_blanks(text, old)
    if at is not None:
        return f"the text does not occur in {name}; at line {at} only spaces or line endings differ"
    return f"the text does not occur in {name}: read it again, and copy the text exactly"


def _line_but_for_blanks(text: str, old: str) -> int | None:
    """The line where ``old`` would begin if blanks and line ends did not count.

    In linear time, and in steps: a regular expression for it took minutes on some texts, during which
    no other thread of the process ran.
    """
    wanted = " ".join(old.split())
    if not wanted:
        return None
    shown: list[str] = []
    starts, numbers, length = [], [], 0
    for number, line in enumerate(text.split("\n"), 1):
        words = " ".join(line.split())
        if words:
            shown.append(words)
            starts.append(length)
            numbers.append(number)
            length += len(words) + 1
    at = " ".join(shown).find(wanted)
    return None if at < 0 else numbers[bisect.bisect_right(starts, at) - 1]


def line_of(text: str, at: int) -> int:
    """The number of the line at a place, from 1."""
    return text.count("\n", 0, at) + 1


def diff(text: str, changes: list[Change]) -> str:
    """A small unified diff around the first changes."""
    parts = []
    for change in changes[:_DIFF_PLACES]:
        start, end = _around(text, change.start, change.end)
        before = text[start:end].splitlines()
        after = (text[start : change.start] + change.new + text[change.end : end]).splitlines()
        lines = _small_diff(before, after)[:_DIFF_LINES]
        parts.append("\n".join([f"@@ line {line_of(text, start)} @@", *lines]))
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
