"""Validates input from outside a pod before it is recorded in the session."""

from __future__ import annotations

from typing import Any

from protocol.errors import InvalidInput, WireError
from protocol.foreign import shown
from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    Part,
    SystemItem,
    TextPart,
    ThinkingPart,
    ToolResult,
    UserItem,
)
from protocol.pictures import sound_picture
from protocol.recordable import recordable
from protocol.text import encodable
from protocol.wire import decode_item, encode

_PARTS = frozenset({TextPart, ImagePart, ThinkingPart})
_ITEMS = UserItem | AssistantItem | SystemItem | ToolResult


def checked_content(content: Any) -> tuple[Part, ...]:
    """``content`` with its text made encodable. Raises InvalidInput unless it is a tuple of parts."""
    if type(content) is not tuple:
        raise InvalidInput(f"content is a tuple of parts, not {type(content).__name__}", hint="see parts_of")
    for part in content:
        if type(part) is TextPart and part.vendor is None and type(part.text) is str and part.text.isascii():
            continue  # as nearly always
        if _checked_part(part) is not part:
            return tuple([_checked_part(each) for each in content])
    return content


def _checked_part(part: Any) -> Part:
    if type(part) is TextPart and type(part.text) is str and part.vendor is None:
        text = encodable(part.text)
        return part if text is part.text else TextPart(text)
    if type(part) not in _PARTS:
        raise InvalidInput(f"a part of content is text, an image or thinking, not {type(part).__name__}")
    checked = checked_item(UserItem((part,))).content[0]
    if isinstance(checked, ImagePart) and sound_picture(checked) is None:
        raise InvalidInput(
            f"a picture has a url, or data that are base64, not {shown(checked.data)}",
            hint="ImagePart('image/png', base64.b64encode(data).decode())",
        )
    return checked


def checked_item(item: Any) -> Item:
    """``item`` as it reads back from the log. Raises InvalidInput for anything that is not an item."""
    if not isinstance(item, _ITEMS):
        raise InvalidInput(f"{type(item).__name__} is no item of a conversation", hint="see protocol.items")
    try:
        return decode_item(encode(recordable(item)))
    except (WireError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{type(item).__name__} is no item of a conversation: {error}") from error
