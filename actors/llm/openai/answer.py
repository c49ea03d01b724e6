"""Reads answers in the format of OpenAI's chat completions: events (or one whole answer) in, blocks out.
Pure.

Servers of this format differ in almost everything but the text itself. So what is decoded is typed only where
all agree, and the rest is read with care.
"""

from __future__ import annotations

from typing import Any

from actors.llm.base import (
    Block,
    End,
    StopReason,
    TextChunk,
    ThinkingChunk,
    UsageReport,
    VendorChunk,
)
from actors.llm.error_body import is_complaint
from actors.llm.errors import classify
from actors.llm.http.answers import (
    EventAnswer,
    callless,
    failure_of,
    is_reason,
    nameless,
    stop_of,
    unfinished,
)
from actors.llm.http.counts import cached_of, count_of, first_count, output_of
from actors.llm.lenient import UNREADABLE
from actors.llm.openai.calls import CallPiece, Calls, Function
from actors.llm.openai.wire import Choice, Chunk, Delta, decode_strictly, read_with_care
from actors.llm.pieces import HalfPairs, is_closed
from actors.llm.vendor import merged, unknown_members
from protocol.errors import ModelError, ModelErrorKind
from protocol.text import encodable
from protocol.usage import Usage

_MESSAGE_MEMBERS = frozenset({*Delta.__struct_fields__, "index", "images"})
_CALL_MEMBERS = frozenset({"index", "id", "type", "function"})
_FUNCTION_MEMBERS = frozenset({"name", "arguments"})

#: Where else servers report what was read from a cache: DeepSeek, gateways to Anthropic, Kimi.
_CACHE_READ = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens")
#: The names that servers use for reasoning; if there are several, the first counts.
_REASONING = ("reasoning_content", "reasoning", "reasoning_text")


