"""Texts and JSON that come in pieces: halves of surrogate pairs are joined, and an object's end is found."""

from __future__ import annotations

import re

from protocol.text import encodable


class HalfPairs:
    """Joins the halves of surrogate pairs that were split over two pieces of one text."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = ""  # a half whose partner may come with the next piece

    def join(self, text: str) -> str:
        """``text`` behind the half that waits; a half at its end is held back until the next piece."""
        if text.isascii() and not self.waiting:
            return text
        text = self.waiting + text
        self.waiting = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.waiting = text[:-1], text[-1]
        return encodable(text)

    def rest(self) -> str:
        """What the half that waits turns into where its partner never came."""
        half, self.waiting = self.waiting, ""
        return encodable(half)


class Braces:
    """Finds out whether a JSON object has been closed; each character is looked at once."""

    __slots__ = ("_depth", "_in_text", "closed")

    _MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        self.closed = False

    def feed(self, text: str) -> None:
        """Take the next piece."""
        for found in self._MARKS.finditer(text):
            mark = found[0]
            if mark == '"':
                self._in_text = not self._in_text
            elif self._in_text or mark[0] == "\\":
                continue
            else:
                self._depth += 1 if mark in "{[" else -1
                self.closed = self.closed or self._depth == 0


def is_closed(data: bytes) -> bool:
    """Whether a JSON object or list has come to its end; without one it was cut."""
    braces = Braces()
    braces.feed(data.decode("utf-8", "replace"))
    return braces.closed
