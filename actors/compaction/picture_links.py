"""Replaces pictures that are given by a URL, which may not last, by words; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from protocol.items import ImagePart, Item, Part, TextPart


def without_links(items: Iterable[Item]) -> Iterator[tuple[Item, Item]]:
    """Each item that has pictures by URL, and the item that is shown instead."""
    for item in items:
        if any(map(_is_link, item.content)):
            yield item, replace(item, content=tuple(map(_shown, item.content)))


def _is_link(part: Part) -> bool:
    return isinstance(part, ImagePart) and part.url is not None and not part.url.startswith("data:")


def _shown(part: Part) -> Part:
    if isinstance(part, ImagePart) and _is_link(part):
        return TextPart(f"[the picture at {part.url}, which cannot be shown any more]")
    return part
