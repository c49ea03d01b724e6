"""Any agent in the lines of Claude Code's ``stream-json``, for programs that read ``claude``; pure.

https://docs.claude.com/en/docs/claude-code/headless: ``system``, ``user``, ``assistant``, ``stream_event``,
and one ``result`` a life. An ``assistant`` line is never partial, so who joins them sees the text once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from actors.swarm.agents.state import AgentState, after
from protocol.events import (
    AgentOutput,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    Event,
    RunEnd,
    TextDelta,
    ThinkingDelta,
    ToolResulted,
    UserMessage,
)
from protocol.items import ThinkingPart
from protocol.usage import Usage

Line = dict[str, Any]


class StreamJson:
    """Makes lines of the events of one agent; keeps what the line that ends a life sums up."""

    def __init__(self, agent_id: str, session_id: str, cwd: str, runner: str) -> None:
        self._agent_id, self._session_id, self._cwd, self._runner = agent_id, session_id, cwd, runner
        self._state = AgentState()
        self._began = 0.0
        self._turns = 0
        self._usage: Usage | None = None
        self._cost: float | None = None
        self._seconds = 0.0
        self._open = False

    def of(self, event: Event) -> list[Line]:
        """The lines that say what ``event`` says."""
        state = self._state = after(self._state, event, self._agent_id)
        lines = self._of(event, state)
        for number, line in enumerate(lines):
            line["session_id"] = self._session_id
            line["uuid"] = _name(event, number, line["type"])
        return lines

    def _of(self, event: Event, state: AgentState) -> list[Line]:
        match event:
            case AgentStarted():
                self._begin(event.at)
                return [self._init(event, state)]
            case AssistantMessage():
                self._turns += 1
                return [_assistant(event, self._agent_id)]
            case RunEnd():
                self._count(state)
                return []
            case AgentStopped():
                return self._end(event, state)
            case _:
                said = _LINES.get(type(event))
                return [] if said is None else [said(event)]

    def _begin(self, at: float) -> None:
        self._began, self._turns, self._usage, self._cost, self._seconds = at, 0, None, None, 0.0
        self._open = True

    def _init(self, event: AgentStarted, state: AgentState) -> Line:
        return {
            "type": "system",
            "subtype": "init",
            "cwd": event.cwd or self._cwd,
            "model": state.model,
            "tools": [],
            "agent": self._agent_id,
            "runner": event.runner or self._runner,
            "resumed": event.resumed,
        }

    def _count(self, state: AgentState) -> None:
        """Add what an ended task took to the sums of the life."""
        if state.usage is not None:
            self._usage = state.usage if self._usage is None else self._usage + state.usage
        if state.cost is not None:
            self._cost = (self._cost or 0.0) + state.cost
        self._seconds += state.seconds or 0.0

    def _end(self, event: AgentStopped, state: AgentState) -> list[Line]:
        if not self._open:  # its program never was up: the life has its two lines all the same
            self._begin(event.at)
        self._open = False
        result = state.result()
        well = result.status == "done"
        words = state.text if well else str(state.error) if state.error is not None else result.status
        line: Line = {
            "type": "result",
            "subtype": "success" if well else "error_during_execution",
            "is_error": not well,
            "duration_ms": round(max(0.0, event.at - self._began) * 1000),
            "duration_api_ms": round(self._seconds * 1000),
            "num_turns": self._turns,
            "result": words,
            "status": result.status,
            "stop_reason": event.reason,
            "total_cost_usd": self._cost,
            "usage": _usage(self._usage),
        }
        return [line]


def _user(content: list[Line]) -> Line:
    return {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}


def _delta(delta: Line) -> Line:
    event = {"type": "content_block_delta", "index": 0, "delta": delta}
    return {"type": "stream_event", "event": event, "parent_tool_use_id": None}


def _resulted(event: ToolResulted) -> Line:
    item = event.item
    result = {"type": "tool_result", "tool_use_id": item.call_id, "content": item.text}
    return _user([{**result, "is_error": item.is_error}])


def _output(event: AgentOutput) -> Line:
    return {"type": "system", "subtype": "output", "stream": event.stream, "text": event.text}


def _restarted(event: AgentRestarted) -> Line:
    why = None if event.error is None else str(event.error)
    return {"type": "system", "subtype": "restarted", "restarts": event.restarts, "error": why}


def _assistant(event: AssistantMessage, agent_id: str) -> Line:
    item, content = event.item, list[Line]()
    for part in item.content:
        if isinstance(part, ThinkingPart) and part.text:
            content.append({"type": "thinking", "thinking": part.text, "signature": part.signature or ""})
    if item.text:
        content.append({"type": "text", "text": item.text})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in item.calls
    ]
    said: Line = {
        "id": f"msg_{agent_id}_{event.seq}",
        "type": "message",
        "role": "assistant",
        "model": event.model,
        "content": content,
        "stop_reason": event.stop_reason,
        "usage": _usage(event.usage),
    }
    return {"type": "assistant", "message": said, "parent_tool_use_id": None}


def _usage(usage: Usage | None) -> Line | None:
    """As that program counts: ``input_tokens`` without what came from a cache or went into one."""
    if usage is None:
        return None
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    whole = usage.input_tokens
    return {
        "input_tokens": None if whole is None else max(0, whole - (read or 0) - (written or 0)),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }


def _name(event: Event, number: int, kind: str) -> str:
    """An id for a line, the same each time that it is made of a durable event."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{event.session_id}/{event.seq}/{event.at}/{kind}/{number}"))


_LINES: dict[type[Event], Callable[[Any], Line]] = {
    UserMessage: lambda event: _user([{"type": "text", "text": event.item.text}]),
    TextDelta: lambda event: _delta({"type": "text_delta", "text": event.text}),
    ThinkingDelta: lambda event: _delta({"type": "thinking_delta", "thinking": event.text}),
    ToolResulted: _resulted,
    AgentOutput: _output,
    AgentRestarted: _restarted,
}
