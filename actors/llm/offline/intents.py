"""What the offline model can be asked to do."""

from __future__ import annotations

from typing import Literal, NamedTuple

Unit = Literal["words", "lines", "bytes"]
Topic = Literal["self", "hello", "thanks", "continue"]


class List(NamedTuple):
    """Show what a directory holds."""

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
    """Find names that fit a glob; ``words`` is how the user put it."""

    pattern: str
    path: str
    words: str


class Search(NamedTuple):
    """Find lines that hold a text, or fit a regular expression."""

    text: str
    path: str
    is_regex: bool = False


class Remember(NamedTuple):
    """Keep a fact in the notes."""

    fact: str


class Recall(NamedTuple):
    """Say the notes, all or those about something."""

    about: str | None = None


class Write(NamedTuple):
    """Put a text into a file; None stands for what the step before came to."""

    path: str
    content: str | None
    append: bool = False


class Replace(NamedTuple):
    """Exchange a text in a file."""

    path: str
    old: str
    new: str


class Run(NamedTuple):
    """Run a command in a shell."""

    command: str


class UseTool(NamedTuple):
    """Call a tool by its name; ``words`` says with what."""

    name: str
    words: str


class PassOn(NamedTuple):
    """Say what the runtime reports: what has ended, how, and its last words."""

    what: str
    how: str
    words: str


class Talk(NamedTuple):
    """Words that ask for nothing but words."""

    about: Topic


class Unknown(NamedTuple):
    """Words that are not understood; ``partly`` where other words beside them are."""

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
