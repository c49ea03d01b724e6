"""Claude Code's stream-json, as ``claude -p --output-format stream-json --verbose`` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from actors.swarm.runners.lines import (
    Ask,
    LineTranslator,
    amount_of,
    failure_of,
    inner,
    number_of,
    objects,
    text_of,
    texts_in,
)
from actors.swarm.runners.stream import Recorder
from protocol.errors import Failure
from protocol.events import (
    AssistantMessage,
    Event,
    RunOutcome,
    StreamRestart,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolResulted,
    ToolStart,
    TurnStart,
    UsageUpdate,
)
from protocol.items import AssistantItem, Part, TextPart, ThinkingPart, ToolCall, ToolResult, parts_of
from protocol.usage import Usage

#: What the program itself writes in the place of a model's answer.
_SYNTHETIC = "<synthetic>"
_COUNTED = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")


class ClaudeTranslator(LineTranslator):
    """One connection, which may have many results.

    Costs and ``modelUsage`` are those of the connection: what a run took is what was added. ``usage`` of a
    result lacks what was asked for again without streaming. Who sends counts it in ``unanswered``: words that
    did not join a run begin the next by themselves.
    """

    def __init__(self, recorder: Recorder, **more: Any) -> None:
        super().__init__(recorder, **more)
        #: How many messages of a user the program has not taken up yet.
        self.unanswered = 0
        #: Whether the run that goes on was asked to end.
        self.interrupted = False
        self._names: dict[str, str] = {}
        self._blocks: dict[int, tuple[str, str]] = {}
        self._streamed: str | None = None
        self._shown = False
        self._attempt = 1
        self._turn = 0
        self._has_text = False
        self._error = ""
        self._total: tuple[int, ...] = (0, 0, 0, 0)
        self._cost = 0.0

    def translate(self, kind: str, line: dict[str, Any]) -> Iterable[Event]:
        """Sub-agents of the program show only as the tools that they are."""
        if line.get("parent_tool_use_id"):
            return ()
        reader = _READERS.get(kind)
        return () if reader is None else reader(self, line)

    def _ask(self, line: dict[str, Any]) -> tuple[()]:
        """Take a question that it asks; an empty one says that it wants no answer any more."""
        self._asked.append(Ask(text_of(line, "request_id"), inner(line, "request")))
        return ()

    # -- its state -------------------------------------------------------------------------------

    def _system(self, line: dict[str, Any]) -> Iterator[Event]:
        kind = text_of(line, "subtype")
        if kind == "init":
            self.session = text_of(line, "session_id") or self.session
            self.is_ready = True
            if self.recorder.run_id is None and self.unanswered:
                yield self.recorder.continue_run()  # with words that came too late for the one before
            self._turn, self._has_text, self._error = 0, False, ""
        elif kind == "api_retry":
            status = number_of(line, "error_status") or 0
            words = text_of(line, "error").replace("_", " ") or "its model server failed"
            wait = (amount_of(line, "retry_delay_ms") or 0.0) / 1000
            yield self.retry(number_of(line, "attempt") or 1, wait, failure_of(words, status=status))

    # -- an answer as it comes -------------------------------------------------------------------

    def _stream(self, line: dict[str, Any]) -> Iterator[Event]:
        event = inner(line, "event")
        kind, index = text_of(event, "type"), number_of(event, "index") or 0
        if kind == "message_start":
            yield from self._void(text_of(inner(event, "message"), "id"))
            self._turn += 1
            yield self.recorder.make(TurnStart, turn=self._turn)
        elif kind == "content_block_start":
            block = inner(event, "content_block")
            self._blocks[index] = (text_of(block, "id"), text_of(block, "name"))
        elif kind == "content_block_delta":
            yield from self._delta(index, inner(event, "delta"))
        elif kind == "message_stop":
            self._streamed, self._attempt = None, 1

    def _delta(self, index: int, delta: dict[str, Any]) -> Iterator[Event]:
        make, attempt = self.recorder.make, self._attempt
        if text := text_of(delta, "text"):
            self._shown = True
            yield make(TextDelta, text=text, attempt=attempt)
        elif text := text_of(delta, "thinking"):
            self._shown = True
            yield make(ThinkingDelta, text=text, attempt=attempt)
        elif text := text_of(delta, "partial_json"):
            call_id, name = self._blocks.get(index, ("", ""))
            yield make(ToolCallDelta, call_id=call_id, name=name, text=text, attempt=attempt)

    def _void(self, coming: str | None) -> Iterator[Event]:
        """What was shown of a message that broke off is void once another one comes in its place."""
        if self._streamed is not None and self._streamed != coming:
            if self._shown:
                error = failure_of("the answer broke off and was requested again")
                yield self.recorder.make(StreamRestart, attempt=self._attempt, error=error)
            self._attempt += 1
        self._blocks.clear()
        self._streamed, self._shown = coming, False

    # -- whole messages --------------------------------------------------------------------------

    def _assistant(self, line: dict[str, Any]) -> Iterator[Event]:
        message, error = inner(line, "message"), text_of(line, "error")
        if error or text_of(message, "model") == _SYNTHETIC:
            self._error = texts_in(message.get("content")) or error
            return
        if self._streamed is not None and self._streamed != (text_of(message, "id") or self._streamed):
            yield from self._void(None)
            self._attempt = 1
        parts: list[Part] = []
        calls: list[ToolCall] = []
        for block in objects(message, "content"):
            kind = text_of(block, "type")
            if kind == "text" and (text := text_of(block, "text")):
                parts.append(TextPart(text))
            elif kind == "thinking":
                parts.append(ThinkingPart(text_of(block, "thinking")))
            elif kind.endswith("tool_use"):
                call = ToolCall(text_of(block, "id"), text_of(block, "name"), inner(block, "input"))
                calls.append(call)
                self._names[call.id] = call.name
        if parts or calls:
            self._has_text = self._has_text or any(isinstance(part, TextPart) for part in parts)
            item = AssistantItem(tuple(parts), tuple(calls))
            yield self.recorder.make(AssistantMessage, item=item, model=text_of(message, "model") or None)
        for call in calls:
            yield self.recorder.make(ToolStart, call_id=call.id, name=call.name, arguments=call.arguments)

    def _user(self, line: dict[str, Any]) -> Iterator[Event]:
        if line.get("isReplay") is True:
            self.unanswered = max(0, self.unanswered - 1)
            return
        for block in objects(inner(line, "message"), "content"):
            if text_of(block, "type") == "tool_result":
                call_id = text_of(block, "tool_use_id")
                item = ToolResult(
                    call_id,
                    self._names.pop(call_id, ""),
                    parts_of(texts_in(block.get("content"))),
                    is_error=block.get("is_error") is True,
                )
                yield self.recorder.make(ToolResulted, item=item)

    # -- the end of a run ------------------------------------------------------------------------

    def _result(self, line: dict[str, Any]) -> Iterator[Event]:
        self.session = text_of(line, "session_id") or self.session
        usage, cost = self._add_up(line)
        interrupted, self.interrupted = self.interrupted, False
        error, self._error = self._error, ""
        if self.recorder.run_id is None:
            return
        outcome, failure = _outcome(line, error, interrupted=interrupted)
        text = text_of(line, "result")
        if outcome == "finished" and text and not self._has_text:
            yield self.recorder.make(AssistantMessage, item=AssistantItem.of(text))
        if usage is not None:
            yield self.recorder.make(UsageUpdate, usage=usage, run_usage=usage, cost=cost)
        yield from self.recorder.end_run(
            outcome=outcome,
            steps=number_of(line, "num_turns") or 0,
            usage=usage or Usage(),
            cost=cost,
            error=failure,
        )

    def _add_up(self, line: dict[str, Any]) -> tuple[Usage | None, float | None]:
        """What the run took, in tokens and dollars; None where the program does not say."""
        models = [each for each in inner(line, "modelUsage").values() if isinstance(each, dict)]
        if not models:
            return None, None
        total = tuple(sum(number_of(each, name) or 0 for each in models) for name in _COUNTED)
        before = self._total if all(a >= b for a, b in zip(total, self._total, strict=True)) else (0, 0, 0, 0)
        self._total = total
        plain, output, read, written = (a - b for a, b in zip(total, before, strict=True))
        cost = amount_of(line, "total_cost_usd")
        added = None if cost is None else cost - self._cost if cost >= self._cost else cost
        self._cost = self._cost if cost is None else cost
        return Usage(plain + read + written, output, read, written), added


def _outcome(line: dict[str, Any], error: str, *, interrupted: bool) -> tuple[RunOutcome, Failure | None]:
    kind, why = text_of(line, "subtype"), text_of(line, "terminal_reason")
    if line.get("is_error") is not True and not error and not kind.startswith("error"):
        return "finished", None
    if interrupted or why.startswith("aborted"):
        return "cancelled", None
    words = text_of(line, "result") or error or texts_in(line.get("errors")) or kind.replace("_", " ")
    failure = failure_of(words, status=number_of(line, "api_error_status") or 0)
    return ("limit_reached" if kind == "error_max_turns" else "failed"), failure


_READERS = {
    "system": ClaudeTranslator._system,  # noqa: SLF001 - its own
    "stream_event": ClaudeTranslator._stream,  # noqa: SLF001
    "assistant": ClaudeTranslator._assistant,  # noqa: SLF001
    "user": ClaudeTranslator._user,  # noqa: SLF001
    "result": ClaudeTranslator._result,  # noqa: SLF001
    "control_request": ClaudeTranslator._ask,  # noqa: SLF001
    "control_cancel_request": ClaudeTranslator._ask,  # noqa: SLF001
}
