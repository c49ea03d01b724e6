"""A history as the bytes of Anthropic's messages, which grow with it and never change before their end.

Words of the runtime are sent as a user's, marked as not the user's, wherever they stand: so the system
prompt stays the same whatever is folded into a summary, and what is left of a history begins with a user as
it must. Results of tools have a message of their own, behind the calls they answer; some servers take text
that shares it for words said before them, and others insist that it shares it (``alternate``).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from actors.llm.anthropic.dialect import Dialect
from actors.llm.legal import GO_ON, NOTICE_MARK, OPENING, LegalHistory, first_change, is_paused
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
    VendorPart,
)

#: Who speaks in a message, where results are distinct from a user's words, and an answer that is to be
#: gone on with from one that is over.
Voice = Literal["", "user", "results", "assistant", "paused"]

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
    before it. ``origin`` names the server that it is for.
    """

    __slots__ = ("_bytes", "_dialect", "_done", "_legal", "_origin", "_places")

    def __init__(self, dialect: Dialect, origin: str | None) -> None:
        self._dialect = dialect
        self._origin = origin
        self._legal = LegalHistory(origin, "letters", "within" if dialect.images else "unseen")
        self._bytes = bytearray()
        self._done: list[Item] = []
        self._places: list[_Place] = []

    def suits(self, dialect: Dialect, origin: str | None) -> bool:
        """Whether this is what such a server is sent."""
        return self._dialect == dialect and self._origin == origin

    def advance(self, items: Sequence[Item], most: int) -> bool:
        """Encode ``most`` items that are new; whether there are more."""
        self._keep(items)
        known = len(self._done)
        new = items[known : known + most]
        for place, item in enumerate(new, known):
            self._add(item, place)
        self._done.extend(new)
        return len(self._done) < len(items)

    def between(self, head: bytes, tail: bytes, mark: bytes | None = None) -> bytes:
        """All messages between ``head`` and ``tail``, with ``mark`` where a cache may end."""
        place = self._place()
        tail = self._end(place.voice) + tail
        marks = sorted({place.before_answer, place.mark} - {-1}) if mark is not None else []
        pieces: list[bytes | memoryview] = [head]
        start = 0
        view = memoryview(self._bytes)  # joined without a copy of each piece
        for at in marks:
            pieces += (view[start:at], b',"cache_control":', mark or b"")
            start = at
        pieces += (view[start:], tail)
        return b"".join(pieces)

    def _end(self, voice: Voice) -> bytes:
        """What stands behind the history, if the model is asked now: results that are missing, and words to
        an answer that is over, which it cannot follow.
        """
        end, last = bytearray(), voice
        for item in self._legal.unanswered():
            said, blocks = self._said(item)
            end += b"," if self._joins(said, last) else _opening(last)
            end += b",".join(map(_encoded, blocks))
            last = said
        if last in {"", "assistant"}:
            end += _opening(last) + _encoded({"type": "text", "text": GO_ON})
        return bytes(end) + b"]}"

    def _place(self) -> _Place:
        return self._places[-1] if self._places else _NOWHERE

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep of what is encoded the part that ``items`` begin with."""
        same = first_change(items, self._done)
        if same is None:
            return
        self._legal.go_back(self._done, same)
        del self._done[same:], self._places[same:]
        del self._bytes[self._place().end :]

    def _add(self, item: Item, number: int) -> None:
        place = self._place()
        for legal in self._legal.take(item, number):
            place = self._put(legal, place)
        self._places.append(place)

    def _put(self, item: Item, before: _Place) -> _Place:
        voice, blocks = self._said(item)
        if not blocks:  # nothing that may be sent: empty texts are refused
            return before
        data = self._bytes
        if self._joins(voice, before.voice):
            data += b","
        else:
            self._open(before.voice, voice)
        mark = before.mark
        for number, block in enumerate(blocks):
            data += b"," + _encoded(block) if number else _encoded(block)
            if block["type"] in _MARKED:
                mark = len(data) - 1
        speaks = voice in _MODEL
        before_answer = before.mark if speaks and before.voice not in _MODEL else before.before_answer
        return _Place(len(data), voice, mark, before_answer)

    def _joins(self, voice: Voice, before: Voice) -> bool:
        """Whether one more voice goes into the message that is open."""
        if voice in _MODEL:
            return before == "paused"
        return voice == before or (self._dialect.alternate and before in {"user", "results"})

    def _open(self, before: Voice, voice: Voice) -> None:
        """End the message that is open, and begin another."""
        if before:
            self._bytes += b"]},"
        if voice in _MODEL and before in {"", "assistant"}:
            notice = _encoded({"type": "text", "text": GO_ON if before else OPENING})
            self._bytes += b'{"role":"user","content":[%b]},' % notice
        role = b"assistant" if voice in _MODEL else b"user"
        self._bytes += b'{"role":"%b","content":[' % role

    def _said(self, item: Item) -> tuple[Voice, list[dict[str, Any]]]:
        """Whose message an item belongs to, and its blocks."""
        if isinstance(item, UserItem):
            return "user", list(_content(item.content))
        if isinstance(item, SystemItem):
            return "user", list(_content(_joined((TextPart(NOTICE_MARK), *item.content))))
        if isinstance(item, ToolResult):
            return "results", [_result(item)]
        native = item.origin is not None and item.origin == self._origin
        voice: Voice = "paused" if native and is_paused(item) else "assistant"
        return voice, self._spoken(item, native=native)

    def _spoken(self, item: AssistantItem, *, native: bool) -> list[dict[str, Any]]:
        """The blocks of an answer: as they came where it goes back to its server, which insists on that where
        reasoning stands between calls; calls behind all else where it does not.
        """
        calls, end = deque(item.calls), len(item.content)
        spoken = [part for part in item.content if isinstance(part, TextPart) and part.text.strip()]
        blocks: list[dict[str, Any]] = []
        for number, part in enumerate(item.content):
            while native and calls and _place_of(calls[0], end) <= number:
                blocks.append(_call(calls.popleft(), native=native))
            last = bool(spoken) and part is spoken[-1]
            if (block := self._part(item, part, native=native, last=last)) is not None:
                blocks.append(block)
        return [*blocks, *(_call(call, native=native) for call in calls)]

    def _part(self, item: AssistantItem, part: Part, *, native: bool, last: bool) -> dict[str, Any] | None:
        """The block of a text, which may be the ``last``, of reasoning or of a vendor's own; the latter two
        only as the server knows them again.
        """
        block: dict[str, Any] | None = None
        if isinstance(part, TextPart):
            if part.text.strip():  # blanks at the end of the last text are refused
                block = {"type": "text", "text": part.text.rstrip() if last else part.text}
        elif isinstance(part, ThinkingPart):
            block = self._thought(part, native=native, known=native or item.origin is None)
        elif isinstance(part, VendorPart) and native:
            block = part.data
        vendor = getattr(part, "vendor", None) if native else None
        return {**block, **vendor} if block is not None and vendor else block

    def _thought(self, part: ThinkingPart, *, native: bool, known: bool) -> dict[str, Any] | None:
        """Reasoning as it goes back: signed or sealed to any server that may have given it (old logs do not
        say), without a signature only to the one that gave it so.
        """
        if not self._dialect.reasoning or not known:
            return None
        if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        if part.signature is None and not (native and self._dialect.unsigned):
            return None
        return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}


def _opening(before: Voice) -> bytes:
    """The beginning of a message that is not the model's, behind the one that was open."""
    return b'%b{"role":"user","content":[' % (b"]}," if before else b"")


