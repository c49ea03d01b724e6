"""Encodes a history as OpenAI's chat messages, as bytes that grow with it.

The messages also fit chat templates that want the system's words first and alternating roles. The runtime's
words become part of the system message if they come first, and otherwise of a user message (marked as not the
user's); consecutive user messages are sent as one. If the model would follow its own words, or speak first or
last, a notice replaces the user's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from actors.llm.legal import (
    BRIDGE,
    GO_ON,
    NOTICE_MARK,
    OPENING,
    LegalHistory,
    first_change,
)
from actors.llm.openai.dialect import Dialect
from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    Part,
    SystemItem,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    UserItem,
)
from protocol.text import encodable_json

Role = Literal["system", "user", "assistant", "tool"]

#: The text of a result that has none; some servers refuse a message without.
_NO_OUTPUT = "(no output)"
#: What Google accepts as the signature of another model's call.
_ANY_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}

_encode = msgspec.json.Encoder().encode


class EncodedHistory:
    """The messages of a history as bytes, which grow with it, for the server that ``origin`` names.

    Only the last message may still grow (consecutive user messages are one), so it is kept as its contents;
    all before it are final. If an item is replaced (by a shorter copy, say), what follows it is encoded
    again, and nothing before it.
    """

    __slots__ = (
        "_dialect",
        "_done",
        "_final",
        "_first",
        "_legal",
        "_open",
        "_origin",
        "_places",
        "_role",
        "_system",
    )

    def __init__(self, dialect: Dialect, origin: str | None) -> None:
        self._dialect = dialect
        self._origin = origin
        self._forget(None)

    def suits(self, dialect: Dialect, origin: str | None) -> bool:
        """Whether these messages are encoded for such a server."""
        return self._dialect == dialect and self._origin == origin

    def _forget(self, system: str | None) -> None:
        self._system = system
        self._done: list[Item] = []  # what is encoded
        #: For each item: where its first message begins (-1: it has none of its own), and who spoke before.
        self._places: list[tuple[int, Role]] = []
        self._first = -1
        self._final = bytearray()
        self._role: Role = "system"
        self._open: list[bytes] = [] if not system else [_text(system)]
        self._legal = LegalHistory(
            self._origin,
            "short" if self._dialect.short_ids else "own",
            "behind" if self._dialect.images else "unseen",  # a message of the role tool has only text
        )

    def messages(
        self, items: Sequence[Item], system: str | None, closing: bytes | None = None
    ) -> tuple[bytearray, bytes]:
        """The bytes of all messages, in two consecutive pieces. The words of ``closing`` (a JSON string),
        which are part of no history, come last.
        """
        self.advance(items, system, len(items))
        return self._final, self._end(closing)

    def _end(self, closing: bytes | None) -> bytes:
        """What follows the final messages, if the model is asked now."""
        role = self._role
        if role == "user":
            return self._message("user", self._open if closing is None else [*self._open, closing])
        messages = [_message(role, self._open)] if self._open else []
        said: list[bytes] = []
        for item in self._legal.unanswered():
            if isinstance(item, ToolResult):
                messages.append(_result(item))
                role = "tool"
            else:
                said.append(_content((TextPart(NOTICE_MARK), *item.content)))
        if closing is not None:
            said.append(closing)
        if said and role == "tool" and self._dialect.alternate:
            messages.append(_message("assistant", [_text(BRIDGE)]))
        if not said and role != "tool":  # nobody has spoken to the model
            said = [_text(GO_ON)]
        if said:
            messages.append(_message("user", said))
        comma = b"," if self._final and messages else b""
        return comma + b",".join(messages)

    def advance(self, items: Sequence[Item], system: str | None, most: int) -> bool:
        """Encode up to ``most`` new items. Returns whether there are more."""
        if system != self._system:
            self._forget(system)
        self._keep(items)
        known = len(self._done)
        new = items[known : known + most]
        for place, item in enumerate(new, known):
            self._add(item, place)
        self._done.extend(new)
        return len(self._done) < len(items)

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep the encoded part that ``items`` begin with."""
        same = first_change(items, self._done)
        if same is None:
            return
        # back to the end of a message that cannot grow any more
        while same and (self._places[same][0] < 0 or self._places[same][1] in {"user", "system"}):
            same -= 1
        if not same:
            self._forget(self._system)
            return
        start, self._role = self._places[same]
        self._legal.go_back(self._done, same)
        del self._final[start:], self._places[same:], self._done[same:]
        self._open = []

    def _add(self, item: Item, place: int) -> None:
        self._first, before = -1, self._role
        for legal in self._legal.take(item, place):
            self._put(legal)
        self._places.append((self._first, before))

    def _put(self, item: Item) -> None:
        if isinstance(item, SystemItem):
            if self._role == "system":
                self._open.append(_content(item.content))
            else:
                self._grow(_content((TextPart(NOTICE_MARK), *item.content)))
        elif isinstance(item, UserItem):
            self._grow(_content(item.content))
        elif isinstance(item, ToolResult):
            self._emit("tool", _result(item))
        else:
            if self._role in {"system", "assistant"}:
                notice = OPENING if self._role == "system" else GO_ON
                self._emit("user", _message("user", [_text(notice)]))
            self._emit("assistant", self._assistant(item))

    def _grow(self, content: bytes) -> None:
        """Add a content to the last message, which is a user message."""
        if self._role != "user":
            if self._role == "tool" and self._dialect.alternate:
                self._emit("assistant", _message("assistant", [_text(BRIDGE)]))
            self._close()
            self._role = "user"
            self._begin()
        self._open.append(content)

    def _emit(self, role: Role, message: bytes) -> None:
        """Add one complete message."""
        self._close()
        self._begin()
        self._role = role
        self._final += b"," + message if self._final else message

    def _begin(self) -> None:
        if self._first < 0:
            self._first = len(self._final)

    def _close(self) -> None:
        """Close the last message, since another follows."""
        if self._open:
            self._final += self._message(self._role, self._open)
            self._open = []

    def _message(self, role: str, contents: list[bytes]) -> bytes:
        return b"%b%b" % (b"," if self._final else b"", _message(role, contents))

    def _assistant(self, item: AssistantItem) -> bytes:
        """One message with all the text and all the calls, and what this server returned with it."""
        native = self._dialect.replay and item.origin is not None and item.origin == self._origin
        if not (self._dialect.fills_in or (native and _has_vendor_data(item))):
            text = item.text
            if not item.calls:
                return b'{"role":"assistant","content":%b}' % _text(text)
            calls = b",".join(_call(call) for call in item.calls)
            content = _text(text) if text.strip() else b"null"
            return b'{"role":"assistant","content":%b,"tool_calls":[%b]}' % (content, calls)
        message = self._with_vendor_data(item, native=native)
        try:
            return _encode(message)
        except UnicodeEncodeError:
            return _encode(encodable_json(message))

    def _with_vendor_data(self, item: AssistantItem, *, native: bool) -> dict[str, Any]:
        text = item.text
        message: dict[str, Any] = {"role": "assistant", "content": text if text.strip() else None}
        if native:
            _give_back_reasoning(message, item)
        if self._dialect.blank_reasoning:
            message.setdefault("reasoning_content", "")
        calls = [_plain_call(call, native=native) for call in item.calls]
        if calls:
            message["tool_calls"] = calls
            if self._dialect.any_signature and not any(call.keys() - _CALL_MEMBERS for call in calls):
                calls[0]["extra_content"] = _ANY_SIGNATURE
        if native and item.vendor:
            message.update((name, value) for name, value in item.vendor.items() if name not in message)
        return message


