"""Opaque vendor data, which a server gives with an answer and wants back, pure: pieces in, one value out.

Nothing of it is understood here. Known is only how streams cut such values up: entries of a list that share
an ``index`` and a ``type`` are pieces of one entry, whose longer texts continue each other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from protocol.text import encodable_json

#: How many of the latest entries of a list a piece may belong to; more no server has under way at once.
_UNDER_WAY = 64
#: Members of a list's entry that come in pieces; what else an entry has comes whole, perhaps repeatedly.
_IN_PIECES = frozenset({"text", "summary", "data", "thinking", "content"})


@lru_cache(1024)  # asked for with each request
def origin_of(wire_format: str, base_url: str, model: str) -> str:
    """The kind of server that vendor data comes from and goes back to: format, host, and at servers that
    relay to many vendors also the vendor's name, which there stands before the model's.
    """
    parts = urlsplit(base_url)
    host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    vendor, slash, _ = model.partition("/")
    return f"{wire_format}:{host}/{vendor}" if slash and vendor else f"{wire_format}:{host}"


def unknown_members(members: Any, known: frozenset[str]) -> dict[str, Any]:
    """The members of ``members`` that are not ``known`` and hold anything."""
    if not isinstance(members, dict):
        return {}
    return {
        name: encodable_json(value) for name, value in members.items() if name not in known and _holds(value)
    }


def _holds(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def merged(before: Any, new: Any) -> Any:
    """``new`` on top of what came ``before``; neither is changed."""
    if isinstance(before, dict) and isinstance(new, dict):
        result = dict(before)
        for name, value in new.items():
            result[name] = merged(result[name], value) if name in result else value
        return result
    if isinstance(before, list) and isinstance(new, list):
        return _joined(before, new)
    return new if _holds(new) else before


def _joined(before: list[Any], new: list[Any]) -> list[Any]:
    entries = list(before)
    for entry in new:
        place = _place_of(entry, entries)
        if place is None:
            entries.append(entry)
        else:
            entries[place] = _continued(entries[place], entry)
    return entries


def _place_of(entry: Any, entries: list[Any]) -> int | None:
    """Which of ``entries`` a piece belongs to; None where it begins one."""
    if not isinstance(entry, dict):
        return None
    if entry.get("index") is not None:
        latest = range(max(0, len(entries) - _UNDER_WAY), len(entries))
        return next((n for n in latest if _same_place(entries[n], entry)), None)
    last = entries[-1] if entries else None
    unnumbered = isinstance(last, dict) and last.get("index") is None and not last.get("signature")
    pieces = any(isinstance(entry.get(name), str) for name in ("text", "summary", "thinking"))
    if unnumbered and pieces and _compatible(last, entry):
        return len(entries) - 1
    return None


def _same_place(one: Any, other: dict[str, Any]) -> bool:
    return isinstance(one, dict) and one.get("index") == other["index"] and _compatible(one, other)


def _compatible(one: Any, other: dict[str, Any]) -> bool:
    """Whether two entries may be pieces of one: nothing in them says otherwise."""
    return all(
        one.get(name) is None or other.get(name) is None or one[name] == other[name]
        for name in ("type", "id", "format")
    )


def _continued(entry: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    result = dict(entry)
    for name, value in piece.items():
        known = result.get(name)
        if name in _IN_PIECES and isinstance(known, str) and isinstance(value, str):
            result[name] = known + value
        elif _holds(value) or name not in result:
            result[name] = value
    return result
