"""Validates input from outside a pod before it is recorded in the session."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from actors.runtime.arguments import check_count, text_of, wait_of
from protocol import commands
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
Answer: TypeAlias = commands.Approve | commands.Disapprove


def check_command(command: commands.Command) -> None:
    """Raise the error that a pod answers with if an argument of ``command`` cannot be used: InvalidInput,
    ValueError.
    """
    match command:
        case commands.Run() | commands.Steer() | commands.Notify():
            checked_content(command.content)
        case commands.PushItem():
            checked_item(command.item)
        case commands.Approve() | commands.Disapprove():
            checked_answer(command)
        case commands.Compact(wanted) if wanted is not None:
            check_count("retained_tokens", wanted, 0, "tokens")
        case commands.WaitForMemoryJobs(timeout) | commands.WaitForSubAgents(timeout):
            wait_of("timeout", timeout)
        case commands.Fork(at) if at is not None:
            text_of("at", at)


def checked_content(content: Any) -> tuple[Part, ...]:
    """``content`` with its text made encodable. Raises InvalidInput unless it is a tuple of parts."""
    if type(content) is not tuple:
        raise InvalidInput(
            f"content: expected a tuple of parts, got {type(content).__name__}", hint="parts_of makes one"
        )
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
        raise InvalidInput(f"content: expected text, image or thinking parts, got {type(part).__name__}")
    checked = checked_item(UserItem((part,))).content[0]
    if isinstance(checked, ImagePart) and sound_picture(checked) is None:
        raise InvalidInput(
            f"an image needs a url, or data in base64, got {shown(checked.data)}",
            hint="ImagePart('image/png', base64.b64encode(data).decode())",
        )
    return checked


def checked_item(item: Any) -> Item:
    """``item`` as it reads back from the log. Raises InvalidInput for anything that is not an item."""
    if not isinstance(item, _ITEMS):
        raise InvalidInput(
            f"{type(item).__name__} is not an item of a conversation", hint="see protocol.items"
        )
    try:
        return decode_item(encode(recordable(item)))
    except (WireError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{type(item).__name__} is not an item of a conversation: {error}") from error


def checked_answer(command: Answer) -> Answer:
    """The answer with its note made encodable. Raises InvalidInput."""
    text_of("approval_id", command.approval_id)
    if isinstance(command, commands.Approve):
        if not isinstance(command.always, bool):  # "no" would allow it for ever
            raise InvalidInput(f"always: expected True or False, got {shown(command.always)}")
        if not isinstance(command.arguments, dict | None):
            raise InvalidInput(
                f"arguments: expected a dict with their names as keys, got {shown(command.arguments)}"
            )
    elif command.by not in ("person", "nobody"):  # a list cannot be looked up in a set
        raise InvalidInput(f"by: expected 'person' or 'nobody', got {shown(command.by)}")
    if command.note is None:
        return command
    if not isinstance(command.note, str):
        raise InvalidInput(f"note: expected a string, got {shown(command.note)}")
    return msgspec.structs.replace(command, note=encodable(command.note))
