"""The flat lines ``{"type": …, "time": …}`` in which agents of ours print, and logs keep, what happens; pure.

Their names and members are frozen: other programs read them. Unknown types are to be passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from protocol.errors import Failure
from protocol.events import (
    AgentOutput,
    AgentStopped,
    AssistantMessage,
    DurableEvent,
    Event,
    RunEnd,
    RunStart,
    TextDelta,
    ToolResulted,
    UserMessage,
)
from protocol.items import TextPart, UserItem

Line = dict[str, Any]

#: What every event has, which a line says otherwise or not at all.
_COMMON = frozenset(DurableEvent.__struct_fields__)
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class FlatLines:
    """Makes lines of events; counts the turns of the agent, which are its runs."""

    __slots__ = ("step",)

    def __init__(self) -> None:
        self.step = 0

    def of(self, event: Event) -> list[Line]:
        """The lines that say what ``event`` says; none for what is said once it is whole."""
        if isinstance(event, RunStart):
            self.step += 1
        said = _LINES.get(type(event))
        if said is None:
            lines = [(_name(event), _own(event))] if event.durable else []
        else:
            lines = said(event, self.step)
        return [{"type": kind, "time": event.at, **rest} for kind, rest in lines]


def _answer(event: AssistantMessage, _: int) -> list[tuple[str, Line]]:
    said: Line = {"content": _content(event.item), "model": event.model}
    if event.usage is not None:
        said["usage"] = msgspec.to_builtins(event.usage)
    if event.item.cut:
        said["cut"] = True
    calls = [{"id": call.id, "name": call.name, "args": call.arguments} for call in event.item.calls]
    return [("assistant_message", said), *(("tool_call", call) for call in calls)]


def _stopped(event: AgentStopped, _: int) -> list[tuple[str, Line]]:
    return [("agent_stopped", {"reason": event.reason, "code": event.code, **_error(event.error)})]


def _run_ended(event: RunEnd, step: int) -> list[tuple[str, Line]]:
    return [("turn_end", {"step": step, "outcome": event.outcome, **_error(event.error)})]


def _resulted(event: ToolResulted, _: int) -> list[tuple[str, Line]]:
    item = event.item
    result: Line = {"id": item.call_id, "name": item.name, "content": _content(item)}
    return [("tool_result", {**result, "is_error": item.is_error})]


def _content(item: Any) -> list[Line]:
    """The blocks of an item that a person reads."""
    if isinstance(item, UserItem) and len(item.content) == 1 and isinstance(item.content[0], TextPart):
        return [{"type": "text", "text": item.content[0].text}]
    return [{"type": "text", "text": item.text}] if item.text else []


def _error(error: Failure | None) -> Line:
    return {"error": None if error is None else str(error)}


def _name(event: Event) -> str:
    return _WORD.sub("_", type(event).__struct_config__.tag).lower()  # type: ignore[arg-type]


def _own(event: Event) -> Line:
    own = {name: getattr(event, name) for name in event.__struct_fields__ if name not in _COMMON}
    built: Line = msgspec.to_builtins({name: value for name, value in own.items() if value is not None})
    return built


_LINES: dict[type[Event], Callable[[Any, int], list[tuple[str, Line]]]] = {
    AgentOutput: lambda event, _: [(event.stream, {"text": event.text})],
    AgentStopped: _stopped,
    RunStart: lambda _, step: [("turn_start", {"step": step})],
    RunEnd: _run_ended,
    UserMessage: lambda event, _: [
        ("user_message", {"content": _content(event.item), "source": event.source})
    ],
    AssistantMessage: _answer,
    ToolResulted: _resulted,
    TextDelta: lambda event, _: [("text_delta", {"text": event.text})],
}
