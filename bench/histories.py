"""Makes conversations of any length for the bench, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.items import AssistantItem, Item, TextPart, ToolCall, ToolResult, UserItem

_WORDS = "The quick brown fox jumps over the lazy dog and reads another file of the project. "


def text(length: int, seed: int = 0) -> str:
    """Words with so many characters; no two seeds begin alike."""
    return (f"{seed}: " + _WORDS * (length // len(_WORDS) + 1))[:length]


def items(count: int) -> Iterator[Item]:
    """Rounds of four: a question, a call, its result, an answer; some 1.5 KB a round."""
    for number in range(count):
        part = number % 4
        if part == 0:
            yield UserItem((TextPart(text(200, number)),))
        elif part == 1:
            call = ToolCall(f"call-{number}", "read", {"path": f"src/file_{number}.py", "lines": 40})
            yield AssistantItem((TextPart(text(60, number)),), (call,))
        elif part == 2:
            yield ToolResult(f"call-{number - 1}", "read", (TextPart(text(800, number)),))
        else:
            yield AssistantItem((TextPart(text(400, number)),))
