"""A history as the bytes of Anthropic's messages, which grow with it and never change before their end.

Words of the runtime are sent as a user's, marked as not the user's, wherever they stand: so the system
prompt stays the same whatever is folded into a summary, and what is left of a history begins with a user as
it must. Results of tools have a message of their own, behind the calls they answer; some servers take text
that shares it for words said before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from actors.llm.openai_request import NOTICE_MARK
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

#: Who speaks in a message, where results are told apart from a user's words.
Voice = Literal["", "user", "results", "assistant"]

#: What stands first where a history begins with the model's own words.
_OPENING = f"{NOTICE_MARK}The conversation goes on from here."

_encoder = msgspec.json.Encoder()


class _Place(NamedTuple):
    """What is known behind an item: where its bytes end, whose message is open, where the last block ends
    that can be marked (-1: none is there), and where that was before the model's last answer.
    """

    end: int = 0
    voice: Voice = ""
    mark: int = -1
    before_answer: int = -1


_NOWHERE = _Place()


class EncodedHistory:
    """The messages of a history as bytes; the last one is left open, for it may still grow.

    An item that is replaced (by a shorter copy, say) has what comes after it encoded anew, and nothing
    before it. Without ``reasoning`` the model's own is left out.
    """

    __slots__ = ("_bytes", "_done", "_places", "reasoning")

    def __init__(self, *, reasoning: bool = True) -> None:
        self.reasoning = reasoning
        self._bytes = bytearray()
        self._done: list[Item] = []
        self._places: list[_Place] = []

    def advance(self, items: Sequence[Item], most: int) -> bool:
        """Encode ``most`` items that are new; whether there are more."""
        self._keep(items)
        known = len(self._done)
        new = items[known : known + most]
        for item in new:
            self._add(item)
        self._done.extend(new)
        return len(self._done) < len(items)

    def between(self, head: bytes, tail: bytes, mark: bytes | None = None) -> bytes:
        """All messages between ``head`` and ``tail``, with ``mark`` where a cache may end."""
        place = self._place()
        if place.voice:
            tail = b"]}" + tail
        marks = sorted({place.before_answer, place.mark} - {-1}) if mark is not None else []
        pieces: list[bytes | memoryview] = [head]
        start = 0
        view = memoryview(self._bytes)  # joined without a copy of each piece
        for at in marks:
            pieces += (view[start:at], b',"cache_control":', mark or b"")
            start = at
        pieces += (view[start:], tail)
        return b"".join(pieces)

    def _place(self) -> _Place:
        return self._places[-1] if self._places else _NOWHERE

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep of what is encoded the part that ``items`` begin with."""
        known = items[: len(self._done)]
        # list equality looks at identity first: 5 ns an item where nothing was replaced
        if (known if isinstance(known, list) else list(known)) == self._done:
            return
        pairs = enumerate(zip(known, self._done, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), len(known))
        del self._done[same:], self._places[same:]
        del self._bytes[self._place().end :]

    def _add(self, item: Item) -> None:
        before = self._place()
        voice, blocks = self._said(item)
        if not blocks:  # nothing that may be sent: empty texts are refused
            self._places.append(before)
            return
        data = self._bytes
        if voice == before.voice:
            data += b","
        else:
            self._open(before.voice, voice)
        mark = before.mark
        for number, block in enumerate(blocks):
            data += b"," + _encoded(block) if number else _encoded(block)
            if block["type"] not in _NEVER_MARKED:
                mark = len(data) - 1
        before_answer = before.mark if voice == "assistant" != before.voice else before.before_answer
        self._places.append(_Place(len(data), voice, mark, before_answer))

    def _open(self, before: Voice, voice: Voice) -> None:
        """End the message that is open, and begin another."""
        if before:
            self._bytes += b"]},"
        elif voice == "assistant":
            opening = _encoded({"type": "text", "text": _OPENING})
            self._bytes += b'{"role":"user","content":[%b]},' % opening
        role = b"assistant" if voice == "assistant" else b"user"
        self._bytes += b'{"role":"%b","content":[' % role

    def _said(self, item: Item) -> tuple[Voice, list[dict[str, Any]]]:
        """Whose message an item belongs to, and its blocks."""
        if isinstance(item, UserItem):
            return "user", list(_content(item.content))
        if isinstance(item, SystemItem):
            text = item.text
            return "user", list(_content((TextPart(NOTICE_MARK + text),) if text.strip() else ()))
        if isinstance(item, ToolResult):
            return "results", [_result(item)]
        return "assistant", [*self._thoughts_and_words(item), *map(_call, item.calls)]

    def _thoughts_and_words(self, item: AssistantItem) -> Iterator[dict[str, Any]]:
        """Text and reasoning in their order; reasoning only as the vendor knows it again, unchanged."""
        for part in item.content:
            if isinstance(part, TextPart):
                yield from _content((part,))
            elif isinstance(part, ThinkingPart) and self.reasoning:
                if part.redacted is not None:
                    yield {"type": "redacted_thinking", "data": part.redacted}
                elif part.signature is not None:
                    yield {"type": "thinking", "thinking": part.text, "signature": part.signature}


_NEVER_MARKED = frozenset({"thinking", "redacted_thinking"})


def _content(parts: tuple[Part, ...]) -> Iterator[dict[str, Any]]:
    """Texts that are not blank, and pictures."""
    for part in parts:
        if isinstance(part, TextPart):
            if part.text.strip():
                yield {"type": "text", "text": part.text}
        elif isinstance(part, ImagePart):
            yield {"type": "image", "source": _source(part)}


def _source(part: ImagePart) -> dict[str, str]:
    if part.url is None:
        return {"type": "base64", "media_type": part.media_type, "data": part.data or ""}
    inline = re.match(_DATA_URL, part.url)
    if inline is None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": inline["kind"], "data": part.url[inline.end() :]}


_DATA_URL = r"data:(?P<kind>[\w.+-]+/[\w.+-]+);base64,"


def _call(call: ToolCall) -> dict[str, Any]:
    """A call; one whose arguments were no JSON goes back with none."""
    arguments = call.arguments if call.invalid is None else {}
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": arguments}


def _result(item: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(item.call_id)}
    content = list(_content(item.content))
    if any(each["type"] == "image" for each in content):
        block["content"] = content
    elif content:
        block["content"] = item.text
    elif item.is_error:
        block["content"] = "failed without saying why"  # an error without words is refused
    if item.is_error:
        block["is_error"] = True
    return block


def _id(told: str) -> str:
    """An id of the form that the vendor takes; ids of other servers may be of any."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", told) or "_"


def _encoded(block: dict[str, Any]) -> bytes:
    """A block as JSON; half characters, which UTF-8 does not know, become question marks."""
    try:
        return _encoder.encode(block)
    except UnicodeEncodeError:
        return json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
