"""Writes a history as a transcript for helper agents: who said what and which tools ran, without the tools'
data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actors.compaction.call_order import in_call_order
from actors.compaction.compose import is_of_compaction, is_summary
from actors.compaction.tokens import BYTES_PER_TOKEN, text_size, text_tokens
from protocol.items import AssistantItem, Item, ToolResult, UserItem

#: A result of at most so many bytes is shown whole.
SHORT_RESULT = 200
#: The arguments by which tools name files.
_PATHS = ("path", "file_path", "file", "filename")
_LEFT_OUT = "[… left out …]"


def entries(items: Iterable[Item]) -> list[str]:
    """One text for each item that says something. Arguments, long results and reasoning are left out, and so
    are files and task lists of earlier compactions, which are given anew.
    """
    return [text for item in in_call_order(list(items)) if (text := _entry(item))]


def _entry(item: Item) -> str:
    if isinstance(item, ToolResult):
        return f"Result of {item.name}: {_gist(item)}"
    if isinstance(item, AssistantItem):
        called = ", ".join(call.name for call in item.calls)
        who = "Assistant (cut off)" if item.cut else "Assistant"
        said = [_said(who, item.text)] if item.text.strip() else []
        return "\n".join([*said, *([f"Assistant called: {called}"] if called else [])])
    if not item.text.strip() or (is_of_compaction(item) and not is_summary(item)):
        return ""
    return _said("User" if isinstance(item, UserItem) else "System", item.text)


def _said(who: str, text: str) -> str:
    """Indents further lines, so that nothing said can pass for someone else's words."""
    return f"{who}: {indented(text.strip())}"


def indented(text: str) -> str:
    """``text`` with all lines but the first indented by two spaces."""
    return "\n  ".join(text.split("\n"))


def _gist(result: ToolResult) -> str:
    """The result of a call: a short one itself, of a long one only its size."""
    text = result.text.strip()
    state = "error" if result.is_error else "ok"
    if not text:
        return f"{state}, empty"
    if text_size(text) <= SHORT_RESULT:
        return f"{state}: {indented(text)}"
    if result.is_error:
        return f"{state}: {indented(text[:SHORT_RESULT])}…"
    return f"{state}, {text.count(chr(10)) + 1} lines, {len(text)} characters"


def shortened(text: str, tokens: int) -> str:
    """``text`` in at most about ``tokens``: its beginning and its end, with a mark in between."""
    if text_tokens(text) <= tokens:
        return text
    data = text.encode("utf-8", "replace")
    room = max(0, tokens * BYTES_PER_TOKEN - len(_LEFT_OUT.encode()) - 2)
    head, tail = data[: room - room // 3], data[len(data) - room // 3 :]
    begin, end = head.decode("utf-8", "ignore").rstrip(), tail.decode("utf-8", "ignore").lstrip()
    return f"{begin} {_LEFT_OUT} {end}"


def chunks(texts: Sequence[str], budget: int, most: int) -> list[str]:
    """The texts in at most ``most`` chunks of about ``budget`` tokens, without splitting a text (a single
    longer one is shortened). If they do not fit, the oldest are dropped, and a line says so.
    """
    found: list[list[str]] = [[]]
    used = 0
    for number, text in enumerate(reversed(texts)):
        text = shortened(text, budget)  # noqa: PLW2901 - the same text, to fit
        size = text_tokens(text) + 1
        if used + size > budget and found[-1]:
            if len(found) == most:
                found[-1].append(f"[{len(texts) - number} older entries are left out]")
                break
            found.append([])
            used = 0
        found[-1].append(text)
        used += size
    return ["\n".join(reversed(each)) for each in reversed(found) if each]


def recent_files(items: Sequence[Item], limit: int = 5) -> list[str]:
    """The files that calls named last, newest first."""
    found: dict[str, None] = {}
    for item in reversed(items):
        if isinstance(item, AssistantItem):
            for call in reversed(item.calls):
                for key in _PATHS:
                    value = call.arguments.get(key)
                    if isinstance(value, str) and value:
                        found.setdefault(value)
        if len(found) >= limit:
            break
    return list(found)[:limit]
