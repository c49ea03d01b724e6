"""``withheld``: which of our environment variables a program names in its output, and was not given; pure."""

from __future__ import annotations

import re
from collections.abc import Container

#: Names of variables as people write them.
_NAMES = r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b"


def withheld(words: str, ours: Container[str], handed: Container[str]) -> tuple[str, ...]:
    """Those of ``ours`` that the words speak of and that were not ``handed`` to the program."""
    named = dict.fromkeys(re.findall(_NAMES, words))
    return tuple(name for name in named if name in ours and name not in handed)
