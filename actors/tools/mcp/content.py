"""What an MCP tool gave back, as parts for the model; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from protocol.foreign import shown
from protocol.items import ImagePart, Part, TextPart
from protocol.text import UNDECODABLE

#: What says nothing to a model, and may be such that the SDK refuses a block for it.
_NOT_NEEDED = frozenset({"annotations", "_meta"})


def simplify_content(result: dict[str, Any], is_known: Callable[[Any], bool]) -> None:
    """Make the blocks of a tool's result such as the SDK takes, which refuses the whole result for one that
    it does not know: such a one becomes a text that names its type.
    """
    content = result["content"]
    if isinstance(content, list):
        result["content"] = [_simple(each, is_known) for each in content]


def _simple(given: Any, is_known: Callable[[Any], bool]) -> dict[str, Any]:
    kind = given.get("type") if isinstance(given, dict) else None
    block = {k: v for k, v in given.items() if k not in _NOT_NEEDED} if isinstance(given, dict) else given
    if is_known(block):
        return block
    return {"type": "text", "text": _unknown(kind)}


def _unknown(kind: Any) -> str:
    return f"[a block of type {shown(kind)}, which polypod does not know]"


def parts_of_result(content: Sequence[Any], structured: Any) -> list[Part]:
    """The parts of a result: texts and pictures as they are, other blocks in words. ``structured`` content
    is shown where no text says the same.
    """
    parts: list[Part] = [part for block in content for part in _parts(block)]
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if structured is not None and not _is_said(structured, texts):
        parts.append(TextPart(_json(structured)))
    return _apart(parts)


def _parts(block: Any) -> Iterator[Part]:
    match block.type:
        case "text":
            yield TextPart(block.text)
        case "image":
            yield ImagePart(block.mime_type, block.data)
        case "audio":
            yield TextPart(f"[audio, {block.mime_type}, {_size(block.data)}: cannot be shown]")
        case "resource":
            yield from _resource(block.resource)
        case "resource_link":
            about = [block.title or block.name, block.mime_type, block.description]
            yield TextPart(f"[link to {block.uri}: {', '.join(filter(None, about))}]")
        case other:
            yield TextPart(_unknown(other))


def _resource(resource: Any) -> Iterator[Part]:
    kind = resource.mime_type or "application/octet-stream"
    text = getattr(resource, "text", None)
    if text is not None:
        yield TextPart(f"[{resource.uri}]\n{text}")
    elif kind.startswith("image/"):
        yield TextPart(f"[{resource.uri}]")
        yield ImagePart(kind, resource.blob)
    else:
        yield TextPart(f"[{resource.uri}, {kind}, {_size(resource.blob)}: cannot be shown]")


def _size(data: str) -> str:
    """The size of what is base64."""
    count = len(data) * 3 // 4
    return f"{count:,} bytes"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _is_said(structured: Any, texts: list[str]) -> bool:
    """Whether a text is the same as JSON, or the one value in it: many servers wrap it, as ``result``."""
    wrapped = (
        next(iter(structured.values())) if isinstance(structured, dict) and len(structured) == 1 else None
    )
    if isinstance(wrapped, str) and wrapped in texts:
        return True
    for text in texts:
        try:
            said = msgspec.json.decode(text)
        except UNDECODABLE:
            continue
        if said == structured or (wrapped is not None and said == wrapped):
            return True
    if isinstance(wrapped, list) and texts:  # a text for each member
        return texts == [each if isinstance(each, str) else _json(each) for each in wrapped]
    return False


def _apart(parts: list[Part]) -> list[Part]:
    """Texts of several blocks, each on lines of its own."""
    apart: list[Part] = []
    for part in parts:
        before = apart[-1] if apart else None
        if isinstance(part, TextPart) and isinstance(before, TextPart) and not before.text.endswith("\n"):
            apart.append(TextPart(f"\n{part.text}"))
        else:
            apart.append(part)
    return apart