class ChatAnswer(EventAnswer):
    """One answer as it arrives.

    ``feed`` never raises: what is wrong with the stream is in ``failure``, once the blocks before it have
    been given out. ``done`` says that no more will come.
    """

    __slots__ = (
        "_calls",
        "_chosen",
        "_halves",
        "_index",
        "_kind",
        "_old_call",
        "_reasoning_as",
        "_refused",
        "_streamed",
        "_usage",
        "_vendor",
    )

    def __init__(self, where: str, *, origin: str | None = None) -> None:
        super().__init__(where, origin)
        self._reasoning_as: str | None = None  # the message's name for it
        self._vendor: dict[str, Any] = {}
        self._calls = Calls()
        self._old_call: Calls | None = None  # came as `function_call`, which some servers send in addition
        self._halves: HalfPairs | None = None  # only if an event had to be mended
        self._kind: type[TextChunk | ThinkingChunk] | None = None
        self._index = 0  # of the current block of text or reasoning
        self._chosen = False
        self._refused = False
        self._streamed = False  # whether anything came as a piece
        self._usage: Usage | None = None

    @property
    def metered(self) -> bool:
        """Whether the server has reported the call's tokens."""
        return self._usage is not None

    @property
    def usage(self) -> Usage | None:
        """The call's tokens, as far as the server has reported them."""
        return self._usage

    def whole(self, data: bytes) -> list[Block]:
        """The blocks of an answer that came as one JSON object, which cannot have been cut."""
        blocks = self.feed([("message", data)])
        if self.failure is not None and not is_closed(data):
            self.failure = unfinished(self._where, begun=True)
        if self._chosen and not self.finish:
            self.finish = "stop"
        elif not (self._chosen or self.failure) and is_complaint(data):
            self._refuse(data)
        self.done = True
        return blocks

    def close(self) -> list[Block]:
        """The last blocks: the ends of calls and the end of the answer.

        Raises ModelError if the stream ended before the server gave a reason.
        """
        if not self.finish:
            raise unfinished(self._where, begun=self._chosen)
        blocks = self._blocks = []
        self._say_rest()
        reason = stop_of(self.finish)
        cut = reason in {"max_tokens", "content_filter"}
        if self._old_call and not self._calls:
            self._calls = self._old_call
            self._calls.show(blocks)
        if not cut and (self._calls.has_lost_one() or self._is_nothing_but_entries()):
            raise nameless(self._where)
        if reason == "tool_use" and not (self._calls or self._has_spoken() or self._vendor):
            raise callless(self._where)
        self._calls.end(blocks, cut=cut)
        if self._vendor:
            blocks.append(VendorChunk(self._vendor))
        origin = (self._origin, self._reasoning_as) if self._origin is not None else ()
        blocks.append(End(self._stop_reason(reason), self.model, *origin))
        return blocks

    def _is_nothing_but_entries(self) -> bool:
        """Whether there is no text and no call, but there were entries in the list of calls."""
        if self._has_spoken() or self._calls:
            return False
        return self._calls.has_entries() or (self._old_call is not None and self._old_call.has_entries())

    def _has_spoken(self) -> bool:
        return self._kind is TextChunk or self._index > 0

    def _stop_reason(self, reason: StopReason) -> StopReason:
        if reason not in {"end_turn", "tool_use"}:
            return reason
        if self._refused:  # calls beside a refusal must not be run
            return "refusal"
        return "tool_use" if self._calls else reason

    def _take(self, name: str, data: bytes) -> None:
        if data[:1] != b"{":
            self._odd(name, data)
            return
        plain = None
        try:
            chunk: Chunk = decode_strictly(data)
        except UNREADABLE:
            try:
                chunk, plain = read_with_care(data)
            except UNREADABLE as error:
                self._fail(f"{self._where} sent an unreadable event: {error}", "protocol")
                return
            self._halves = self._halves or HalfPairs()
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

    def _keep_vendor_data(self, chunk: Chunk, plain: dict[str, Any]) -> None:
        """Keep the members of the message and of its calls that only the server understands."""
        for choice, raw in zip(chunk.choices or (), plain.get("choices") or (), strict=True):
            if choice.index:
                continue
            message = raw.get("delta") or raw.get("message") or {}
            self._vendor = merged(self._vendor, unknown_members(message, _MESSAGE_MEMBERS))
            delta = choice.delta or choice.message
            calls = (delta.tool_calls if delta is not None else None) or ()
            for piece, call in zip(calls, message.get("tool_calls") or (), strict=True):
                piece.vendor = unknown_members(call, _CALL_MEMBERS)
                function = unknown_members(call.get("function"), _FUNCTION_MEMBERS)
                if function:
                    piece.vendor["function"] = function

    def _odd(self, name: str, data: bytes) -> None:
        """Read one event that does not begin like a JSON object."""
        data = data.strip()
        if data == b"[DONE]":
            self.done = True
        elif name == "error" or data[:1] == b"[":
            self._refuse(data)
        elif data[:1] == b"{":
            self._take(name, data)
        elif data:
            self._fail(f"{self._where} sent an event that is not JSON", "protocol")

    def _apply(self, choice: Choice) -> None:
        """Add what one chunk brings to the answer."""
        self._chosen = True
        delta = choice.delta
        if delta is not None:
            self._streamed = True
        elif not self._streamed:  # otherwise it repeats what came in pieces
            delta = choice.message
        if delta is not None:
            if delta.reasoning_content or delta.reasoning or delta.reasoning_text:
                self._think(delta)
            if content := delta.content:
                if type(content) is str and self._kind is TextChunk and self._halves is None:
                    self._blocks.append(TextChunk(content, self._index))  # `_say` inlined
                else:
                    self._say(TextChunk, content)
            if delta.tool_calls or delta.refusal or delta.function_call:
                self._add_rarer(delta)
        if choice.finish_reason or choice.usage is not None or choice.error:
            self._conclude(choice)

    def _add_rarer(self, delta: Delta) -> None:
        if delta.refusal:
            self._refused = True
            self._say(TextChunk, delta.refusal)
        if delta.tool_calls:
            self._calls.add(delta.tool_calls, self._blocks)
        if delta.function_call:
            self._add_old_call(delta.function_call)

    def _think(self, delta: Delta) -> None:
        self._reasoning_as = next(each for each in _REASONING if getattr(delta, each))
        self._say(ThinkingChunk, getattr(delta, self._reasoning_as))

    def _add_old_call(self, function: Function) -> None:
        if self._old_call is None:
            self._old_call = Calls()
        self._old_call.add([CallPiece(0, None, function)], [])

    def _conclude(self, choice: Choice) -> None:
        """Take what comes beside a piece: tokens, why the answer ends, or what went wrong with it."""
        if choice.usage is not None:
            self._meter(choice.usage)
        if choice.error:
            self._refuse({"error": choice.error})
        elif is_reason(choice.finish_reason):
            failure = failure_of(choice.finish_reason, self._where)
            if failure is None:
                self.finish = choice.finish_reason
            else:
                self._stop(failure)

    def _say(self, kind: type[TextChunk | ThinkingChunk], content: Any) -> None:
        """Add a piece of text or reasoning; a change from one to the other begins a new block."""
        if isinstance(content, str):
            if kind is not self._kind:
                self._say_rest()
                self._index += self._kind is not None
                self._kind = kind
            text = content if self._halves is None else self._halves.join(content)
            if text:
                self._blocks.append(kind(text, self._index))
        elif isinstance(content, list):
            for part in content:
                self._say(kind, part)
        elif isinstance(content, dict):  # a part of a list, as some servers send content
            if content.get("thinking"):
                self._reasoning_as = "content"
                self._say(ThinkingChunk, content["thinking"])
            elif content.get("text"):
                self._say(kind, content["text"])

    def _say_rest(self) -> None:
        """Give out half a surrogate pair whose other half never came."""
        if self._halves is not None and self._kind is not None and (rest := self._halves.rest()):
            self._blocks.append(self._kind(rest, self._index))

    def _meter(self, reported: Any) -> None:
        usage = usage_of(reported, self._usage)
        if usage is not None and usage != self._usage:
            self._usage = usage
            self._blocks.append(UsageReport(usage))

    def _fail(self, message: str, kind: ModelErrorKind) -> None:
        self._stop(ModelError(message, kind=kind, where=self._where))

    def _refuse(self, error: bytes | object) -> None:
        self._stop(classify(None, {}, error, where=self._where))

    def _stop(self, failure: ModelError) -> None:
        """Stop reading; what was finished before is kept."""
        self.done = True
        if not self.finish and self.failure is None:
            self.failure = failure


def usage_of(reported: Any, before: Usage | None = None) -> Usage | None:
    """The usage that a server reports, added to what it reported before; None if it reports nothing.

    No prompt is empty: servers that count nothing say 0, which means unknown.
    """
    if not isinstance(reported, dict):
        return before
    prompt = count_of(reported.get("prompt_tokens")) or None
    completion = output_of(prompt, reported.get("completion_tokens"), reported.get("total_tokens"))
    if prompt is None and not completion:
        return before
    known = before or Usage()
    details = reported.get("prompt_tokens_details")
    read, written = cached_of(details)
    read = first_count(read, *(reported.get(name) for name in _CACHE_READ))
    written = first_count(written, reported.get("cache_creation_input_tokens"))
    return Usage(
        known.input_tokens if prompt is None else prompt,
        known.output_tokens if completion is None else completion,
        known.cache_read_tokens if read is None else read,
        known.cache_write_tokens if written is None else written,
    )
