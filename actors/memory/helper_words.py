"""Reads the words of a helper agent that did not call its tool: weak models write the call down, or talk."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.output import Fit, parse_output
from actors.memory.findings import Discussion, Extracted
from actors.memory.notes_draft import NotePiece

_THOUGHT = re.compile(r"(?s)<think>.*?(?:</think>|\Z)")
#: Words by which a model says that it has nothing to say.
_NOTHING = re.compile(
    r"\W*(?:(?:there (?:is|was|are)|i (?:have|found|see)|it is)\s+)?"
    r"(?:nothing|none|no\b|n/a|done|ok(?:ay)?\b|noted|finished|ready|\[\]|\{\})(?:\s+\S+){0,6}\W*",
    re.IGNORECASE,
)
_TOPIC = 60


def said(text: str) -> str:
    """The text without reasoning; empty if it says nothing."""
    return _THOUGHT.sub("", text).strip()


def says_nothing(text: str) -> bool:
    """Whether a text says, in a few words, that there is nothing to say."""
    words = said(text)
    return not words or _NOTHING.fullmatch(words) is not None


class _Written(Struct):
    text: str


def summary_in_words(text: str) -> str:
    """The summary that a model gave in words: the argument of the call that it wrote down, or everything it
    said.
    """
    for arguments in _arguments(text, _Written):
        if arguments.text.strip():
            return str(arguments.text)
    return said(text)


def extracted_in_words(text: str) -> Extracted:
    """What a model found, given in words: read as JSON if there is any, otherwise kept as they are."""
    for found in _arguments(text, Extracted):
        if len(found):
            return found  # type: ignore[no-any-return]
    if says_nothing(text):
        return Extracted()
    words = said(text)
    if isinstance(parse_output(words, Extracted), Fit) and words[0] in "{[":
        return Extracted()  # four empty lists, written down
    first = " ".join(words.splitlines()[0].split())
    topic = first if len(first) <= _TOPIC else f"{first[: _TOPIC - 1].rstrip()}…"
    return Extracted(discussions=(Discussion(topic, (words,)),))


def notes_in_words(text: str) -> list[NotePiece]:
    """The notes that a model wrote down as JSON instead of calling ``write_memory`` for each."""
    fit = parse_output(text, list[NotePiece])
    if isinstance(fit, Fit) and fit.value:
        return list(fit.value)
    return [each for each in _arguments(text, NotePiece) if each.text.strip()][:1]


def _arguments(text: str, kind: type) -> list[Any]:
    """The instances of ``kind`` in a text, bare or as the arguments of a call, in the formats of chat
    templates.
    """
    found = []
    for name in ("arguments", "parameters", "input"):
        wrapped = msgspec.defstruct("Wrapped", [(name, kind)])
        fit = parse_output(text, wrapped)
        if isinstance(fit, Fit):
            found.append(getattr(fit.value, name))
    fit = parse_output(text, kind)
    return [*found, fit.value] if isinstance(fit, Fit) else found
