"""Cleans what people paste into headers and addresses where that is harmless, else refuses it; pure."""

from __future__ import annotations

import re

from protocol.errors import InvalidKey, ModelError

#: White space, and what editors and terminals put around a text that nobody sees.
_AROUND = " \t\r\n\v\f\x85\xa0\u200b\u200c\u200d\u2060\ufeff"
_QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb\u2032\u2033"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def trimmed(text: str) -> str:
    """A text without surrounding white space and invisible characters."""
    return text.strip(_AROUND)


def key_of(text: str, what: str) -> str:
    """A key in the form in which it can be sent; ``what`` names it to people. Raises InvalidKey, which never
    shows the key.
    """
    key = trimmed(text)
    why = _fault(key) or ("a space" if " " in key else None)
    if why is None and key[:1] in {'"', "'"} and key[-1:] == key[:1]:
        why = "quotes around it"
    if why is not None:
        raise InvalidKey(what, why)
    return key


def bearer(api_key: str) -> dict[str, str]:
    """The authorization header for a caller's key. Raises InvalidKey."""
    return {"authorization": f"Bearer {key_of(api_key, 'api_key')}"}


def header_of(name: str, value: str) -> tuple[str, str]:
    """A header in the form in which it can be sent. Raises ModelError, which never shows the value."""
    name, value = trimmed(name), trimmed(value)
    why = "an invalid name" if not _NAME.fullmatch(name) else _fault(value)
    if why is not None:
        raise ModelError(
            f"the header {name!r} cannot be sent: it has {why}",
            kind="invalid_request",
            hint="write it in plain ASCII, on one line",
            retryable=False,
        )
    return name, value


def _fault(text: str) -> str | None:
    """Why a text cannot be a header, if it cannot."""
    if "\n" in text or "\r" in text:
        return "a line break"
    if any(mark in text for mark in _QUOTES):
        return "a typographic quote"
    if not text.isascii():
        return "a character that is not ASCII"
    if not text.isprintable():
        return "a control character"
    return None
