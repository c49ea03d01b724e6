"""Answers in the form of OpenAI's chat completions, pure: events (or one whole answer) in, blocks out.

Servers that speak this format differ in almost everything but the text itself, so what is decoded is typed
only where all agree, and the rest is looked at with care.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.answers import callless, count_of, failure_of, nameless, stop_of, unfinished
from actors.llm.base import (
    Block,
    End,
    StopReason,
    TextChunk,
    ThinkingChunk,
    UsageReport,
    VendorChunk,
)
from actors.llm.errors import classify
from actors.llm.lenient import UNREADABLE, HalfPairs, decode_any, decode_mended, is_closed
from actors.llm.openai_calls import CallPiece, Calls, Function
from actors.llm.sse import SSEEvent
from actors.llm.vendor import merged, unknown_members
from protocol.errors import ModelError, ModelErrorKind
from protocol.text import encodable
from protocol.usage import Usage


class _Delta(Struct):
    role: Any = None
    content: Any = None
    tool_calls: list[CallPiece] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    refusal: Any = None
    function_call: Function | None = None
    # what servers that keep vendor data elsewhere send empty with every piece
    name: Any = None
    annotations: Any = None
    audio: Any = None


class _Choice(Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    model: Any = None
    error: Any = None
    object: Any = None
    detail: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


# The same, but refused where a message or a call has members that are none of these: those are kept.


class _StrictFunction(Function, forbid_unknown_fields=True):
    pass


class _StrictPiece(CallPiece, forbid_unknown_fields=True):
    function: _StrictFunction | None = None


class _StrictDelta(_Delta, forbid_unknown_fields=True):
    tool_calls: list[_StrictPiece] | None = None  # type: ignore[assignment]


class _StrictChoice(_Choice):
    delta: _StrictDelta | None = None
    message: _StrictDelta | None = None


class _StrictChunk(_Chunk):
    choices: list[_StrictChoice] | None = None  # type: ignore[assignment]


_decode_strictly = msgspec.json.Decoder(_StrictChunk).decode

_MESSAGE_MEMBERS = frozenset({*_Delta.__struct_fields__, "index", "images"})
_CALL_MEMBERS = frozenset({"index", "id", "type", "function"})
_FUNCTION_MEMBERS = frozenset({"name", "arguments"})

#: What servers call reasoning; where there are several, the first counts.
_REASONING = ("reasoning_content", "reasoning", "reasoning_text")


class ChatAnswer:
    """One answer as it comes in.

    ``feed`` never raises: what is wrong with the stream stands in ``failure`` once the blocks before it have
    been given. ``done`` says that no more will come.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_chosen",
        "_finish",
        "_halves",
        "_index",
        "_kind",
        "_old_call",
        "_origin",
        "_reasoning_as",
        "_refused",
        "_streamed",
        "_usage",
        "_vendor",
        "_where",
        "done",
        "failure",
        "model",
    )

    def __init__(self, where: str, *, origin: str | None = None) -> None:
        self._where = where
        self._origin = origin
        self._reasoning_as: str | None = None  # what the message calls it
        self._vendor: dict[str, Any] = {}
        self._blocks: list[Block] = []
        self._calls = Calls()
        self._old_call = Calls()  # what came as `function_call`, which some servers send besides
        self._halves = HalfPairs()
        self._kind: type[TextChunk | ThinkingChunk] | None = None
        self._index = 0  # of the block of text or reasoning under way
        self._chosen = False
        self._refused = False
        self._streamed = False  # something came as a piece
        self._finish = ""
        self._usage: Usage | None = None
        self.model: str | None = None
        self.failure: ModelError | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        """Whether the server has said why it stopped, without which no answer is complete."""
        return bool(self._finish)

    @property
    def metered(self) -> bool:
        """Whether the server has told of the call's tokens."""
        return self._usage is not None

    def feed(self, events: list[SSEEvent]) -> list[Block]:
        """The blocks that come with ``events``; look at ``failure`` and ``done`` afterwards."""
        blocks = self._blocks = []
        for name, data in events:
            if self.done or self.failure is not None:
                break
            if data[:1] == b"{":
                self._take(name, data)
            else:
                self._odd(name, data)
        return blocks

    def whole(self, data: bytes) -> list[Block]:
        """The blocks of an answer that came as one JSON object, which cannot have been cut."""
        blocks = self.feed([("message", data)])
        if self.failure is not None and not is_closed(data):
            self.failure = unfinished(self._where, begun=True)
        if self._chosen and not self._finish:
            self._finish = "stop"
        self.done = True
        return blocks

    def close(self) -> list[Block]:
        """The last blocks: the ends of calls and the end of the answer.

        Raises ModelError where the stream ended before the server said why.
        """
        if not self._finish:
            raise unfinished(self._where, begun=self._chosen)
        blocks = self._blocks = []
        self._say_rest()
        cut = stop_of(self._finish) in {"max_tokens", "content_filter"}
        if not self._calls and self._old_call:
            self._calls = self._old_call
            self._calls.show(blocks)
        if not cut and (self._calls.has_lost_one() or self._is_nothing_but_entries()):
            raise nameless(self._where)
        if stop_of(self._finish) == "tool_use" and not (self._calls or self._has_spoken() or self._vendor):
            raise callless(self._where)
        self._calls.end(blocks, cut=cut)
        if self._vendor:
            blocks.append(VendorChunk(self._vendor))
        told = (self._origin, self._reasoning_as) if self._origin is not None else ()
        blocks.append(End(self._stop_reason(), self.model, *told))
        return blocks

    def _is_nothing_but_entries(self) -> bool:
        """Whether there is no text and no call, but entries in the place of calls."""
        entries = self._calls.has_entries() or self._old_call.has_entries()
        return entries and not self._calls and not self._has_spoken()

    def _has_spoken(self) -> bool:
        return self._kind is TextChunk or self._index > 0

    def _stop_reason(self) -> StopReason:
        reason = stop_of(self._finish)
        if reason not in {"end_turn", "tool_use"}:
            return reason
        if self._refused:  # whatever stands beside the words of a refusal is not to be run
            return "refusal"
        return "tool_use" if self._calls else reason

    def _take(self, name: str, data: bytes) -> None:
        """One event that is a JSON object."""
        plain = None
        try:
            chunk: _Chunk = _decode_strictly(data)
        except UNREADABLE:
            try:
                chunk, plain = _read_with_care(data)
            except UNREADABLE as error:
                self._fail(f"{self._where} sent an event that cannot be read: {error}", "protocol")
                return
        if (
            chunk.error
            or name == "error"
            or (not chunk.choices and (chunk.object == "error" or chunk.detail))
        ):
            self._refuse(data)
            return
        if plain is not None:
            self._keep_vendor_data(chunk, plain)
        for choice in chunk.choices or ():
            if not choice.index:  # of several answers only the first is ours
                self._apply(choice)
        if chunk.usage is not None:
            self._meter(chunk.usage)
        if self.model is None and isinstance(chunk.model, str):
            self.model = encodable(chunk.model) or None

    def _keep_vendor_data(self, chunk: _Chunk, plain: dict[str, Any]) -> None:
        """Keep the members of the message and of its calls that only the server understands."""
        for choice, told in zip(chunk.choices or (), plain.get("choices") or (), strict=True):
            if choice.index:
                continue
            message = told.get("delta") or told.get("message") or {}
            self._vendor = merged(self._vendor, unknown_members(message, _MESSAGE_MEMBERS))
            delta = choice.delta or choice.message
            calls = (delta.tool_calls if delta is not None else None) or ()
            for piece, call in zip(calls, message.get("tool_calls") or (), strict=True):
                piece.vendor = unknown_members(call, _CALL_MEMBERS)
                function = unknown_members(call.get("function"), _FUNCTION_MEMBERS)
                if function:
                    piece.vendor["function"] = function

    def _odd(self, name: str, data: bytes) -> None:
        """One event that does not begin like a JSON object."""
        data = data.strip()
        if data == b"[DONE]":
            self.done = True
        elif name == "error" or data[:1] == b"[":
            self._refuse(data)
        elif data[:1] == b"{":
            self._take(name, data)
        elif data:
            self._fail(f"{self._where} sent an event that is not JSON", "protocol")

    def _apply(self, choice: _Choice) -> None:
        self._chosen = True
        delta = choice.delta
        if delta is not None:
            self._streamed = True
            self._grow(delta)
        elif choice.message is not None and not self._streamed:  # else it repeats what came in pieces
            self._grow(choice.message)
        if choice.usage is not None:
            self._meter(choice.usage)
        if choice.error:
            self._refuse({"error": choice.error})
        elif choice.finish_reason and isinstance(choice.finish_reason, str):
            failure = failure_of(choice.finish_reason, self._where)
            if failure is None:
                self._finish = choice.finish_reason
            else:
                self._stop(failure)

    def _grow(self, delta: _Delta) -> None:
        """What one chunk adds to the answer."""
        if delta.reasoning_content or delta.reasoning or delta.reasoning_text:
            self._reasoning_as = next(each for each in _REASONING if getattr(delta, each))
            self._say(ThinkingChunk, getattr(delta, self._reasoning_as))
        if delta.content:
            self._say(TextChunk, delta.content)
        if delta.refusal:
            self._refused = True
            self._say(TextChunk, delta.refusal)
        if delta.tool_calls:
            self._calls.add(delta.tool_calls, self._blocks)
        if delta.function_call:
            self._old_call.add([CallPiece(0, None, delta.function_call)], [])

    def _say(self, kind: type[TextChunk | ThinkingChunk], content: Any) -> None:
        """A piece of text or reasoning; a change from one to the other opens a new block."""
        if isinstance(content, str):
            if kind is not self._kind:
                self._say_rest()
                self._index += self._kind is not None
                self._kind = kind
            text = content if content.isascii() and not self._halves.waiting else self._halves.join(content)
            if text:
                self._blocks.append(kind(text, self._index))
        elif isinstance(content, list):
            for part in content:
                self._say(kind, part)
        elif isinstance(content, dict):  # a part of a list, as some servers send their content
            if content.get("thinking"):
                self._reasoning_as = "content"
                self._say(ThinkingChunk, content["thinking"])
            elif content.get("text"):
                self._say(kind, content["text"])

    def _say_rest(self) -> None:
        """Half a character that waits for its other half, which does not come any more."""
        if self._kind is not None and (rest := self._halves.rest()):
            self._blocks.append(self._kind(rest, self._index))

    def _meter(self, told: Any) -> None:
        usage = usage_of(told, self._usage)
        if usage is not None and usage != self._usage:
            self._usage = usage
            self._blocks.append(UsageReport(usage))

    def _fail(self, message: str, kind: ModelErrorKind) -> None:
        self._stop(ModelError(message, kind=kind, where=self._where))

    def _refuse(self, told: bytes | object) -> None:
        self._stop(classify(None, {}, told, where=self._where))

    def _stop(self, failure: ModelError) -> None:
        """Nothing more is read; what was finished before stands."""
        if self._finish:
            self.done = True
        elif self.failure is None:
            self.failure = failure


