"""The commands of a chat: what each is called, and what it does; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from protocol.closest import closest


class Command(NamedTuple):
    """A command, what may stand behind it, and what it does."""

    name: str
    takes: str
    does: str


COMMANDS = (
    Command("help", "", "show the commands and keys"),
    Command("model", "[SCHEME/ID [URL]]", "answer with another model from now on, or list the models"),
    Command("tools", "", "show the tools that the model has"),
    Command("cost", "", "show what the session has used, and how full its context is"),
    Command("compact", "[TOKENS]", "fold the older part of the history into a summary"),
    Command("undo", "", "undo the last turn; files stay as they are"),
    Command("fork", "", "continue in a copy of the session; the old one stays"),
    Command("clear", "", "begin a new session; the old one stays"),
    Command("resume", "", "continue a run that was interrupted"),
    Command("exit", "", "leave (or Ctrl-D, or Ctrl-C twice); the session stays"),
)
NAMES = tuple(command.name for command in COMMANDS)
#: What others call the same.
_ALIASES = {"quit": "exit", "new": "clear", "usage": "cost", "rewind": "undo", "q": "exit", "?": "help"}
_KEYS = (
    ("@FILE", "attach the file to your message; Tab completes"),
    ("!COMMAND", "run it in the pod's sandbox; its output goes with your next message"),
    ("//… !!…", "send a line that begins with / or !"),
    ("Enter", "send; in a turn: send it to the working model"),
    ("Alt-Enter", "a new line; so do Ctrl-J, and \\ before Enter"),
    ("Ctrl-C", "clear the line; cancel a turn"),
)


def command_named(name: str) -> str | None:
    """The command that a name stands for, also by its beginning where that fits one alone."""
    name = _ALIASES.get(name, name)
    fits = [each for each in NAMES if each.startswith(name)] if name else []
    return name if name in NAMES else fits[0] if len(fits) == 1 else None


def likely(name: str) -> str | None:
    """The command that a name may be a slip of."""
    return closest(name, [*NAMES, *_ALIASES])


def help_lines(columns: int) -> Iterator[str]:
    """The commands and keys, within so many columns."""
    rows = [(f"/{each.name} {each.takes}".rstrip(), each.does) for each in COMMANDS]
    width = max(len(name) for name, _ in (*rows, *_KEYS)) + 2
    for name, does in (*rows, *_KEYS):
        if width + len(does) < columns:
            yield f"{name:<{width}}{does}"
        else:
            yield name
            yield from (f"  {line}" for line in _folded(does, columns - 3))


def _folded(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line
