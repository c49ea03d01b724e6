"""Updates of a session in the Agent Client Protocol, as events. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from actors.swarm.runners.lines import (
    amount_of,
    failure_of,
    inner,
    number_of,
    objects,
    text_of,
)
from actors.swarm.runners.stream import Recorder
from protocol.errors import Failure
from protocol.events import (
    AgentActivity,
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
)
from protocol.items import AssistantItem, Part, TextPart, ThinkingPart, ToolCall, ToolResult, parts_of
from protocol.usage import Usage

#: How a turn ends, by its stop reason.
_OUTCOMES: dict[str, RunOutcome] = {
    "end_turn": "finished",
    "cancelled": "cancelled",
    "refusal": "refused",
    "max_tokens": "limit_reached",
    "max_turn_requests": "limit_reached",
}
#: Characters of a diff that are kept.
_LONGEST_DIFF = 20_000


class AcpTranslator:
    """One session. Text comes in pieces, which are joined until a tool or the end comes."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._text = self._thought = ""
        #: Calls that have no result yet: what they are called.
        self._names: dict[str, str] = {}
        #: Calls of the turn that have their results.
        self._over: set[str] = set()
        self._cost: float | None = None
        self._cost_before = 0.0

    def begin(self) -> Event:
        """A turn begins."""
        return self.recorder.make(TurnStart, turn=1)

    def translate(self, update: dict[str, Any]) -> Iterable[Event]:
        """The events of an update; none for kinds that are not known."""
        kind = text_of(update, "sessionUpdate")
        if kind == "agent_message_chunk":
            return self._piece(text_of(inner(update, "content"), "text"))
        if kind == "agent_thought_chunk":
            return self._thinking_piece(text_of(inner(update, "content"), "text"))
        if kind in {"tool_call", "tool_call_update"}:
            return self._call(update)
        if kind == "plan":
            return self._plan(objects(update, "entries"))
        if kind == "usage_update":
            cost = inner(update, "cost")
            self._cost = amount_of(cost, "amount") if text_of(cost, "currency") == "USD" else None
        return ()

    def end(self, stop_reason: str, answer: dict[str, Any]) -> Iterator[Event]:
        """The turn ends as the answer to its prompt says."""
        outcome = _OUTCOMES.get(stop_reason, "finished")
        yield from self._flush(cut=outcome == "cancelled")
        usage, cost = _usage(answer), None
        if self._cost is not None:
            cost, self._cost_before = max(0.0, self._cost - self._cost_before), self._cost
        if usage != Usage():
            yield self.recorder.make(UsageUpdate, usage=usage, run_usage=usage, cost=cost)
        limit = failure_of(stop_reason.replace("_", " ")) if outcome == "limit_reached" else None
        self._forget()
        yield from self.recorder.end_run(outcome=outcome, usage=usage, cost=cost, error=limit)

    def fail(self, failure: Failure) -> Iterator[Event]:
        """The turn ends with an error."""
        yield from self._flush(cut=True)
        self._forget()
        yield from self.recorder.end_run(outcome="failed", error=failure)

    def _forget(self) -> None:
        self._names.clear()
        self._over.clear()

    def _piece(self, text: str) -> Iterator[Event]:
        if text:
            self._text += text
            yield self.recorder.make(TextDelta, text=text)

    def _thinking_piece(self, text: str) -> Iterator[Event]:
        if text:
            self._thought += text
            yield self.recorder.make(ThinkingDelta, text=text)

    def _flush(self, *calls: ToolCall, cut: bool = False) -> Iterator[Event]:
        parts: list[Part] = [ThinkingPart(self._thought)] if self._thought else []
        parts += [TextPart(self._text)] if self._text else []
        self._text = self._thought = ""
        if parts or calls:
            yield self.recorder.make(AssistantMessage, item=AssistantItem(tuple(parts), calls, cut=cut))

    def _call(self, update: dict[str, Any]) -> Iterator[Event]:
        call_id, status, make = text_of(update, "toolCallId"), text_of(update, "status"), self.recorder.make
        if call_id in self._over:
            return
        if call_id not in self._names:  # some programs have a call begin with a question, or with its end
            call = ToolCall(call_id, tool_of(update), arguments_of(update))
            self._names[call_id] = call.name
            yield from self._flush(call)
            yield make(ToolStart, call_id=call_id, name=call.name, arguments=call.arguments)
        name, shown = self._names[call_id], "\n".join(_shown(update))
        if status in {"completed", "failed"}:
            del self._names[call_id]
            self._over.add(call_id)
            item = ToolResult(call_id, name, parts_of(shown), is_error=status == "failed")
            yield make(ToolResulted, item=item)
        elif shown and text_of(update, "sessionUpdate") == "tool_call_update":
            yield make(ToolProgress, call_id=call_id, name=name, text=shown)

    def _plan(self, entries: list[dict[str, Any]]) -> Iterator[Event]:
        doing = [text_of(each, "content") for each in entries if text_of(each, "status") == "in_progress"]
        if any(doing):
            yield self.recorder.make(AgentActivity, activity="; ".join(filter(None, doing)))


def tool_of(call: dict[str, Any]) -> str:
    """What a call is called: its kind, since the protocol has no names of tools."""
    return text_of(call, "kind") or "other"


def arguments_of(call: dict[str, Any]) -> dict[str, Any]:
    """What a call is about: its input, its title, and the diffs that it would make."""
    found: dict[str, Any] = dict(inner(call, "rawInput"))
    if (title := text_of(call, "title")) and "title" not in found:
        found["title"] = title
    if diffs := list(_diffs(call)):
        found["diffs"] = diffs
    return found


def _shown(call: dict[str, Any]) -> Iterator[str]:
    for block in objects(call, "content"):
        if text := text_of(inner(block, "content"), "text"):
            yield text
    yield from _diffs(call)


def _diffs(call: dict[str, Any]) -> Iterator[str]:
    """The changes of files that a call shows, as unified diffs."""
    for block in objects(call, "content"):
        if text_of(block, "type") == "diff":
            path = text_of(block, "path")
            old, new = (text_of(block, name).splitlines(keepends=True) for name in ("oldText", "newText"))
            lines = difflib.unified_diff(old, new, path if old else "/dev/null", path)
            yield "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)[:_LONGEST_DIFF]


def _usage(answer: dict[str, Any]) -> Usage:
    """What a turn took; gemini has it among what is its own."""
    used = inner(answer, "usage")
    if not used:
        counted = inner(answer, "_meta", "quota", "token_count")
        return Usage(number_of(counted, "input_tokens"), number_of(counted, "output_tokens"))
    plain, output = number_of(used, "inputTokens"), number_of(used, "outputTokens")
    read, written = number_of(used, "cachedReadTokens"), number_of(used, "cachedWriteTokens")
    whole = None if plain is None else plain + (read or 0) + (written or 0)
    return Usage(whole, output, read, written)
