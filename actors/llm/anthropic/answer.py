"""Answers in the form of Anthropic's messages, pure: events (or one whole answer) in, blocks out.

Blocks may overlap, so what is under way is kept by the index the server gave it; each gets an index of ours
in order of arrival, since some servers number two blocks the same.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

from actors.llm.anthropic.usage import MessagesMeter
from actors.llm.anthropic.vendor import extend_vendor_data, vendor_chunk, vendor_members
from actors.llm.anthropic.wire import Content, Delta, Event, Whole, decode_event, read, unread
from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    StopReason,
    TextChunk,
    ThinkingChunk,
    UsageReport,
)
from actors.llm.error_body import is_complaint
from actors.llm.errors import classify
from actors.llm.http.answers import (
    EventAnswer,
    callless,
    failure_of,
    means_something,
    nameless,
    stop_of,
    unfinished,
)
from actors.llm.lenient import UNREADABLE, decode_any
from actors.llm.pieces import HalfPairs, is_closed
from protocol.errors import ModelError
from protocol.text import encodable, encodable_json
from protocol.usage import Usage

_encode = msgspec.json.Encoder().encode

#: Reasons by which an answer may end in the middle of a call.
_CUTS = frozenset({"max_tokens", "refusal", "content_filter"})

#: What is not a piece of arguments, though it stands in the place of one.
_NO_ARGUMENTS: tuple[Any, ...] = (None, "", {}, [])
#: Kinds of blocks that have arguments.
_ARGUED = frozenset({"call", "nameless", "answer"})

#: What a server numbers a block by, if at all.
_Index = int | str | None
#: What a block is to us; of ``other`` ones (tools that the vendor runs itself) nothing is given out.
_Kind = Literal["text", "thinking", "call", "nameless", "answer", "other"]


class _Open:
    """A block under way; of a call, ``pieces`` and ``given`` are its arguments as they came. ``vendor`` is
    what goes back with it unread: all of a block of kind ``other``, what we do not know of others.
    """

    __slots__ = ("given", "halves", "id", "index", "kind", "pieces", "vendor")

    def __init__(self, kind: _Kind, index: int) -> None:
        self.kind = kind
        self.index = index
        self.id = ""
        self.pieces: list[str] = []
        self.given: Any = None
        self.halves = HalfPairs()
        self.vendor: dict[str, Any] | None = None

    def has_arguments(self) -> bool:
        """Whether the arguments are a complete object with something in it."""
        text = "".join(self.pieces) or self.given
        try:
            decoded = decode_any(text) if isinstance(text, str) else text
        except UNREADABLE:
            return False
        return isinstance(decoded, dict) and bool(decoded)


class MessagesAnswer(EventAnswer):
    """One answer as it arrives; see AnswerReader. ``answer_tool`` names the tool through which a typed answer
    is given (see ``answer_tool_of``): its arguments are the text of the answer rather than a call.
    """

    __slots__ = (
        "_answer_tool",
        "_answered",
        "_argued",
        "_begun",
        "_begun_ones",
        "_calls",
        "_last",
        "_meter",
        "_next",
        "_open",
        "_taken",
    )

    def __init__(self, where: str, *, answer_tool: str | None = None, origin: str | None = None) -> None:
        super().__init__(where, origin)
        self._answer_tool = answer_tool
        self._open: dict[_Index, _Open] = {}
        self._calls: list[_Open] = []
        self._answered: list[_Open] = []
        self._begun_ones: list[_Open] = []
        self._last: _Open | None = None
        self._argued: _Open | None = None  # the last that can have arguments
        self._next = 0
        self._begun = False
        self._taken: set[str] = set()
        self._meter = MessagesMeter()

    @property
    def metered(self) -> bool:
        """Usage comes with the stop reason or not at all."""
        return bool(self.finish)

    @property
    def usage(self) -> Usage | None:
        """The call's tokens, as far as the server has reported them."""
        return self._meter.said

    def whole(self, data: bytes) -> list[Block]:
        blocks = self._blocks = []
        self.done = True
        try:
            message = read(data, Whole)
        except UNREADABLE as error:
            self._fail(f"sent an unreadable answer: {error}")
            if not is_closed(data):
                self.failure = unfinished(self._where, begun=True)
            return blocks
        if message.error or message.type == "error" or (message.content is None and is_complaint(data)):
            self.failure = classify(None, {}, data, where=self._where)
        elif message.content is not None:
            self.model = encodable(message.model) if isinstance(message.model, str) else None
            plain = unread(data, "content") or [{}] * len(message.content)
            for index, content in enumerate(message.content):
                self._start(index, content, plain[index])
            self._report(self._meter.end(message.usage))
            self.finish = str(message.stop_reason or "end_turn")
        return blocks

    def close(self) -> list[Block]:
        if not self.finish:
            raise unfinished(self._where, begun=self._begun)
        if (failure := failure_of(self.finish, self._where)) is not None:
            raise failure
        reason = stop_of(self.finish)
        if reason not in _CUTS and self._lost_a_call():
            raise nameless(self._where)
        if reason == "tool_use" and all(part.kind == "thinking" for part in self._begun_ones):
            raise callless(self._where)
        given = (part for part in self._answered if part.given and not part.pieces)
        blocks: list[Block] = [TextChunk(_json(part.given), part.index) for part in given]
        blocks += [block for part in self._begun_ones for block in _rest_of(part)]
        for call in self._calls:
            if call.given and not call.pieces:
                blocks.append(CallChunk(call.index, _json(call.given)))
            # only the block that came last can have been cut, and then `{}` is not arguments either
            if reason not in _CUTS or call is not self._last or call.has_arguments():
                blocks.append(CallEnd(call.index))
        blocks += (block for part in self._begun_ones if (block := vendor_chunk(part)))
        blocks.append(End(self._stop_reason(reason), self.model, self._origin))
        return blocks

    def _lost_a_call(self) -> bool:
        """Whether a call that was never named had arguments, or is all that there is."""
        lost = [part for part in self._begun_ones if part.kind == "nameless"]
        if any(means_something("".join(part.pieces) or _json(part.given or {})) for part in lost):
            return True
        return bool(lost) and not any(part.kind in {"text", "call", "answer"} for part in self._begun_ones)

    def _stop_reason(self, reason: StopReason) -> StopReason:
        if reason == "end_turn" and self._calls:
            return "tool_use"
        if reason == "tool_use" and self._answered and not self._calls:
            return "end_turn"
        return reason

    def _take(self, name: str, data: bytes) -> None:
        """Read one event."""
        if data[:1] != b"{" and (data := data.strip())[:1] != b"{":
            self._odd(data)
            return
        try:
            event = decode_event(data)
        except UNREADABLE:
            mended = self._mended(data)
            if mended is None:
                return
            event = mended
        kind = event.type if isinstance(event.type, str) else name
        if kind == "content_block_delta" and event.delta is not None:
            self._extend(event.index, event.delta, data)
        elif event.error or "error" in (name, kind):
            self._break_off(classify(None, {}, data, where=self._where))
        elif kind == "content_block_start" and event.content_block is not None:
            self._start(event.index, event.content_block, unread(data, "content_block") or {})
        elif kind == "message_start":
            self._greet(event.message)
        elif kind == "message_delta":
            self._conclude(event)
        elif kind == "message_stop":
            self.finish = self.finish or "end_turn"
            self.done = True

    def _mended(self, data: bytes) -> Event | None:
        """An event that has to be mended first; None, and a failure, where it cannot be."""
        try:
            return read(data, Event)
        except UNREADABLE as error:
            self._fail(f"sent an unreadable event: {error}")
            return None

    def _odd(self, data: bytes) -> None:
        """Read one event that is not a JSON object."""
        if data == b"[DONE]":
            self.done = True
        elif data:
            self._fail("sent an event that is not JSON")

    def _greet(self, message: Any) -> None:
        self._begun = True
        if isinstance(message, dict):
            self.model = encodable(message["model"]) if isinstance(message.get("model"), str) else None
            self._report(self._meter.begin(message.get("usage")))

    def _conclude(self, event: Event) -> None:
        self._begun = True
        if event.delta is not None and event.delta.stop_reason:
            self.finish = encodable(str(event.delta.stop_reason))
        self._report(self._meter.end(event.usage))

    def _start(self, index: _Index, content: Content, plain: dict[str, Any]) -> None:
        """Begin a block, perhaps with all that is in it; ``plain`` is the same, unread."""
        if content.type == "tool_use":
            self._start_call(index, content)
        elif content.type == "text":
            self._say(self._begin(index, "text"), content.text)
        elif content.type == "thinking":
            part = self._begin(index, "thinking")
            self._say(part, content.thinking)
            self._sign(part, content.signature)
        elif content.type == "redacted_thinking" and isinstance(content.data, str):
            part = self._begin(index, "thinking")
            self._blocks.append(ThinkingChunk(index=part.index, redacted=encodable(content.data)))
        else:
            self._begin(index, "other")
        self._open[index].vendor = vendor_members(plain)

    def _start_call(self, index: _Index, content: Content) -> None:
        name = encodable(content.name).strip() if isinstance(content.name, str) else ""
        if self._answer_tool is not None and name == self._answer_tool:
            part = self._begin(index, "answer")
            self._answered.append(part)
        elif not name:
            part = self._begin(index, "nameless")
        else:
            part = self._begin(index, "call")
            given = encodable(content.id) if isinstance(content.id, str) else ""
            part.id = given if given and given not in self._taken else f"toolu_{os.urandom(12).hex()}"
            self._taken.add(part.id)
            self._calls.append(part)
            self._blocks.append(CallStart(part.index, part.id, name, in_order=True))
        part.given = content.input

    def _begin(self, index: _Index, kind: _Kind) -> _Open:
        self._begun = True
        part = self._last = self._open[index] = _Open(kind, self._next)
        self._next += 1
        self._begun_ones.append(part)
        if kind in _ARGUED:
            self._argued = part
        return part

    def _extend(self, index: _Index, delta: Delta, data: bytes) -> None:
        """Add a piece to a block. Its kind shows in what it has; ``data`` is the unread event."""
        part = self._open.get(index)
        if part is not None and (part.kind == "other" or delta.citation):
            extend_vendor_data(part, unread(data, "delta") or {})
        if delta.text:
            if part is None or part.kind != "text":
                part = self._begin(index, "text")
            self._say(part, delta.text)
        elif delta.partial_json not in _NO_ARGUMENTS:
            self._argue(part, delta.partial_json)
        elif delta.thinking or delta.signature:
            if part is None or part.kind != "thinking":
                part = self._begin(index, "thinking")
            self._say(part, delta.thinking)
            self._sign(part, delta.signature)

    def _say(self, part: _Open, text: Any) -> None:
        if not text or not isinstance(text, str):
            return
        if part.halves.waiting or not text.isascii():
            text = part.halves.join(text)
        if text:
            kind = TextChunk if part.kind == "text" else ThinkingChunk
            self._blocks.append(kind(text, part.index))

    def _sign(self, part: _Open, signature: Any) -> None:
        if signature and isinstance(signature, str):
            self._blocks.append(ThinkingChunk(index=part.index, signature=encodable(signature)))

    def _argue(self, part: _Open | None, text: Any) -> None:
        """Add a piece of a call's arguments; one server moves a call to another index once there
        is text too.
        """
        if part is None or part.kind in {"text", "thinking"}:
            part = self._argued
        if part is None:
            self._fail("sent arguments for a call that it never started")
        elif part.kind != "other" and (text := part.halves.join(_piece(text))):
            part.pieces.append(text)
            if part.kind != "nameless":
                self._blocks.append(_argued(part, text))

    def _report(self, usage: Usage | None) -> None:
        if usage is not None:
            self._blocks.append(UsageReport(usage))

    def _fail(self, what: str) -> None:
        self._break_off(ModelError(f"{self._where} {what}", kind="protocol", where=self._where))

    def _break_off(self, failure: ModelError) -> None:
        """Read nothing more; what was finished before stands."""
        self.done = True
        if not self.finish:
            self.failure = failure


def _json(given: Any) -> str:
    """Arguments that arrived whole, as the text that they otherwise arrive as."""
    return encodable(given) if isinstance(given, str) else _encode(encodable_json(given)).decode()


def _piece(value: Any) -> str:
    """A piece of arguments, which a server may send as the value itself."""
    return value if isinstance(value, str) else _json(value)


def _argued(part: _Open, text: str) -> Block:
    """Add a piece of the arguments that are the text of a typed answer."""
    return TextChunk(text, part.index) if part.kind == "answer" else CallChunk(part.index, text)


def _rest_of(part: _Open) -> list[Block]:
    """Half a character at the end of a block whose other half never came."""
    rest = part.halves.rest()
    if not rest or part.kind in {"nameless", "other"}:
        return []
    if part.kind == "thinking":
        return [ThinkingChunk(rest, part.index)]
    return [TextChunk(rest, part.index) if part.kind == "text" else _argued(part, rest)]
