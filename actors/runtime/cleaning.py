"""``Cleaner`` and ``cleaned``: turn what a program writes for a terminal into text that can be read."""

from __future__ import annotations

import codecs
import re

from protocol.text import encodable

#: Characters of a line without an end that are held back, since the program may write over them.
LONGEST_LINE = 4096
#: Characters of an escape sequence without an end that are waited for.
_LONGEST_ESCAPE = 512

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links, and what is for the terminal alone
    r"|\x1b[ -/]*[0-~]"
)
_BEGUN_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]P^_X][^\x07\x1b]*\x1b?|[ -/]*)\Z")
_RUBBED_OUT = re.compile(r"[^\n\x08]\x08")
_HAS_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL = dict.fromkeys([*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0)])
#: What was not text.
_REPLACED = "\ufffd"


class Cleaner:
    """Takes bytes as they come.

    Escape sequences and control characters are left out, a line that was overwritten (a progress bar) keeps
    its last state, and bytes that are not UTF-8 are replaced.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._size = self._bad = self._nul = 0

    @property
    def is_binary(self) -> bool:
        """Whether the output is binary rather than text."""
        if self._nul * 10 > self._size * 6:  # hardly anything of it would be seen
            return True
        return self._bad > 0 and (self._nul > 0 or self._bad * 10 > self._size * 3)

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text that ``data`` completes; a line without an end is held back, unless it is ``final``."""
        decoded = self._decoder.decode(data, final)
        self._size += len(decoded)
        self._bad += decoded.count(_REPLACED)
        self._nul += decoded.count("\0")
        text = self._held + decoded
        if "\x1b" in text:
            text = _ESCAPE.sub("", text)
        if "\r" in text:
            text = "\n".join(map(_last_state, text.split("\n")))
        end = len(text) if final else self._end_of_whole(text)
        self._held = text[end:]
        return _plain(text[:end])

    def flush(self) -> str:
        """The text held back so far, because somebody wants to see everything there is."""
        text, self._held = self._held, ""
        return _plain(text)

    def _end_of_whole(self, text: str) -> int:
        """Where what is held back begins."""
        end = text.rfind("\n") + 1
        if len(text) - end <= LONGEST_LINE:
            return end
        begun = _BEGUN_ESCAPE.search(text, max(end, len(text) - _LONGEST_ESCAPE))
        return len(text) if begun is None else begun.start()


def cleaned(text: str) -> str:
    """Everything a program wrote, without what only a terminal interprets."""
    return Cleaner().feed(encodable(text).encode(), final=True)


def _last_state(line: str) -> str:
    """A line without what was written over; it keeps a return at its end, since a new line may follow."""
    if "\r" not in line:
        return line
    written = line.rstrip("\r")
    return written[written.rfind("\r") + 1 :] + ("\r" if len(written) < len(line) else "")


def _plain(text: str) -> str:
    if "\b" in text:
        text = _RUBBED_OUT.sub("", text)
    return text.translate(_CONTROL) if _HAS_CONTROL.search(text) else text
