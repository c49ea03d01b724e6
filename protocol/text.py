"""Makes texts encodable (a lone surrogate, which no UTF-8 can hold, becomes U+FFFD), and numbers plain."""

from __future__ import annotations

from typing import Any

import msgspec

#: What decoding JSON may raise, whoever wrote it: RecursionError where it is nested too deep.
UNDECODABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
#: The sign of a shortened text, and what stands for it where a terminal does not have it.
SHORTENED = ("…", "...")
#: From which number on fractions are left out.
_LARGE = 1_000


def encodable(text: str) -> str:
    """``text`` itself if UTF-8 can hold it, else a copy that can be encoded; of a subclass of str a plain
    copy, since encoders refuse such.

    Two surrogates that make a pair become the character they stand for (JSON writes characters
    beyond U+FFFF as such pairs, and some writers encode each half by itself); a half without its
    partner becomes U+FFFD, as the Unicode standard (section 3.9) recommends.
    """
    if type(text) is not str:
        text = str.__str__(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def unshortened(typed: str) -> str:
    """What stands before the sign with which a table shortens an id, for who has pasted that; ``typed``
    itself if there is none, or nothing else.
    """
    ends = [end for end in SHORTENED if typed.endswith(end)]
    return (typed.removesuffix(ends[0]) or typed) if ends else typed


def with_article(noun: str) -> str:
    """``an int``, ``a dict``, ``a UserItem``: a noun, or the name of a type, with its article."""
    small = noun.lower()
    has_an = small.startswith(("a", "e", "i", "o", "un")) and not small.startswith("uni")
    return f"{'an' if has_an else 'a'} {noun}"


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold ``text`` as it is."""
    return encodable(text) == text


def amount(number: float) -> str:
    """A number as people read it: large ones with all digits before the point and none behind it."""
    return f"{number:,.0f}" if abs(number) >= _LARGE else f"{number:g}"


def encodable_json(value: Any) -> Any:
    """``value`` with each text in it made encodable, keys of dicts too; lists, tuples and dicts are
    entered, anything else is given back as it is.
    """
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable_json(key): encodable_json(member) for key, member in value.items()}
    if isinstance(value, list):
        return [encodable_json(member) for member in value]
    if isinstance(value, tuple):
        return tuple(encodable_json(member) for member in value)
    return value
