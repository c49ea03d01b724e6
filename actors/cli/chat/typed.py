"""What a person has typed at a chat's prompt, understood; pure."""

from __future__ import annotations

import re
from typing import NamedTuple

#: A file that is named in words: ``@notes.md``, ``@"my notes.md"``; what stands before the @ is not a word.
_MENTION = re.compile(r'(?<![^\s([{])@(?:"(?P<quoted>[^"\n]+)"|(?P<plain>[^\s"@][^\s"]*))')
#: What may stand behind a name in a sentence.
_ENDS = ".,;:!?)]}'"


class Words(NamedTuple):
    """Words for the model."""

    text: str


class SlashCommand(NamedTuple):
    """A command of the chat: its name without the slash, and what stands behind it."""

    name: str
    rest: str


class ShellLine(NamedTuple):
    """A command for the shell."""

    command: str


Typed = Words | SlashCommand | ShellLine


def understand(line: str) -> Typed | None:
    """What a line is: ``/name``, ``!command`` or words; None where it is empty. With the sign doubled
    (``//``, ``!!``) it is words that begin with one.
    """
    text = line.strip()
    if not text or text in {"/", "!"}:
        return None
    if text.startswith(("//", "!!")):
        return Words(text[1:])
    if text.startswith("!"):
        return ShellLine(text[1:].strip())
    if text.startswith("/"):
        name, _, rest = text[1:].partition(" ")
        head, newline, behind = name.partition("\n")
        return SlashCommand(head, f"{behind}{' ' * bool(newline)}{rest}".strip())
    return Words(text)


def mentions(text: str) -> list[tuple[str, ...]]:
    """The files that words may name, in order and each once: of each the names that may be meant, the longest
    first, since a full stop behind a name may end the sentence.
    """
    found: dict[tuple[str, ...], None] = {}
    for match in _MENTION.finditer(text):
        if match["quoted"]:
            found[(match["quoted"],)] = None
            continue
        name = match["plain"]
        names = [name]
        while name and name[-1] in _ENDS:
            name = name[:-1]
            names.append(name)
        found[tuple(filter(None, names))] = None
    return list(found)


def mention_before(text: str) -> str | None:
    """What was typed of a file's name, where the cursor stands behind that; None where it does not."""
    found = re.search(r'(?:^|[\s([{])@(?:"([^"\n]*)|([^\s"@]*))$', text)
    return None if found is None else found[1] or found[2] or ""
