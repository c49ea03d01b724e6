"""What ``gemini --output-format stream-json`` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from actors.swarm.runners.lines import (
    LineTranslator,
    failure_of,
    inner,
    number_of,
    object_of,
    text_of,
    texts_in,
)
from actors.swarm.runners.stream import Recorder
from protocol.errors import Failure
from protocol.events import (
    Alert,
    AssistantMessage,
    Event,
    StreamRestart,
    TextDelta,
    ToolResulted,
    ToolStart,
    UsageUpdate,
)
from protocol.items import AssistantItem, ToolCall, ToolResult, parts_of
from protocol.usage import Usage

#: It waits at least so many seconds before it asks for an answer again, and prints that from its beginning.
_RETRY_WAIT = 0.8
_ATTEMPT = re.compile(r"Attempt (\d+) failed[^:]*: (.*)", re.DOTALL)
_API_ERROR = re.compile(r"\[API Error: (.*)\]", re.DOTALL)


class GeminiTranslator(LineTranslator):
    """One run, as stream-json. The answer is in pieces, which are joined until a tool or the end comes.

    A retry has no line of its own: what was printed of the answer is printed again, some time later. It is
    known by that alone, so an answer that begins in other words the second time seems to go on.
    """

    def __init__(self, recorder: Recorder, **more: Any) -> None:
        super().__init__(recorder, **more)
        self._text = ""
        self._first = ""
        self._at: float | None = None
        self._attempt = 1
        self._names: dict[str, str] = {}
        self._error = ""

    def translate(self, kind: str, line: dict[str, Any]) -> Iterable[Event]:
        """The events of a line."""
        if kind == "init":
            self.session = text_of(line, "session_id") or None
            self.is_ready = True
        elif kind == "message" and text_of(line, "role") == "assistant":
            return self._piece(texts_in(line.get("content")), _seconds(line))
        elif kind == "tool_use":
            return self._call(line)
        elif kind == "tool_result":
            return self._returned(line)
        elif kind == "error":
            return self._failing(text_of(line, "message"), text_of(line, "severity"))
        elif kind == "result":
            return self._result(line)
        return ()

    def feed_errors(self, line: str) -> list[Event]:
        """Take its retries, which stand on standard error alone."""
        attempt = _ATTEMPT.match(line)
        if attempt is None:
            return super().feed_errors(line)
        why = attempt[2].strip()
        return [self.retry(int(attempt[1][:9]), 0.0, failure_of(why, status=_status_in(why)))]

    def finish(self) -> list[Event]:
        """What was shown of an answer that never came to its end is kept, marked as cut."""
        events = [*super().finish(), *self._flush(cut=True)]
        if self._error:
            events += self.recorder.end_run(outcome="failed", error=failure_of(self._error))
        return events

    def _piece(self, text: str, at: float | None) -> Iterator[Event]:
        waited = at is not None and self._at is not None and at - self._at >= _RETRY_WAIT
        self._at = at
        if not text:
            return
        if self._text and waited and text == self._first:
            error = failure_of("the answer broke off and was requested again")
            yield self.recorder.make(StreamRestart, attempt=self._attempt, error=error)
            self._attempt += 1
            self._text = ""
        if not self._text:
            self._first = text
        self._text += text
        yield self.recorder.make(TextDelta, text=text, attempt=self._attempt)

    def _flush(self, *calls: ToolCall, cut: bool = False) -> Iterator[Event]:
        text, self._text, self._attempt = self._text, "", 1
        if text or calls:
            item = AssistantItem(parts_of(text) if text else (), calls, cut=cut)
            yield self.recorder.make(AssistantMessage, item=item)

    def _call(self, line: dict[str, Any]) -> Iterator[Event]:
        call = ToolCall(text_of(line, "tool_id"), text_of(line, "tool_name"), inner(line, "parameters"))
        self._names[call.id] = call.name
        yield from self._flush(call)
        yield self.recorder.make(ToolStart, call_id=call.id, name=call.name, arguments=call.arguments)

    def _returned(self, line: dict[str, Any]) -> Iterator[Event]:
        call_id = text_of(line, "tool_id")
        said = texts_in(line.get("output")) or text_of(inner(line, "error"), "message")
        failed = text_of(line, "status") == "error"
        result = ToolResult(call_id, self._names.pop(call_id, ""), parts_of(said), is_error=failed)
        yield self.recorder.make(ToolResulted, item=result)

    def _failing(self, words: str, severity: str) -> Iterator[Event]:
        if severity == "warning":
            yield self.recorder.make(Alert, text=words or "gemini reports a warning")
        else:
            self._error = words

    def _result(self, line: dict[str, Any]) -> Iterator[Event]:
        usage = _usage(inner(line, "stats"))
        failure = None
        if text_of(line, "status") != "success":
            failure = _failure(inner(line, "error"), self._error)
        self._error = ""
        yield from self._flush(cut=failure is not None)
        if usage != Usage():
            yield self.recorder.make(UsageUpdate, usage=usage, run_usage=usage)
        outcome = "finished" if failure is None else "failed"
        yield from self.recorder.end_run(outcome=outcome, usage=usage, error=failure)


def _usage(stats: dict[str, Any]) -> Usage:
    """What the run took; nothing at all is what it says where it does not know."""
    taken = number_of(stats, "input_tokens"), number_of(stats, "output_tokens")
    return Usage(*taken, number_of(stats, "cached")) if any(taken) else Usage()


def _failure(error: dict[str, Any], other: str) -> Failure:
    """Why it failed: its words are often the body of the server's answer."""
    words = text_of(error, "message") or other
    found = _API_ERROR.search(words)
    body = inner(object_of(found[1] if found else words), "error")
    status = number_of(body, "code") or _status_in(words)
    return failure_of(text_of(body, "message") or words, status=status)


def _status_in(words: str) -> int:
    found = re.search(r'"code":\s*(\d{3})\b|\bstatus:? (\d{3})\b', words)
    if found:
        return int(found[1] or found[2])
    return 429 if "exhausted" in words else 0


def _seconds(line: dict[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(text_of(line, "timestamp")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
