"""A text in which what looks alike is the same, with the way from each place back to the original; pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import NamedTuple

from actors.tools.alike import alike


class View(NamedTuple):
    """A text in another form, and where each piece of it comes from."""

    text: str
    #: Where pieces begin in the view and in the original, in order; with an end behind the last.
    starts: list[int]
    origins: list[int]
    #: Whether a piece is the same in both, so that places within it have an origin too.
    same: list[bool]

    def spans(self, wanted: str, *, apart: bool = False) -> Iterator[tuple[int, int]]:
        """Where ``wanted`` occurs, as stretches of the original; overlapping too unless ``apart``."""
        at = self.text.find(wanted)
        while at >= 0:
            start, end = self._origin(at), self._origin(at + len(wanted))
            found = start is not None and end is not None
            if start is not None and end is not None:
                yield start, end
            at = self.text.find(wanted, at + (len(wanted) if apart and found else 1))

    def _origin(self, place: int) -> int | None:
        n = bisect.bisect_right(self.starts, place) - 1
        inside = place - self.starts[n]
        return self.origins[n] + inside if not inside or self.same[n] else None


# A run without line ends of two forms.
_LINES = re.compile(r"[^\r]+|\r\n|\r")
# A run that looks like nothing else; a character with what combines with it.
_LOOSE = re.compile(
    r"[\x00-\x0c\x0e-\x7f]+(?=[\x00-\x7f]|\Z)|\r\n|\r"
    r"|(?s:.)[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u093c\u09bc\u0e38-\u0e3a\u1160-\u11ff"
    r"\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f]*"
)


def view(text: str, *, loose: bool, cr_ends: bool) -> View:
    """``text`` with ``\\n`` for all its line ends, of which a lone ``\\r`` is one where ``cr_ends``; if
    ``loose`` also with all that looks the same in one form.
    """
    pieces = _loose_pieces(text, cr_ends=cr_ends) if loose else _pieces(text, cr_ends=cr_ends)
    shown_all: list[str] = []
    starts, origins, same = [0], [0], []
    for piece, shown in pieces:
        shown_all.append(shown)
        same.append(shown == piece)
        starts.append(starts[-1] + len(shown))
        origins.append(origins[-1] + len(piece))
    same.append(False)
    return View("".join(shown_all), starts, origins, same)


def _pieces(text: str, *, cr_ends: bool) -> Iterator[tuple[str, str]]:
    """Stretches of ``text``, and how they are shown."""
    return ((piece, _shown(piece, cr_ends=cr_ends)) for piece in _LINES.findall(text))


def _loose_pieces(text: str, *, cr_ends: bool) -> Iterator[tuple[str, str]]:
    """As ``_pieces``; lines that look like nothing else are one stretch each."""
    for line in re.findall(r"[^\n]*\n|[^\n]+\Z", text):
        if "\r" not in line and alike(line) == line:
            yield line, line
        else:
            for piece in _LOOSE.findall(line):
                yield piece, _shown(piece, cr_ends=cr_ends) if piece[0] == "\r" else alike(piece)


def _shown(piece: str, *, cr_ends: bool) -> str:
    if piece == "\r\n" or (piece == "\r" and cr_ends):
        return "\n"
    return piece
