"""What goes back unread with the blocks of an answer in Anthropic's format, pure: all of a block that is none
of ours (a search that the vendor ran, its result), and what we do not read of the others.
"""

from __future__ import annotations

from typing import Any, Protocol

from actors.llm.base import VendorChunk
from actors.llm.lenient import UNREADABLE, decode_any
from actors.llm.vendor import merged, unknown_members
from protocol.text import encodable, encodable_json


class OpenBlock(Protocol):
    """A block under way, as far as it matters here."""

    kind: Any
    index: int
    pieces: list[str]
    vendor: dict[str, Any] | None


#: What we read of each kind of block.
_MEMBERS: dict[Any, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}


def vendor_members(block: dict[str, Any]) -> dict[str, Any] | None:
    """What goes back unread of a block, as the block begins."""
    kind = block.get("type")
    known = _MEMBERS.get(kind) if isinstance(kind, str) else None
    return encodable_json(block) if known is None else unknown_members(block, known) or None


def extend_vendor_data(part: OpenBlock, delta: dict[str, Any]) -> None:
    """Add a piece of what goes back unread: of a block of the vendor's own, or a citation of a text."""
    vendor = part.vendor or {}
    if part.kind != "other":
        part.vendor = merged(vendor, {"citations": [encodable_json(delta.get("citation"))]})
        return
    for name, value in delta.items():
        known = vendor.get(name)
        if name == "partial_json" and isinstance(value, str):
            part.pieces.append(value)
        elif name != "type":
            both = isinstance(known, str) and isinstance(value, str)
            vendor[name] = encodable(known + value) if both else encodable_json(value)
    part.vendor = vendor


def vendor_chunk(part: OpenBlock) -> VendorChunk | None:
    """What goes back unread with a block that has come to its end."""
    data = part.vendor
    if not data or part.kind in {"answer", "nameless"}:
        return None
    if part.kind == "other" and part.pieces:
        try:
            data = {**data, "input": encodable_json(decode_any("".join(part.pieces)))}
        except UNREADABLE:
            return None  # it was cut, and no server takes half of it back
    return VendorChunk(data, part.index, "call" if part.kind == "call" else "block")
