"""``closest``: the name that a mistyped one probably stands for."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str | None:
    """The first of ``known`` that begins with ``name``, or the one most like it; one with the same letters in
    another order comes first. None if none resembles it.
    """
    import difflib  # noqa: PLC0415 - only who mistypes pays for it

    known = list(known)
    if len(name) > 2 and (longer := next((each for each in known if each.startswith(name)), None)):
        return longer
    near = difflib.get_close_matches(name, known)
    letters = sorted(name)
    return min(near, key=lambda each: sorted(each) != letters, default=None)
