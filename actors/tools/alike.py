"""Names and texts that look the same and are not: composed and decomposed characters, blanks, quotes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from protocol.errors import ScopeRefused
from protocol.text import encodable

#: What is written in several ways, as keyboards write it: blanks of all widths, and quotes.
LOOKS: dict[int, str] = {
    **dict.fromkeys(
        map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"), " "
    ),
    **dict.fromkeys(map(ord, "\u200a\u202f\u205f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033"), '"'),
}
_MOST_NAMES = 50_000


def alike(text: str) -> str:
    """``text`` in the one form that all that look like it share."""
    if text.isascii():
        return text
    import unicodedata  # noqa: PLC0415 - paid for by texts that are not ASCII

    return unicodedata.normalize("NFC", encodable(text)).translate(LOOKS)


def real_path(path: Path, may_list: Callable[[Path], bool]) -> Path:
    """``path`` (absolute, symlinks followed), or where it does not exist the one that does and looks
    the same. Folders are only looked into where ``may_list(folder)``.

    Raises ScopeRefused where several look the same.
    """
    if os.path.lexists(path):
        return path
    place = Path(path.anchor)
    parts, met = path.parts[1:], False
    for n, name in enumerate(parts):
        if os.path.lexists(place / name):
            place = Path(os.path.realpath(place / name)) if met else place / name
            continue
        twin = _twin(place, name) if may_list(place) else None
        if twin is None:
            return place.joinpath(*parts[n:])
        # from here on links may be met, which the path did not hold as it was resolved
        place, met = Path(os.path.realpath(place / twin)), True
    return place


def _twin(folder: Path, name: str) -> str | None:
    """The one name in ``folder`` that looks like ``name``."""
    wanted = alike(name)
    try:
        with os.scandir(folder) as entries:
            names = (entry.name for entry, _ in zip(entries, range(_MOST_NAMES), strict=False))
            found = sorted(each for each in names if each != name and alike(each) == wanted)
    except OSError:
        return None
    if len(found) > 1:
        shown = " and ".join(ascii(each) for each in found[:5])
        raise ScopeRefused(
            f"there is no {name!r} in {folder}, but {len(found)} names look the same: {shown}",
            hint="use one of these, character by character",
        )
    return found[0] if found else None
