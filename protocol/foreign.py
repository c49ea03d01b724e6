"""The words of errors that are not ours: of libraries, of the system, of a user's tools and hooks."""

from __future__ import annotations

from protocol.text import encodable, with_article

#: How many errors of a group are named.
_NAMED = 8


def shown(value: object, most: int = 80) -> str:
    """A value that is not what was expected, for the words of an error: its beginning, where it is long; what
    it is, where it cannot even be written (a number of thousands of digits, an object whose repr fails).
    """
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 - a foreign repr is any code
        return f"{with_article(type(value).__name__)} that cannot be shown"
    return text if len(text) <= most else f"{text[:most]}…"


def words_of(error: BaseException) -> str:
    """What a foreign error says, or what it is where it says nothing (or cannot even do that). A group says
    what is in it; those whose words are a bare value (a key, an exit code) are named as well.
    """
    try:
        if isinstance(error, KeyError | SystemExit) and str(error):
            return named_words(error)
        return encodable((str(error) or repr(error)) + _words_within(error))
    except BaseException:  # noqa: BLE001 - an error whose own __str__ fails
        return f"{with_article(type(error).__name__)} without a message"


def named_words(error: BaseException) -> str:
    """Type and words of an error, also of one that cannot say them."""
    try:
        words = str(error) + _words_within(error)
    except BaseException:  # noqa: BLE001 - an error's own words are any code
        words = ""
    name = type(error).__name__
    return encodable(f"{name}: {words}" if words else name)


def _words_within(error: BaseException) -> str:
    if not isinstance(error, BaseExceptionGroup):
        return ""
    more = len(error.exceptions) - _NAMED
    rest = [f"{more} more"] if more > 0 else []
    return ": " + "; ".join([*map(named_words, error.exceptions[:_NAMED]), *rest])
