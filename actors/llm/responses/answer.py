"""Reads answers in the format of OpenAI's Responses: events (or one whole answer) in, blocks out. Pure.

An answer is a list of outputs: messages, reasoning, calls, and what only the vendor knows. Each comes in
pieces between ``output_item.added`` and ``output_item.done``, which repeats all of it.
"""

from __future__ import annotations

import os
from typing import Any, Literal

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
from actors.llm.http.answers import (
    EventAnswer,
    argument_text,
    failure_of,
    is_object,
    nameless,
    stop_of,
    unfinished,
)
from actors.llm.http.counts import cached_of, count_of, output_of
from actors.llm.lenient import UNREADABLE, decode_any
from actors.llm.pieces import HalfPairs, is_closed
from actors.llm.responses.wire import Event, read
from protocol.errors import ModelError, ModelErrorKind
from protocol.text import encodable, encodable_json
from protocol.usage import Usage

#: How an output is shown; ``other`` ones (a search that the vendor ran) are not.
_Kind = Literal["text", "thinking", "call", "other"]
_KINDS: dict[Any, _Kind] = {"message": "text", "reasoning": "thinking", "function_call": "call"}
#: Events that add text, and the kind of output that they belong to.
_TEXTS: dict[Any, _Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "thinking",
    "response.reasoning_summary_text.delta": "thinking",
}
_ARGUMENTS = frozenset({"response.function_call_arguments.delta", "response.function_call_arguments.done"})
_ITEMS = frozenset({"response.output_item.added", "response.output_item.done"})
_ENDS = frozenset({"response.completed", "response.incomplete"})
#: Members of reasoning that are valid only within its answer: what is sent back is never looked up.
_OF_ONE_ANSWER = frozenset({"id", "status"})
#: Statuses of an unfinished answer.
_UNFINISHED = frozenset({"failed", "cancelled", "in_progress", "queued"})
#: Reasons for which a text may end in the middle of a call.
_CUTS = frozenset({"max_tokens", "content_filter"})


class _Output:
    """An output that is arriving. ``pieces`` are its text or arguments so far, ``shown`` says whether any of
    it was given out, ``ended`` that the server has sent all of it, ``closed`` that its end was given out too.
    """

    __slots__ = ("closed", "ended", "halves", "index", "kind", "pieces", "shown")

    def __init__(self, kind: _Kind, index: int) -> None:
        self.kind = kind
        self.index = index
        self.pieces: list[str] = []
        self.shown = False
        self.ended = False
        self.closed = False
        #: Only created if an event had to be mended.
        self.halves: HalfPairs | None = None