def _read_with_care(data: bytes) -> tuple[_Chunk, dict[str, Any] | None]:
    """One event, and the same unread where it holds more than we know; raises one of UNREADABLE."""
    try:
        return _decode(data), _unread(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError):
        return decode_mended(data, _Chunk), _unread(data)


def _unread(data: bytes) -> dict[str, Any] | None:
    """An event as it came; None where what we know of it can be read and the rest cannot."""
    try:
        told: dict[str, Any] = decode_any(data)
    except UNREADABLE:
        return None
    return told


def usage_of(told: Any, before: Usage | None = None) -> Usage | None:
    """What a server's ``usage`` says, on top of what it said before; None where it says nothing.

    A prompt of no tokens does not exist: servers that count nothing say 0, which is unknown.
    """
    if not isinstance(told, dict):
        return before
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt = count_of(told.get("prompt_tokens")) or None
    completion = count_of(told.get("completion_tokens"))
    if prompt is None and not completion:
        return before
    known = before or Usage()
    read = _first(cached, told.get("prompt_cache_hit_tokens"), told.get("cache_read_input_tokens"))
    written = count_of(told.get("cache_creation_input_tokens"))
    return Usage(
        known.input_tokens if prompt is None else prompt,
        known.output_tokens if completion is None else completion,
        known.cache_read_tokens if read is None else read,
        known.cache_write_tokens if written is None else written,
    )


def _first(*told: Any) -> int | None:
    return next((count for each in told if (count := count_of(each)) is not None), None)
