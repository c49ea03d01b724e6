"""A question for approval in words, and what a person's answer to it means; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from actors.cli.display.event_format import Line
from actors.cli.display.format import count, cut, seconds, visible
from protocol.events import ApprovalRequested

#: Lines of the screen that the arguments of a call share, and that each of them has at least.
_LINES, _FEWEST = 18, 3
#: Arguments that are shown by name; a call with more says how many more.
_MOST_ARGUMENTS = 30
#: Stands before each line of what a model gave, so that none of it looks like words of ours; and before what
#: such a line goes on with, where the screen is too narrow for it.
_BAR, _GOES_ON = "| ", "|↳"
#: Names of arguments that are shown as they are; others are shown as JSON, on one line.
_NAME = re.compile(r"[\w.-]+")
#: What is written before the answer.
PROMPT = "allow it? (y/n/a/?) "
#: What the answers are, a line each.
HELP = (
    "y allows it · n denies it · a always allows exactly this call · ? shows all of it",
    "text after the letter goes to the model: n not before Friday",
)

#: ``ended`` is that there is no answer, and will be none.
Answer = Literal["yes", "no", "always", "ended"]
_WORDS: dict[str, Answer | Literal["whole"]] = {
    "y": "yes",
    "yes": "yes",
    "n": "no",
    "no": "no",
    "a": "always",
    "always": "always",
    "?": "whole",
}
#: Words that may be the beginning of something that was meant otherwise: they answer only when alone.
_ALONE = frozenset({"yes", "always", "?"})


class Said(NamedTuple):
    """A person's answer: yes, no, always, or a wish to see the whole call; and a note for the model."""

    answer: Answer | Literal["whole"]
    note: str | None = None


def understood(line: str) -> Said | None:
    """What a line means as an answer; None where it is none."""
    word, _, note = line.strip().partition(" ")
    word, note = word.lower().rstrip(",;:.!") or word, note.strip()
    answer = _WORDS.get(word)
    if answer is None or (note and word in _ALONE):
        return None
    return Said(answer, note or None)


def not_understood_lines(line: str, width: int) -> Iterator[Line]:
    """Why ``line`` is not an answer, and what would be one."""
    word, _, note = line.strip().partition(" ")
    if note and (letter := word.lower().rstrip(",;:.!")) in _ALONE:
        why = f"“{letter}” is an answer only by itself"
        if letter != "?":
            why += f": put a message for the model after a letter, as in {letter[0]} {note.strip()}"
    else:
        why = f"“{cut(line, 40)}” is not an answer" if line.strip() else "an empty line is not an answer"
        why += ": type y, n, a or ?, and after it a message for the model"
    yield from wrapped("note", why, width)


def question_lines(
    request: ApprovalRequested, width: int, now: float, *, behind: int = 0, whole: bool = False
) -> Iterator[Line]:
    """The question on lines of at most ``width`` columns; unless ``whole``, long arguments are cut.

    ``behind`` is the number of calls that wait behind this one.
    """
    yield from wrapped(
        "note", f"pod {request.pod} wants to run {request.tool} and waits for your approval", width
    )
    if not request.arguments:
        yield from wrapped("quiet", "without arguments", width)
    limit = None if whole else max(_FEWEST, _LINES // max(len(request.arguments), 1))
    for number, (name, value) in enumerate(request.arguments.items()):
        if not whole and number == _MOST_ARGUMENTS:
            yield from _left_out(count(len(request.arguments) - number, "more argument"), width)
            break
        yield from _argument(name, value, width, limit)
    if request.why:
        yield from wrapped("quiet", f"why: {request.why}", width)
    if request.timeout is not None:
        left = seconds(max(request.ends_at - now, 0))
        yield from wrapped("quiet", f"denied if nobody answers within {left}", width)
    if behind:
        yield from wrapped("quiet", f"{count(behind, 'more call')} waiting", width)
    for line in HELP:
        yield from wrapped("quiet", line, width)


def _argument(name: str, value: Any, width: int, limit: int | None) -> Iterator[Line]:
    shown, left = 0, 0
    for text in _texts(name, value):
        bar = _BAR
        for piece in _pieces(visible(text), max(width - len(_BAR), 1)):
            if limit is None or shown < limit:
                shown += 1
                yield Line("answer", bar + piece)
            else:
                left += len(piece)
            bar = _GOES_ON
    if left:
        yield from _left_out(count(left, "more character"), width)


def _left_out(what: str, width: int) -> Iterator[Line]:
    for line in wrapped("note", f"… {what}", max(width - len(_BAR), 1)):
        yield line._replace(text=_BAR + line.text)


def _texts(name: str, value: Any) -> Iterator[str]:
    """An argument as JSON, and text of several lines as the lines it has."""
    if not _NAME.fullmatch(name):
        name = msgspec.json.encode(name).decode()
    if isinstance(value, str) and "\n" in value.strip("\n"):
        yield f"{name} ="
        yield from (f"  {line}" for line in value.split("\n"))
    else:
        written = msgspec.json.encode(value).decode()
        if len(written) > 60 and isinstance(value, dict | list):
            written = msgspec.json.format(written, indent=2)
        yield from f"{name} = {written}".split("\n")


def given_lines(text: str, width: int) -> Iterator[Line]:
    """Words that are not ours on several lines, parted between words, each behind a bar."""
    bar = _BAR
    for line in wrapped("answer", text, max(width - len(_BAR), 1)):
        yield line._replace(text=bar + line.text)
        bar = _GOES_ON


def wrapped(tone: str, text: str, width: int) -> Iterator[Line]:
    """Words of ours on several lines, parted between words where that can be."""
    line = ""
    for word in visible(text).split(" "):
        for piece in _pieces(word, width):
            if line and _columns(line) + 1 + _columns(piece) > width:
                yield Line(tone, line)
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    yield Line(tone, line)


def _columns(text: str) -> int:
    """How many columns ``text`` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - only a terminal pays for rich

    return cell_len(text)


def _pieces(text: str, width: int) -> list[str]:
    """``text`` in pieces of at most that many columns; one at least."""
    if text.isascii():
        return [text[start : start + width] for start in range(0, len(text), width)] or [""]
    from rich.cells import chop_cells  # noqa: PLC0415 - only a terminal pays for rich

    return chop_cells(text, width) or [""]
