"""Carries the user's own words from summary to summary, so that no compaction forgets an
instruction; pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actors.compaction.compose import is_summary
from actors.compaction.tokens import BYTES_PER_TOKEN, text_size
from actors.compaction.transcript import indented, shortened
from protocol.items import Item, UserItem

#: The line in a summary after which the words follow.
MARK = "The user's own words, oldest first:"
_LEFT_OUT = "[some words from between were left out]"
#: If there is not enough room, the first ones (they say what it is about) and the newest stay.
_FIRST = 4
#: Words are shortened to at least so many tokens before any are left out.
_LEAST = 24


def words_of(items: Iterable[Item]) -> list[str]:
    """What users said in ``items``, or in a summary among them, oldest first. Of repeated words only the last
    occurrence is kept: the later word holds.
    """
    found: dict[str, str] = {}
    for item in items:
        said = carried(item.text) if is_summary(item) else []
        if isinstance(item, UserItem):
            said = [item.text.strip()]
        for text in filter(None, said):
            key = " ".join(text.split()).casefold()
            found.pop(key, None)
            found[key] = text
    return list(found.values())


def carried(summary: str) -> list[str]:
    """The words that a summary carries, oldest first."""
    _, _, rest = summary.rpartition(f"\n{MARK}\n")
    words: list[list[str]] = []
    for line in rest.split("\n"):
        if line.startswith("- "):
            words.append([line[2:]])
        elif line.startswith("  ") and words:
            words[-1].append(line[2:])
        else:
            break
    return [text for each in words if (text := "\n".join(each)) != _LEFT_OUT]


def without_words(summary: str) -> str:
    """A summary without the words it carries."""
    before, mark, rest = summary.rpartition(f"\n{MARK}\n")
    if not mark:
        return summary
    lines = rest.split("\n")
    end = next((n for n, line in enumerate(lines) if not line.startswith(("- ", "  "))), len(lines))
    return "\n".join([before, *lines[end:]])


def written(words: Sequence[str], budget: int) -> str:
    """The words as a summary carries them, in about ``budget`` tokens; empty if there are none.

    What fits is quoted word for word. Otherwise long ones are shortened, the longest first, all to the same
    length; if that is not enough, some between the first and the newest are left out.
    """
    if not words:
        return ""
    lines = [f"- {indented(text)}" for text in words]
    room = budget * BYTES_PER_TOKEN - text_size(MARK)
    if _size(lines) > room:
        lines = _fitted(lines, room)
    return "\n".join([MARK, *lines])


def _size(lines: Iterable[str]) -> int:
    """The bytes of lines, each with its end."""
    return sum(text_size(line) + 1 for line in lines)


def _fitted(lines: list[str], room: int) -> list[str]:
    """The lines in ``room`` bytes; all that are longer are shortened to the same length."""
    sizes = [text_size(line) + 1 for line in lines]
    least, most = _LEAST, max(_LEAST, max(sizes) // BYTES_PER_TOKEN)
    while least < most:
        middle = (least + most + 1) // 2
        if sum(min(size, middle * BYTES_PER_TOKEN + 1) for size in sizes) <= room:
            least = middle
        else:
            most = middle - 1
    lines = [shortened(line, least) for line in lines]
    return lines if _size(lines) <= room else _thinned(lines, room)


def _thinned(lines: list[str], room: int) -> list[str]:
    """The first lines and the newest, as many as have room."""
    note = f"- {_LEFT_OUT}"
    first, rest = lines[:_FIRST], lines[_FIRST:]
    room -= _size([*first, note])
    newest: list[str] = []
    for line in reversed(rest):
        room -= _size([line])
        if room < 0:
            break
        newest.append(line)
    return [*first, note, *reversed(newest)]
