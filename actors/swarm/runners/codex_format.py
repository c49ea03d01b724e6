"""The events of ``codex exec --json``, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from actors.swarm.runners.lines import LineTranslator, added, failure_of, inner, number_of, text_of, texts_in
from actors.swarm.runners.stream import Recorder
from protocol.events import (
    Alert,
    AssistantMessage,
    Event,
    ToolResulted,
    ToolStart,
    TurnStart,
    UsageUpdate,
)
from protocol.items import AssistantItem, ThinkingPart, ToolCall, ToolResult, parts_of
from protocol.usage import Usage

_RETRY = re.compile(r"Reconnecting\.\.\. (\d+)/\d+(?: \((.*)\))?", re.DOTALL)
_STATUS = re.compile(r"\bstatus:? (\d{3})\b")
#: Items that are calls of tools, and what of them is arguments.
_TOOLS = {
    "command_execution": ("command",),
    "file_change": ("changes",),
    "mcp_tool_call": ("server", "tool", "arguments"),
    "web_search": ("query",),
}


_NOTHING = Usage()


class CodexTranslator(LineTranslator):
    """One run. A line ``error`` may be a mere retry, and an item ``error`` is a warning: only
    ``turn.completed`` and ``turn.failed`` say how it ended. What it says to have used is of the whole
    conversation: ``used`` is what earlier runs took, None where there were some and nobody knows.
    """

    def __init__(self, recorder: Recorder, *, used: Usage | None = _NOTHING, **more: Any) -> None:
        super().__init__(recorder, **more)
        self._used = used
        self._started: set[str] = set()
        self._error = ""

    def translate(self, kind: str, line: dict[str, Any]) -> Iterable[Event]:
        """The events of a line."""
        if kind == "thread.started":
            self.session = text_of(line, "thread_id") or None
            self.is_ready = True
        elif kind == "turn.started":
            return [self.recorder.make(TurnStart, turn=1)]
        elif kind.startswith("item."):
            return self._item(kind, inner(line, "item"))
        elif kind == "error":
            return self._failing(text_of(line, "message"))
        elif kind == "turn.completed":
            return self._completed(inner(line, "usage"))
        elif kind == "turn.failed":
            words = text_of(inner(line, "error"), "message") or self._error
            failure = failure_of(words, status=_status(words))
            return self.recorder.end_run(outcome="failed", error=failure)
        return ()

    def finish(self) -> list[Event]:
        """Its last events; what it said last is why it failed, where it said no more."""
        events = super().finish()
        if self._error:
            failure = failure_of(self._error, status=_status(self._error))
            events += self.recorder.end_run(outcome="failed", error=failure)
        return events

    def _failing(self, words: str) -> Iterator[Event]:
        retry = _RETRY.fullmatch(words)
        if retry is None:
            self._error = words
            return
        why = retry[2] or words
        yield self.retry(int(retry[1][:9]), 0.0, failure_of(why, status=_status(why)))

    def _completed(self, used: dict[str, Any]) -> Iterator[Event]:
        whole = Usage(
            number_of(used, "input_tokens"),
            number_of(used, "output_tokens"),
            number_of(used, "cached_input_tokens"),
            number_of(used, "cache_write_input_tokens"),
        )
        usage = Usage() if self._used is None else added(whole, self._used)
        if usage != Usage():
            yield self.recorder.make(UsageUpdate, usage=usage, run_usage=usage)
        yield from self.recorder.end_run(outcome="finished", usage=usage)

    def _item(self, kind: str, item: dict[str, Any]) -> Iterator[Event]:
        what, done = text_of(item, "type"), kind == "item.completed"
        make = self.recorder.make
        if what in _TOOLS:
            yield from self._tool(what, item, done=done)
        elif not done:
            return
        elif what == "agent_message":
            yield make(AssistantMessage, item=AssistantItem.of(text_of(item, "text")))
        elif what == "reasoning":
            yield make(AssistantMessage, item=AssistantItem((ThinkingPart(text_of(item, "text")),)))
        elif what == "error":
            yield make(Alert, text=text_of(item, "message") or "codex reports an error")

    def _tool(self, what: str, item: dict[str, Any], *, done: bool) -> Iterator[Event]:
        call_id, make = text_of(item, "id"), self.recorder.make
        if call_id not in self._started:
            self._started.add(call_id)
            arguments = {name: item[name] for name in _TOOLS[what] if name in item}
            yield make(AssistantMessage, item=AssistantItem((), (ToolCall(call_id, what, arguments),)))
            yield make(ToolStart, call_id=call_id, name=what, arguments=arguments)
        if done:
            self._started.discard(call_id)
            failed = text_of(item, "status") in {"failed", "declined"} or bool(number_of(item, "exit_code"))
            result = ToolResult(call_id, what, parts_of(_output(item)), is_error=failed)
            yield make(ToolResulted, item=result)


def _output(item: dict[str, Any]) -> str:
    said = text_of(item, "aggregated_output") or texts_in(inner(item, "result").get("content"))
    code = number_of(item, "exit_code")
    more = text_of(inner(item, "error"), "message") or (f"exit code {code}" if code else "")
    return "\n".join(each for each in (said.rstrip("\n"), more) if each)


def _status(words: str) -> int:
    found = _STATUS.search(words)
    return int(found[1]) if found else 0
