"""``age_of``: reads an age such as ``30d``, as options take it."""

from __future__ import annotations

import re

import click

_AGE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def age_of(text: str) -> float:
    """An age in seconds, from words like ``30d``. Raises BadParameter."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(
            f"{text!r} is not an age: write it like 45m, 12h, 30d or 2w", param_hint="--older-than"
        )
    return float(found["number"]) * _SECONDS[found["unit"]]
