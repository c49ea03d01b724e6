"""Bounds how deep the JSON of MCP servers is nested, pure: what lies deeper is left out by itself."""

from __future__ import annotations

import re
from typing import Any

#: Levels of a message that are read: the SDK's reader refuses a message with more.
DEEPEST_MESSAGE = 200
#: Bytes that are looked through for what is nested deeper.
_MOST_CUT = 1 << 21
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def cut_deep(line: bytes) -> bytes:
    """The JSON with ``null`` in the place of what is nested deeper than messages are read."""
    if len(line) > _MOST_CUT or line.count(b"{") + line.count(b"[") <= DEEPEST_MESSAGE:
        return line
    kept: list[bytes] = []
    depth = start = 0
    for found in _TOKENS.finditer(line):
        token = found[0]
        if token in b"[{":
            depth += 1
            if depth == DEEPEST_MESSAGE + 1:
                kept.append(line[start : found.start()])
        elif token in b"]}":
            if depth == DEEPEST_MESSAGE + 1:
                kept.append(b"null")
                start = found.end()
            depth -= 1
    return b"".join((*kept, line[start:])) if depth == 0 else line


def is_deeper(value: Any, most: int) -> bool:
    """Whether lists and tables of a value are nested more than ``most`` deep."""
    level = [value]
    for _ in range(most + 1):
        level = [each for one in level if isinstance(one, dict | list) for each in _members(one)]
        if not level:
            return False
    return True


def _members(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