def _has_vendor_data(item: AssistantItem) -> bool:
    if item.vendor is not None or item.reasoning_as is not None:
        return True
    return any(call.vendor is not None for call in item.calls)


_CALL_MEMBERS = {"id", "type", "function"}


def _give_back_reasoning(message: dict[str, Any], item: AssistantItem) -> None:
    """Put reasoning back where it came from: a member of its own, or a part of the content."""
    if item.reasoning_as == "content":
        message["content"] = [
            {"type": "thinking", "thinking": [{"type": "text", "text": part.text}]}
            if isinstance(part, ThinkingPart)
            else {"type": "text", "text": part.text}
            for part in item.content
            if part.text
        ]
    elif item.reasoning_as is not None:
        message[item.reasoning_as] = "".join(
            [part.text for part in item.content if isinstance(part, ThinkingPart)]
        )


def _plain_call(call: ToolCall, *, native: bool) -> dict[str, Any]:
    arguments = _encode(call.arguments).decode() if call.invalid is None else "{}"
    vendor = call.vendor if native and call.vendor else {}
    besides = vendor.get("function")
    function = {**(besides if isinstance(besides, dict) else {}), "name": call.name, "arguments": arguments}
    return {**vendor, "id": call.id, "type": "function", "function": function}


def _message(role: str, contents: list[bytes]) -> bytes:
    return b'{"role":"%b","content":%b}' % (role.encode(), _joined(contents))


def _joined(contents: list[bytes]) -> bytes:
    """Contents as one: texts separated by blank lines, or lists of parts if there is a picture among them."""
    if len(contents) == 1:
        return contents[0]
    if all(each[:1] == b'"' for each in contents):
        return b'"' + rb"\n\n".join(each[1:-1] for each in contents) + b'"'
    parts = (each[1:-1] if each[:1] == b"[" else b'{"type":"text","text":%b}' % each for each in contents)
    return b"[" + b",".join(parts) + b"]"


def _content(parts: tuple[Part, ...]) -> bytes:
    """The content of a user message: a string if it is only text, otherwise a list of parts."""
    if not any(isinstance(part, ImagePart) for part in parts):
        return _text("".join(part.text for part in parts if isinstance(part, TextPart)))
    pieces = []
    for part in parts:
        if isinstance(part, ImagePart):
            url = part.url or f"data:{part.media_type};base64,{part.data or ''}"
            pieces.append(b'{"type":"image_url","image_url":{"url":%b}}' % _text(url))
        elif isinstance(part, TextPart) and part.text:
            pieces.append(b'{"type":"text","text":%b}' % _text(part.text))
    return b"[" + b",".join(pieces) + b"]"


def _call(call: ToolCall) -> bytes:
    """A call. If its arguments were not JSON it is sent back with none, since servers fail on them."""
    arguments = _encode(_encode(call.arguments).decode()) if call.invalid is None else b'"{}"'
    return b'{"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}' % (
        _text(call.id),
        _text(call.name),
        arguments,
    )


def _result(item: ToolResult) -> bytes:
    text = item.text if item.text.strip() else _NO_OUTPUT
    text = f"Error: {text}" if item.is_error else text
    return b'{"role":"tool","tool_call_id":%b,"content":%b}' % (_text(item.call_id), _text(text))


def _text(text: str) -> bytes:
    """A text as a JSON string; halves of surrogate pairs, which UTF-8 cannot encode, become
    question marks.
    """
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return _encode(text.encode("utf-8", "replace").decode())
