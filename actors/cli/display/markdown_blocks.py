"""Markdown as it comes, in blocks that are whole; pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})(?P<info>.*)")
#: Lines of code after which what there is of a block is given out before its end.
_LONG = 30
#: How much is shown of what is not a whole block yet: lines, and characters of the last one.
_SHOWN_LINES, _SHOWN = 10, 2000


class Block(NamedTuple):
    """A piece of Markdown that is whole in itself; ``joins`` where it goes on with the same code."""

    text: str
    joins: bool = False


class MarkdownBlocks:
    """Takes pieces of a text, and gives out the blocks that can be shown: nothing that comes changes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial = ""
        #: The line that has opened the code that goes on, and how many of its lines are held.
        self._fence: str | None = None
        self._code = 0
        self._joins = False

    @property
    def rest(self) -> str:
        """The end of what came and was not given out yet."""
        return "".join(self._lines[-_SHOWN_LINES:]) + self._partial[-_SHOWN:]

    def feed(self, text: str) -> list[Block]:
        """Take the next piece; gives the blocks that are whole with it."""
        blocks: list[Block] = []
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            blocks += self._line(f"{line}\n")
        return blocks

    def end(self) -> list[Block]:
        """The text has ended: what is left of it is the last block."""
        lines, self._partial = self._partial, ""
        blocks = self._line(lines) if lines else []
        if self._fence is not None and self._lines and not self._lines[-1].endswith("\n"):
            self._lines.append("\n")
        blocks += self._give(self._closing() if self._fence is not None else "")
        self._fence, self._code, self._joins = None, 0, False
        return blocks

    def _line(self, line: str) -> list[Block]:
        if self._fence is not None:
            return self._line_of_code(line)
        found = _FENCE.match(line)
        if found is not None and ("`" not in found["info"] or found["mark"][0] == "~"):
            blocks = self._give()
            self._fence, self._code = line if line.endswith("\n") else f"{line}\n", 0
            self._lines.append(self._fence)
            return blocks
        # What is indented behind a blank line goes on with a list.
        begins = bool(self._lines) and not self._lines[-1].strip() and line.strip() and not line[0].isspace()
        blocks = self._give() if begins and not self._goes_on_with_list(line) else []
        self._lines.append(line)
        return blocks

    def _goes_on_with_list(self, line: str) -> bool:
        return _ITEM.match(line) is not None and bool(self._lines) and _ITEM.match(self._lines[0]) is not None

    def _line_of_code(self, line: str) -> list[Block]:
        assert self._fence is not None
        self._lines.append(line)
        opening = _FENCE.match(self._fence)
        closing = _FENCE.match(line)
        assert opening is not None
        if (
            closing is not None
            and not closing["info"].strip()
            and closing["mark"].startswith(opening["mark"])
        ):
            blocks = self._give()
            self._fence, self._joins = None, False
            return blocks
        self._code += 1
        if self._code < _LONG:
            return []
        blocks = self._give(self._closing())
        self._lines, self._code, self._joins = [self._fence], 0, True
        return blocks

    def _closing(self) -> str:
        found = _FENCE.match(self._fence or "")
        return f"{found['mark']}\n" if found is not None else ""

    def _give(self, closing: str = "") -> list[Block]:
        lines, self._lines = self._lines, []
        text = "".join(lines)
        return [Block(text + closing, self._joins)] if text.strip() else []


_ITEM = re.compile(r" {0,3}([-*+]|\d{1,9}[.)])\s")
