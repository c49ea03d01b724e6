"""The lines of ``polypod agent`` and of programs like it: flat objects with ``type`` and ``time``."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec

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
from protocol.events import (
    AgentActivity,
    Alert,
    AssistantMessage,
    Event,
    RunOutcome,
    TextDelta,
    ThinkingDelta,
    ToolProgress,
    ToolResulted,
    ToolStart,
    TurnStart,
    UsageUpdate,
    UserMessage,
)
from protocol.foreign import shown
from protocol.items import AssistantItem, ToolCall, ToolResult, UserItem, parts_of
from protocol.usage import Usage

_OUTCOMES: dict[str, RunOutcome] = {each: each for each in get_args(RunOutcome)}
#: What the program may call a question.
_KEY = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class AgentTranslator(LineTranslator):
    """One connection, which may have many runs: ``turn_end`` with a number as ``step`` ends one.

    What the program says of its own end (``agent_stopped``) is only why it ended well, if it did.
    """

    def __init__(self, recorder: Recorder, **more: Any) -> None:
        super().__init__(recorder, **more)
        #: The words that were sent and that the program has not repeated yet.
        self.sent: deque[str] = deque()
        #: What the program gave as the reason of its end.
        self.claimed = ""
        self._names: dict[str, str] = {}
        self._error = ""
        self._usage = Usage()
        self._cost: float | None = None

    def translate(self, kind: str, line: dict[str, Any]) -> Iterable[Event]:
        """The events of a line; of one whose type is not known, the line itself."""
        reader = _READERS.get(kind)
        if reader is None:
            return [self.stray("stdout", msgspec.json.encode(line).decode())]
        return reader(self, line)

    # -- its state -------------------------------------------------------------------------------

    def _ready(self, line: dict[str, Any]) -> Iterator[Event]:
        self.session = text_of(line, "session", "session_id") or self.session
        self.is_ready = True
        yield from ()

    def _starting(self, line: dict[str, Any]) -> Iterator[Event]:
        yield self.recorder.make(AgentActivity, activity=text_of(line, "text") or "starting")

    def _stopping(self, line: dict[str, Any]) -> Iterator[Event]:
        self.claimed = text_of(line, "reason")
        yield from ()

    def _turn_start(self, line: dict[str, Any]) -> Iterator[Event]:
        if self.recorder.run_id is None:  # somebody else has sent to it
            yield self.recorder.continue_run()
        yield self.recorder.make(TurnStart, turn=number_of(line, "step") or 1)

    def _turn_end(self, line: dict[str, Any]) -> Iterator[Event]:
        step = number_of(line, "step")
        if step is None:  # the end of a request, with tools to follow
            return
        error, self._error = _words(line) or self._error, ""
        usage, self._usage = self._usage, Usage()
        cost, self._cost = self._cost, None
        outcome = _OUTCOMES.get(text_of(line, "outcome", "stop")) or ("failed" if error else "finished")
        failure = failure_of(error) if error or outcome == "failed" else None
        if failure is not None and outcome == "finished":
            outcome = "failed"
        yield from self.recorder.end_run(outcome=outcome, steps=step, usage=usage, cost=cost, error=failure)

    def _failing(self, line: dict[str, Any]) -> Iterator[Event]:
        words = _words(line) or "the program reports an error"
        if self.recorder.run_id is not None:
            self._error = words
        yield self.recorder.make(Alert, text=words)

    def _alert(self, line: dict[str, Any]) -> Iterator[Event]:
        yield self.recorder.make(Alert, text=text_of(line, "text") or "the program reports a warning")

    def _asks(self, line: dict[str, Any]) -> Iterator[Event]:
        asked = text_of(line, "approval_id")
        if _KEY.fullmatch(asked):
            self._asked.append(Ask(asked, line))
        else:
            yield self.stray("stdout", f"a question without a usable id: {shown(asked)}")

    def _printed(self, line: dict[str, Any]) -> Iterator[Event]:
        yield self.stray("stderr" if line["type"] == "stderr" else "stdout", text_of(line, "text"))

    # -- the conversation ------------------------------------------------------------------------

    def _user(self, line: dict[str, Any]) -> Iterator[Event]:
        text = texts_in(line.get("content")) or text_of(line, "text")
        if text in self.sent:
            self.sent.remove(text)  # it was recorded as it was sent
        elif text:
            if self.recorder.run_id is None:
                yield self.recorder.continue_run()
            yield self.recorder.make(UserMessage, item=UserItem.of(text))

    def _assistant(self, line: dict[str, Any]) -> Iterator[Event]:
        text = texts_in(line.get("content")) or text_of(line, "text")
        calls = [
            ToolCall(text_of(each, "id"), text_of(each, "name"), inner(each, "input"))
            for each in objects(line, "content")
            if text_of(each, "type") == "tool_use"
        ]
        self._names |= {call.id: call.name for call in calls}
        self._error = ""
        if text or calls:
            yield self.recorder.make(AssistantMessage, item=AssistantItem.of(text, tuple(calls)))

    def _text(self, line: dict[str, Any]) -> Iterator[Event]:
        if text := text_of(line, "text", "delta"):
            yield self.recorder.make(TextDelta, text=text)

    def _thinking(self, line: dict[str, Any]) -> Iterator[Event]:
        if text := text_of(line, "text", "delta"):
            yield self.recorder.make(ThinkingDelta, text=text)

    def _call(self, line: dict[str, Any]) -> Iterator[Event]:
        call_id, name = text_of(line, "call_id", "id"), text_of(line, "name", "tool")
        arguments = inner(line, "arguments") or inner(line, "input") or inner(line, "args")
        if call_id not in self._names:
            call = ToolCall(call_id, name, arguments)
            yield self.recorder.make(AssistantMessage, item=AssistantItem((), (call,)))
        self._names[call_id] = name
        yield self.recorder.make(ToolStart, call_id=call_id, name=name, arguments=arguments)

    def _progress(self, line: dict[str, Any]) -> Iterator[Event]:
        call_id = text_of(line, "call_id", "id")
        name = text_of(line, "name") or self._names.get(call_id, "")
        yield self.recorder.make(ToolProgress, call_id=call_id, name=name, text=text_of(line, "text"))

    def _returned(self, line: dict[str, Any]) -> Iterator[Event]:
        call_id = text_of(line, "call_id", "id")
        name = self._names.pop(call_id, "") or text_of(line, "name", "tool")
        said = texts_in(line.get("content")) or text_of(line, "text", "output", "result")
        result = ToolResult(call_id, name, parts_of(said), is_error=line.get("is_error") is True)
        yield self.recorder.make(ToolResulted, item=result)

    def _count_usage(self, line: dict[str, Any]) -> Iterator[Event]:
        found = inner(line, "usage") or line
        usage = Usage(
            number_of(found, "input_tokens"),
            number_of(found, "output_tokens"),
            number_of(found, "cache_read_tokens"),
            number_of(found, "cache_write_tokens"),
        )
        cost = amount_of(line, "cost")
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost
        if usage != Usage():
            self._usage = usage if self._usage == Usage() else self._usage + usage
            yield self.recorder.make(UsageUpdate, usage=usage, run_usage=self._usage, cost=cost)


def _words(line: dict[str, Any]) -> str:
    """The words of an error: ``error`` or ``message``, as a text or an object that has one."""
    for name in ("error", "message"):
        value = line.get(name)
        text = text_of(value, "message") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            return text
    return ""


_READERS = {
    "agent_ready": AgentTranslator._ready,  # noqa: SLF001 - its own
    "starting": AgentTranslator._starting,  # noqa: SLF001
    "agent_stopped": AgentTranslator._stopping,  # noqa: SLF001
    "turn_start": AgentTranslator._turn_start,  # noqa: SLF001
    "turn_end": AgentTranslator._turn_end,  # noqa: SLF001
    "error": AgentTranslator._failing,  # noqa: SLF001
    "alert": AgentTranslator._alert,  # noqa: SLF001
    "approval_requested": AgentTranslator._asks,  # noqa: SLF001
    "approval_resolved": AgentTranslator._asks,  # noqa: SLF001
    "stdout": AgentTranslator._printed,  # noqa: SLF001
    "stderr": AgentTranslator._printed,  # noqa: SLF001
    "user_message": AgentTranslator._user,  # noqa: SLF001
    "assistant_message": AgentTranslator._assistant,  # noqa: SLF001
    "text_delta": AgentTranslator._text,  # noqa: SLF001
    "thinking_delta": AgentTranslator._thinking,  # noqa: SLF001
    "tool_call": AgentTranslator._call,  # noqa: SLF001
    "tool_progress": AgentTranslator._progress,  # noqa: SLF001
    "tool_result": AgentTranslator._returned,  # noqa: SLF001
    "usage": AgentTranslator._count_usage,  # noqa: SLF001
}
