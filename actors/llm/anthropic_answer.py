"""Answers in the form of Anthropic's messages, pure: events (or one whole answer) in, blocks out.

Blocks may overlap, so what is under way is kept by the index the server gave it; each gets an index of ours
in order of arrival, since some servers number two blocks the same.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal

import msgspec
from msgspec import Struct

from actors.llm.answers import UNNAMED, unfinished
from actors.llm.anthropic_usage import MessagesMeter
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
    VendorChunk,
)
from actors.llm.errors import classify
from actors.llm.sse import SSEEvent
from actors.llm.vendor import merged, unknown_members
from protocol.errors import ModelError
from protocol.text import encodable, encodable_json
from protocol.usage import Usage


class _Delta(Struct):
    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    citation: Any = None


class _Content(Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    id: Any = None
    name: Any = None
    input: Any = None


class _Message(Struct):
    model: Any = None
    usage: Any = None


class _Event(Struct):
    type: Any = None
    index: int | str | None = None
    delta: _Delta | None = None
    content_block: _Content | None = None
    message: Any = None
    usage: Any = None
    error: Any = None


class _Whole(Struct):
    type: Any = None
    model: Any = None
    content: list[_Content] | None = None
    stop_reason: Any = None
    usage: Any = None
    error: Any = None
    detail: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

#: Anthropic's own words, and those of servers that mix them with OpenAI's.
_STOPS: dict[str, StopReason] = {
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "stop": "end_turn",
    "tool_use": "tool_use",
    "tool_calls": "tool_use",
    "max_tokens": "max_tokens",
    "length": "max_tokens",
    "pause_turn": "pause",
    "refusal": "refusal",
    "content_filter": "content_filter",
}
#: The stop reason of an answer that ran into the end of the context window.
_OVERFULL = "model_context_window_exceeded"
#: Reasons by which an answer may end in the middle of a call.
_CUTS = frozenset({"max_tokens", "refusal", "content_filter"})

#: What a server numbers a block by, if at all.
_Index = int | str | None
#: What a block is to us; of ``other`` ones (tools that the vendor runs itself) nothing is given out.
_Kind = Literal["text", "thinking", "call", "answer", "other"]


class _Open:
    """A block under way; of a call, ``pieces`` and ``given`` are its arguments as they came. ``vendor`` is
    what goes back with it unread: all of a block of kind ``other``, what we do not know of others.
    """

    __slots__ = ("given", "id", "index", "kind", "pieces", "vendor")

    def __init__(self, kind: _Kind, index: int) -> None:
        self.kind = kind
        self.index = index
        self.id = ""
        self.pieces: list[str] = []
        self.given: Any = None
        self.vendor: dict[str, Any] | None = None

    def has_arguments(self) -> bool:
        """Whether the arguments are a whole object with something in it."""
        text = "".join(self.pieces) or self.given
        try:
            told = _decode_any(text) if isinstance(text, str) else text
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        return isinstance(told, dict) and bool(told)


class MessagesAnswer:
    """One answer as it comes in, as AnswerReader says.

    ``answer_tool`` names the tool by which a typed answer is given (see ``anthropic_request``): its
    arguments are the text of the answer and no call.
    """

    __slots__ = (
        "_answer_tool",
        "_answered",
        "_begun",
        "_blocks",
        "_calls",
        "_last",
        "_meter",
        "_next",
        "_open",
        "_origin",
        "_stop",
        "_theirs",
        "_where",
        "done",
        "failure",
        "model",
    )

    def __init__(self, where: str, *, answer_tool: str | None = None, origin: str | None = None) -> None:
        self._where = where
        self._origin = origin
        self._theirs: list[_Open] = []
        self._answer_tool = answer_tool
        self._blocks: list[Block] = []
        self._open: dict[_Index, _Open] = {}
        self._calls: list[_Open] = []
        self._answered: list[_Open] = []
        self._last: _Open | None = None
        self._next = 0
        self._begun = False
        self._stop = ""
        self._meter = MessagesMeter()
        self.model: str | None = None
        self.failure: ModelError | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        """Whether the server has said why it stopped."""
        return bool(self._stop)

    @property
    def metered(self) -> bool:
        """Usage comes with the stop reason or not at all."""
        return self.finished

    def feed(self, events: list[SSEEvent]) -> list[Block]:
        blocks = self._blocks = []
        for name, data in events:
            if self.done or self.failure is not None:
                break
            self._take(name, data)
        return blocks

    def whole(self, data: bytes) -> list[Block]:
        blocks = self._blocks = []
        self.done = True
        try:
            told = _decode_whole(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fail(f"sent an answer that cannot be read: {error}")
            return blocks
        if told.error or told.type == "error" or told.detail:
            self.failure = classify(None, {}, data, where=self._where)
        elif told.content is not None:
            self.model = told.model if isinstance(told.model, str) else None
            plain = _decode_any(data)["content"]
            for index, content in enumerate(told.content):
                self._start(index, content, plain[index])
            self._report(self._meter.ended(told.usage))
            self._stop = str(told.stop_reason or "end_turn")
        return blocks

    def close(self) -> list[Block]:
        if not self._stop:
            raise unfinished(self._where, begun=self._begun)
        if self._stop == _OVERFULL:
            raise self._overfull()
        given = (part for part in self._answered if part.given and not part.pieces)
        blocks: list[Block] = [TextChunk(_json(part.given), part.index) for part in given]
        reason = _STOPS.get(self._stop, "end_turn")
        for call in self._calls:
            if call.given and not call.pieces:
                blocks.append(CallChunk(call.index, _json(call.given)))
            # only the block that came last can have been cut, and then `{}` is no arguments either
            if reason not in _CUTS or call is not self._last or call.has_arguments():
                blocks.append(CallEnd(call.index))
        blocks += (VendorChunk(*_vendor_of(part)) for part in self._theirs)
        blocks.append(End(self._stop_reason(reason), self.model, self._origin))
        return blocks

    def _stop_reason(self, reason: StopReason) -> StopReason:
        if reason == "end_turn" and self._calls:
            return "tool_use"
        if reason == "tool_use" and self._answered and not self._calls:
            return "end_turn"
        return reason

    def _take(self, name: str, data: bytes) -> None:
        """One event."""
        if data[:1] != b"{" and (data := data.strip())[:1] != b"{":
            self._odd(data)
            return
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fail(f"sent an event that cannot be read: {error}")
            return
        kind = event.type if isinstance(event.type, str) else name
        if kind == "content_block_delta" and event.delta is not None:
            part = self._open.get(event.index)
            if event.delta.citation or (part is not None and part.kind == "other"):
                self._extend_vendor_data(part, _decode_any(data)["delta"])
            self._extend(event.index, event.delta)
        elif event.error or "error" in (name, kind):
            self.failure = classify(None, {}, data, where=self._where)
        elif kind == "content_block_start" and event.content_block is not None:
            self._start(event.index, event.content_block, _decode_any(data)["content_block"])
        elif kind == "message_start":
            self._greet(event.message)
        elif kind == "message_delta":
            self._conclude(event)
        elif kind == "message_stop":
            self._stop = self._stop or "end_turn"
            self.done = True

    def _odd(self, data: bytes) -> None:
        """One event that is no JSON object."""
        if data == b"[DONE]":
            self.done = True
        elif data:
            self._fail("sent an event that is not JSON")

    def _greet(self, message: Any) -> None:
        self._begun = True
        if isinstance(message, dict):
            self.model = message["model"] if isinstance(message.get("model"), str) else None
            self._report(self._meter.begun(message.get("usage")))

    def _conclude(self, event: _Event) -> None:
        self._begun = True
        if event.delta is not None and event.delta.stop_reason:
            self._stop = str(event.delta.stop_reason)
        self._report(self._meter.ended(event.usage))

    def _start(self, index: _Index, content: _Content, plain: dict[str, Any]) -> None:
        """A block begins, perhaps with all that is in it; ``plain`` is the same, unread."""
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
            self._blocks.append(ThinkingChunk(index=part.index, redacted=content.data))
        else:
            self._begin(index, "other")
        known = _MEMBERS.get(content.type) if isinstance(content.type, str) else None
        part = self._open[index]
        part.vendor = encodable_json(plain) if known is None else unknown_members(plain, known) or None
        if part.vendor and part.kind != "answer":
            self._theirs.append(part)

    def _start_call(self, index: _Index, content: _Content) -> None:
        if content.name == self._answer_tool and self._answer_tool is not None:
            part = self._begin(index, "answer")
            self._answered.append(part)
        else:
            part = self._begin(index, "call")
            taken = {call.id for call in self._calls}
            told = content.id if isinstance(content.id, str) else ""
            part.id = told if told and told not in taken else f"toolu_{os.urandom(12).hex()}"
            name = content.name if isinstance(content.name, str) else ""
            self._calls.append(part)
            self._blocks.append(CallStart(part.index, part.id, name or UNNAMED))
        part.given = content.input

    def _begin(self, index: _Index, kind: _Kind) -> _Open:
        self._begun = True
        part = self._last = self._open[index] = _Open(kind, self._next)
        self._next += 1
        return part

    def _extend(self, index: _Index, delta: _Delta) -> None:
        """A piece of a block; what kind of piece it is shows in what it has."""
        part = self._open.get(index)
        if delta.text:
            self._say(
                part if part is not None and part.kind == "text" else self._begin(index, "text"), delta.text
            )
        elif delta.partial_json:
            self._argue(part, delta.partial_json)
        elif delta.thinking or delta.signature:
            if part is None or part.kind != "thinking":
                part = self._begin(index, "thinking")
            self._say(part, delta.thinking)
            self._sign(part, delta.signature)

    def _extend_vendor_data(self, part: _Open | None, delta: dict[str, Any]) -> None:
        """A piece of what goes back unread: of a block of the vendor's own, or a citation of a text."""
        if part is None:
            return
        if part.vendor is None:
            part.vendor = {}
            self._theirs.append(part)
        if part.kind != "other":
            part.vendor = merged(part.vendor, {"citations": [encodable_json(delta["citation"])]})
            return
        for name, value in delta.items():
            known = part.vendor.get(name)
            if name == "partial_json" and isinstance(value, str):
                part.pieces.append(value)
            elif isinstance(known, str) and isinstance(value, str) and name != "type":
                part.vendor[name] = encodable(known + value)
            elif name not in ("type", "partial_json"):
                part.vendor[name] = encodable_json(value)

    def _say(self, part: _Open, text: Any) -> None:
        if text and isinstance(text, str):
            kind = TextChunk if part.kind == "text" else ThinkingChunk
            self._blocks.append(kind(text, part.index))

    def _sign(self, part: _Open, signature: Any) -> None:
        if signature and isinstance(signature, str):
            self._blocks.append(ThinkingChunk(index=part.index, signature=signature))

    def _argue(self, part: _Open | None, text: Any) -> None:
        """A piece of a call's arguments; one server moves a call to another index once there is text too."""
        if part is None or part.kind in {"text", "thinking"}:
            part = next(reversed([*self._answered, *self._calls]), None)
        if part is None:
            self._fail("sent arguments of a call that it never began")
        elif isinstance(text, str) and part.kind != "other":
            part.pieces.append(text)
            answers = part.kind == "answer"
            self._blocks.append(TextChunk(text, part.index) if answers else CallChunk(part.index, text))

    def _report(self, usage: Usage | None) -> None:
        if usage is not None:
            self._blocks.append(UsageReport(usage))

    def _fail(self, what: str) -> None:
        self.failure = ModelError(f"{self._where} {what}", kind="protocol", where=self._where)

    def _overfull(self) -> ModelError:
        return ModelError(
            f"{self._where} stopped in the middle of its answer: the context is full",
            kind="context_overflow",
            hint="history and answer do not fit the context: compact it, or use a model with more room",
            where=self._where,
        )


#: What we read of each kind of block; the rest of it goes back unread, and so do blocks of other kinds.
_MEMBERS: dict[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}


def _vendor_of(part: _Open) -> tuple[dict[str, Any], int, Literal["call", "block"]]:
    data = part.vendor or {}
    if part.kind == "other" and part.pieces:
        # one that was cut goes back as it began
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            data = {**data, "input": encodable_json(_decode_any("".join(part.pieces)))}
    return data, part.index, "call" if part.kind == "call" else "block"


def _json(given: Any) -> str:
    """Arguments that came whole, as the text that others come as."""
    return given if isinstance(given, str) else _encode(given).decode()
