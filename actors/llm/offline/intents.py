"""The intents that the offline model understands, as data."""

from __future__ import annotations

from typing import Literal, NamedTuple

Unit = Literal["words", "lines", "bytes"]
Topic = Literal["self", "hello", "thanks", "continue"]


class List(NamedTuple):
    """Show the content of a directory."""

    path: str


class Read(NamedTuple):
    """Show a file, or its first ``lines``; ``path`` may be a glob."""

    path: str
    lines: int | None = None


class Count(NamedTuple):
    """Count something in a file; ``path`` may be a glob."""

    path: str
    unit: Unit = "words"


class Summarise(NamedTuple):
    """Summarise a file; ``path`` may be a glob."""

    path: str


class SummariseText(NamedTuple):
    """Summarise a text, or the conversation (None)."""

    text: str | None = None


class Find(NamedTuple):
    """Find names that match a glob; ``words`` is how the user put it."""

    pattern: str
    path: str
    words: str


class Search(NamedTuple):
    """Find lines that contain a text, or match a regular expression."""

    text: str
    path: str
    is_regex: bool = False


class Remember(NamedTuple):
    """Keep a fact in the notes."""

    fact: str


class Recall(NamedTuple):
    """Show the notes, all or those about something."""

    about: str | None = None


class Write(NamedTuple):
    """Write a text to a file; None is the result of the step before."""

    path: str
    content: str | None
    append: bool = False


class Replace(NamedTuple):
    """Replace a text in a file."""

    path: str
    old: str
    new: str


class Run(NamedTuple):
    """Run a command in a shell."""

    command: str


class UseTool(NamedTuple):
    """Call a tool by its name; ``words`` has the arguments."""

    name: str
    words: str


class PassOn(NamedTuple):
    """Pass on what the runtime reports: what has ended, how, and its last words."""

    what: str
    how: str
    words: str


class Talk(NamedTuple):
    """Words that need no tool."""

    about: Topic


class Unknown(NamedTuple):
    """Words that are not understood; ``partly`` if others beside them are."""

    words: str
    partly: bool = False


Intent = (
    List
    | Read
    | Count
    | Summarise
    | SummariseText
    | Find
    | Search
    | Remember
    | Recall
    | Write
    | Replace
    | Run
    | UseTool
    | PassOn
    | Talk
    | Unknown
)
