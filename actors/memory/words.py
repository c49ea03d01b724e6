"""Splits text in any script into words; pure."""

from __future__ import annotations

import re
import unicodedata

#: Perhaps a mark on a letter, such as the vowels of many scripts, which ``\w`` does not include.
_PERHAPS_MARK = r"[^\x00-\x7f\w\s]"


def words_of(text: str) -> list[str]:
    """The words of a text in order: letters with their marks, digits, and underscores."""
    if text.isascii() or re.search(_PERHAPS_MARK, text) is None:
        return re.findall(r"\w+", text)
    return "".join([sign if _is_of_word(sign) else " " for sign in text]).split()


def _is_of_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or unicodedata.category(sign).startswith("M")