class ResponsesAnswer(EventAnswer):
    """An ``AnswerReader`` for one answer. ``most`` is how many tokens it may have: some servers do not report
    that they cut it there.
    """

    __slots__ = (
        "_begun",
        "_ids",
        "_lost_call",
        "_mends",
        "_most",
        "_outputs",
        "_refused",
        "_usage",
    )

    def __init__(self, where: str, *, origin: str | None = None, most: int | None = None) -> None:
        super().__init__(where, origin)
        self._most = most
        #: By the number or the id that the server gives each.
        self._outputs: dict[int | str, _Output] = {}
        self._ids: set[str] = set()
        self._begun = False
        self._mends = False
        self._refused = False
        self._lost_call = False
        self._usage: Usage | None = None

    @property
    def metered(self) -> bool:
        """Whether usage was reported: it comes with the end, or not at all."""
        return bool(self.finish)

    @property
    def usage(self) -> Usage | None:
        """The call's tokens, as far as the server has reported them."""
        return self._usage

    def whole(self, data: bytes) -> list[Block]:
        """The blocks of an answer that came as one JSON object."""
        blocks = self._blocks = []
        try:
            event, self._mends = read(data)
        except UNREADABLE as error:
            self._break(f"sent an unreadable answer: {error}")
            if not is_closed(data):
                self.failure = unfinished(self._where, begun=True)
        else:
            if event.output is None:
                self._fail(classify(None, {}, data, where=self._where))
            else:
                plain: dict[str, Any] = encodable_json(_members(data))
                self._conclude(plain)
        self.done = True
        return blocks

    def close(self) -> list[Block]:
        """The last blocks: the ends of calls and the end of the answer. Raises ModelError if the stream ended
        before the server gave a reason.
        """
        if not self.finish:
            raise unfinished(self._where, begun=self._begun)
        blocks = self._blocks = []
        reason = stop_of(self.finish)
        calls = [each for each in self._outputs.values() if each.kind == "call"]
        for output in self._outputs.values():
            self._say_rest(output)
        if reason not in _CUTS and self._lost_call and not any(each.shown for each in calls):
            raise nameless(self._where)
        for call in calls:
            if call.shown and not call.closed and reason not in _CUTS and (call.ended or _has_come(call)):
                self._end_call(call)
        origin = () if self._origin is None else (self._origin,)
        blocks.append(End(self._reason(reason, calls), self.model, *origin))
        return blocks

    def _reason(self, reason: StopReason, calls: list[_Output]) -> StopReason:
        if reason in _CUTS:
            return reason
        if self._refused:
            return "refusal"
        return "tool_use" if any(each.shown for each in calls) else reason

    # -- events ------------------------------------------------------------------------------------

    def _take(self, name: str, data: bytes) -> None:
        begin = data.lstrip()[:1]
        if begin == b"{":
            self._take_object(name, data)
        elif name == "error" or (begin == b"[" and data.strip() != b"[DONE]"):
            self._fail(classify(None, {}, data, where=self._where))
        elif data.strip() and data.strip() != b"[DONE]":
            self._break("sent an event that is not JSON")

    def _take_object(self, name: str, data: bytes) -> None:
        try:
            event, mended = read(data)
        except UNREADABLE as error:
            self._break(f"sent an unreadable event: {error}")
            return
        self._mends = self._mends or mended
        kind = event.type if isinstance(event.type, str) else None
        if kind in _TEXTS:
            self._add_text(event, _TEXTS[kind], refusal=kind == "response.refusal.delta")
        elif kind in _ARGUMENTS:
            self._add_arguments(event)
        elif kind in _ITEMS:
            if isinstance(event.item, dict):
                item = encodable_json(event.item) if mended else event.item
                self._take_item(item, event, done=kind == "response.output_item.done")
        elif kind == "response.reasoning_summary_part.added":
            self._part_thoughts(event)
        else:
            self._take_other(name, kind, event, data)

    def _take_other(self, name: str, kind: Any, event: Event, data: bytes) -> None:
        response = event.response if isinstance(event.response, dict) else {}
        if kind == "error" or name == "error" or kind == "response.failed" or (event.error and not kind):
            failed = response.get("error") or event.error
            said: Any = data if failed is None else {"error": failed}
            self._fail(classify(None, {}, said, where=self._where))
        elif event.detail and not kind:
            self._fail(classify(None, {}, data, where=self._where))
        elif kind in _ENDS:
            self._conclude(encodable_json(response))
        elif isinstance(model := response.get("model"), str):
            self.model = encodable(model) or None

    def _output(self, event: Event, kind: _Kind, item: dict[str, Any]) -> _Output:
        """The output that an event belongs to; the first event begins it."""
        number = event.output_index
        key: int | str
        if isinstance(number, int) and not isinstance(number, bool):
            key = number
        else:
            key = str(event.item_id or item.get("id") or "")
        known = self._outputs.get(key)
        if known is None:
            known = self._outputs[key] = _Output(kind, len(self._outputs))
        elif known.kind != kind:  # not the announced kind: this is another output
            known = self._outputs.setdefault(f"{key} {kind}", _Output(kind, len(self._outputs)))
        return known

    def _add_text(self, event: Event, kind: _Kind, *, refusal: bool) -> None:
        if isinstance(event.delta, str) and event.delta:
            self._refused = self._refused or refusal
            self._say(self._output(event, kind, {}), event.delta)

    def _say(self, output: _Output, text: str) -> None:
        if output.kind == "text" and not output.shown and any(map(_is_shown_text, self._outputs.values())):
            self._blocks.append(TextChunk("\n\n", output.index))  # between two messages
        self._begun = output.shown = True
        if self._mends:
            output.halves = output.halves or HalfPairs()
            text = output.halves.join(text)
        if text:
            output.pieces.append(text)
            made = TextChunk if output.kind == "text" else ThinkingChunk
            self._blocks.append(made(text, output.index))

    def _say_rest(self, output: _Output) -> None:
        """Give out half a surrogate pair whose other half never came."""
        if output.halves is None or not (rest := output.halves.rest()):
            return
        if output.kind == "call":
            output.pieces.append(rest)
            if output.shown:
                self._blocks.append(CallChunk(output.index, rest))
        else:
            made = TextChunk if output.kind == "text" else ThinkingChunk
            self._blocks.append(made(rest, output.index))

    def _part_thoughts(self, event: Event) -> None:
        """Separate the parts of a reasoning summary."""
        number = event.summary_index
        if isinstance(number, int) and number > 0:
            self._say(self._output(event, "thinking", {}), "\n\n")

    def _add_arguments(self, event: Event) -> None:
        output = self._output(event, "call", {})
        if output.closed:
            return
        if isinstance(event.delta, str):
            self._argue(output, event.delta)
        else:
            self._complete(output, event.arguments)

    def _argue(self, output: _Output, text: str) -> None:
        if self._mends:
            output.halves = output.halves or HalfPairs()
            text = output.halves.join(text)
        if text:
            output.pieces.append(text)
            if output.shown:
                self._blocks.append(CallChunk(output.index, text))

    def _complete(self, output: _Output, arguments: Any) -> None:
        """Take all arguments of a call once more: the part that has not come before."""
        whole, came = argument_text(arguments), "".join(output.pieces)
        if whole.startswith(came):
            self._argue(output, whole[len(came) :])
        elif not _says_the_same(whole, came):
            self._break("sent the arguments of a call twice, with different content")

    # -- outputs -----------------------------------------------------------------------------------

    def _take_item(self, item: dict[str, Any], event: Event, *, done: bool) -> None:
        """Take an output at its beginning, or all of it."""
        kind = _kind_of(item)
        output = self._output(event, kind, item)
        if output.closed:
            return
        self._begun = True
        if kind == "call":
            self._take_call(output, item, done=done)
        elif done:
            output.closed = True
            if kind == "text":
                self._take_message(output, item)
            else:
                self._take_unread(output, item)

    def _take_call(self, output: _Output, item: dict[str, Any], *, done: bool) -> None:
        name = item.get("name")
        if not output.shown:
            if not (isinstance(name, str) and name.strip()):
                self._lost_call = self._lost_call or done
                return
            output.shown = True
            self._blocks.append(CallStart(output.index, self._id_of(item), encodable(name), in_order=True))
            if output.pieces:
                self._blocks.append(CallChunk(output.index, "".join(output.pieces)))
        if not done:
            return
        self._complete(output, item.get("arguments"))
        if self.done:
            return
        output.ended = item.get("status") != "incomplete"
        if output.ended and _is_whole(output):
            self._end_call(output)

    def _end_call(self, output: _Output) -> None:
        output.closed = True
        self._blocks.append(CallEnd(output.index))

    def _id_of(self, item: dict[str, Any]) -> str:
        """The id of a call, unique within the answer."""
        given = item.get("call_id") or item.get("id")
        wanted = encodable(given) if isinstance(given, str) else ""
        if not wanted.strip() or wanted in self._ids:
            wanted = f"call_{os.urandom(12).hex()}"
        self._ids.add(wanted)
        return wanted

    def _take_message(self, output: _Output, item: dict[str, Any]) -> None:
        """Take a whole message: the part that has not come before."""
        content = item.get("content")
        said = ""
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                text, refusal = part.get("text"), part.get("refusal")
                self._refused = self._refused or bool(refusal)
                said += next((each for each in (text, refusal) if isinstance(each, str)), "")
        came = "".join(output.pieces)
        if len(said) > len(came) and said.startswith(came):
            self._say(output, said[len(came) :])
        phase = item.get("phase")
        if output.shown and isinstance(phase, str):
            self._blocks.append(VendorChunk({"phase": encodable(phase)}, output.index, "block"))

    def _take_unread(self, output: _Output, item: dict[str, Any]) -> None:
        """Take what is sent back unread: reasoning, and the vendor's own outputs."""
        if output.kind == "thinking":
            if not output.shown:
                self._say_thoughts(output, item)
            if not (item.get("encrypted_content") or item.get("content")):
                return  # none of it is of use to the server that it came from
            item = {name: value for name, value in item.items() if name not in _OF_ONE_ANSWER and value}
            item.setdefault("summary", [])
        self._blocks.append(VendorChunk(encodable_json(item), output.index, "block"))

    def _say_thoughts(self, output: _Output, item: dict[str, Any]) -> None:
        parts = item.get("content") or item.get("summary")
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        )
        thought = "\n\n".join([text for text in texts if isinstance(text, str) and text])
        if thought:
            self._say(output, thought)

    # -- the end -----------------------------------------------------------------------------------

    def _conclude(self, response: dict[str, Any]) -> None:
        """Take the whole answer, at its end."""
        status = response.get("status")
        if (model := response.get("model")) and isinstance(model, str):
            self.model = model
        self._meter(response.get("usage"))
        if response.get("error"):
            self._fail(classify(None, {}, {"error": response["error"]}, where=self._where))
            return
        output = response.get("output")
        is_all_new = not self._outputs
        for number, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict) and (is_all_new or self._is_open(number, item)):
                self._take_item(item, Event(output_index=number), done=True)
        if self.done:  # an output differs from what came of it before
            return
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        if isinstance(status, str) and status in _UNFINISHED:
            self._break(f"gave up on its answer ({status})", "server")
            return
        word = (
            reason if isinstance(reason, str) and reason else "length" if status == "incomplete" else "stop"
        )
        if "incomplete_details" not in response and self._is_full():
            word = "length"
        if (failure := failure_of(word, self._where)) is not None:
            self._fail(failure)
            return
        self._begun, self.finish, self.done = True, word, True

    def _is_open(self, number: int, item: dict[str, Any]) -> bool:
        """Whether an output has begun and is not complete."""
        known = self._outputs.get(number)
        if known is None or known.closed or known.kind != _kind_of(item):
            return False
        return known.kind != "call" or not _has_come(known)

    def _is_full(self) -> bool:
        """Whether a server that never reports it has cut the answer."""
        length = None if self._usage is None else self._usage.output_tokens
        return self._most is not None and length is not None and length >= self._most

    def _meter(self, reported: Any) -> None:
        if not isinstance(reported, dict):
            return
        prompt = count_of(reported.get("input_tokens")) or None
        output = output_of(prompt, reported.get("output_tokens"), reported.get("total_tokens"))
        if not prompt and not output:  # no prompt is empty, so nothing was counted
            return
        self._usage = Usage(prompt, output, *cached_of(reported.get("input_tokens_details")))
        self._blocks.append(UsageReport(self._usage))

    def _break(self, words: str, kind: ModelErrorKind = "protocol") -> None:
        self._fail(ModelError(f"{self._where} {words}", kind=kind, where=self._where))

    def _fail(self, failure: ModelError) -> None:
        """Stop reading; what was finished before is kept."""
        self.done = True
        if not self.finish and self.failure is None:
            self.failure = failure


def _kind_of(item: dict[str, Any]) -> _Kind:
    name = item.get("type")
    return _KINDS.get(name, "other") if isinstance(name, str) else "other"


def _is_shown_text(output: _Output) -> bool:
    return output.kind == "text" and output.shown


def _is_whole(call: _Output) -> bool:
    """Whether the arguments of a call, which may have none, are complete."""
    return is_object("".join(call.pieces) or "{}")


def _says_the_same(arguments: str, came: str) -> bool:
    """Whether arguments are those that came before: left out now, or the same object written otherwise."""
    try:
        return not arguments or bool(decode_any(arguments) == decode_any(came))
    except UNREADABLE:
        return False


def _has_come(call: _Output) -> bool:
    """Whether the arguments of a call are complete although its end was not reported: a call without any may
    just have begun.
    """
    return bool(call.pieces) and _is_whole(call)


def _members(data: bytes) -> dict[str, Any]:
    """The members of a whole answer, which was decoded before."""
    try:
        decoded = decode_any(data)
    except UNREADABLE:
        return {}
    return decoded if isinstance(decoded, dict) else {}
