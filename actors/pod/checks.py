"""What comes into a session from outside: refused, before it is recorded, if it could not be read back."""

from __future__ import annotations

from typing import Any

from protocol.errors import InvalidInput, WireError
from protocol.items import ImagePart, TextPart, ThinkingPart
from protocol.wire import decode_item, encode

_PARTS = frozenset({TextPart, ImagePart, ThinkingPart})


def check_content(content: Any) -> None:
    """Raise InvalidInput unless ``content`` is a tuple of parts whose text is Unicode."""
    if type(content) is not tuple:
        raise InvalidInput(f"content is a tuple of parts, not {type(content).__name__}", hint="see parts_of")
    for part in content:
        if type(part) not in _PARTS:
            raise InvalidInput(f"a part of content is text, an image or thinking, not {type(part).__name__}")
        if not (type(part) is TextPart and type(part.text) is str and part.text.isascii()):
            _encoded(part)


def check_item(item: Any) -> None:
    """Raise InvalidInput unless ``item`` is an item that reads back as it is."""
    try:
        decode_item(_encoded(item))
    except WireError as error:
        raise InvalidInput(f"{type(item).__name__} is no item of a conversation: {error}") from error


def _encoded(value: Any) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError as error:
        raise InvalidInput("the text has lone surrogates, which are no Unicode", hint="clean it") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"it cannot be kept as JSON: {error}") from error