#: The voices of the model.
_MODEL = frozenset({"assistant", "paused"})
#: The blocks that may end what a server keeps.
_MARKED = frozenset({"text", "image", "tool_use", "tool_result"})


def _joined(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts as one text, unless there is a picture among them."""
    if any(isinstance(part, ImagePart) for part in parts):
        return parts
    return (TextPart("".join(part.text for part in parts if isinstance(part, TextPart))),)


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


def _place_of(call: ToolCall, end: int) -> int:
    """How many parts of the content a call stands behind, of which there are ``end``."""
    return end if call.after is None else call.after


def _call(call: ToolCall, *, native: bool) -> dict[str, Any]:
    """A call; one whose arguments were not JSON goes back with none."""
    arguments = call.arguments if call.invalid is None else {}
    block = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
    return {**call.vendor, **block} if native and call.vendor else block


def _result(item: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": item.call_id}
    content = list(_content(item.content))
    if any(each["type"] == "image" for each in content):
        # What is marked as an error may have text alone.
        block["content"] = [{"type": "text", "text": "Error:"}, *content] if item.is_error else content
        return block
    if content:
        block["content"] = item.text
    elif item.is_error:
        block["content"] = "failed without saying why"  # an error without words is refused
    if item.is_error:
        block["is_error"] = True
    return block


def _encoded(block: dict[str, Any]) -> bytes:
    """A block as JSON; half characters, which UTF-8 does not know, become question marks."""
    try:
        return _encoder.encode(block)
    except UnicodeEncodeError:
        return json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
