"""JSON of MCP servers that the SDK's reader refuses, made such as it takes; pure."""

from __future__ import annotations

import json
import re
from typing import Any

from actors.tools.mcp.depth import cut_deep
from protocol.text import encodable_json

#: Half of a character, which may stand without the other half.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def decoded(data: bytes) -> Any:
    """The value, with what is not Unicode replaced, and without what is nested too deep. Raises ValueError,
    RecursionError.
    """
    return encodable_json(json.loads(cut_deep(data).decode("utf-8", "replace")))


def readable(data: bytes) -> bytes:
    """The JSON itself, unless something in it is refused."""
    if not _is_odd(data):
        return data
    try:
        return json.dumps(decoded(data)).encode()
    except (ValueError, RecursionError):
        return data


def readable_event(line: bytes) -> bytes:
    """A line of a stream of server-sent events with its JSON made readable."""
    field, colon, value = line.partition(b":")
    if field != b"data":
        return line
    text = value.rstrip(b"\r\n")
    return field + colon + readable(text) + value[len(text) :]


def _is_odd(data: bytes) -> bool:
    if _HALF.search(data) or cut_deep(data) != data:
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False
