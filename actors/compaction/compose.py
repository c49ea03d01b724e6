"""Composes a compacted history: the items that replace the folded part, and the kept ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from actors.compaction.cut import Cut
from actors.compaction.refused import left_out, refused_answers
from protocol.events import SummarySource
from protocol.items import Item, SystemItem

SUMMARY = "[Compacted context summary]"
REQUIRED_FILE = "[Required file]"
REFERENCES = "[References]"
SNAPSHOT = "[Session TaskStore snapshot]"

_OF_COMPACTION = (SUMMARY, REQUIRED_FILE, REFERENCES, SNAPSHOT)


class RequiredFile(Struct, frozen=True):
    """A file whose text the model still needs after the compaction."""

    path: str
    text: str


class Reference(Struct, frozen=True):
    """A place that the model may want to look at again, and why."""

    path: str
    why: str = ""


class Split(NamedTuple):
    """A history in two parts, both in order: what the summary replaces, and what is kept as it is."""

    folded: list[Item]
    kept: list[Item]


class Composed(NamedTuple):
    """A compacted history in order; only ``opening`` and ``closing`` are published. ``source`` says where its
    summary comes from.
    """

    opening: list[SystemItem]
    kept: list[Item]
    closing: list[SystemItem]
    source: SummarySource = "tool"

    @property
    def items(self) -> list[Item]:
        """All items."""
        return [*self.opening, *self.kept, *self.closing]


def is_of_compaction(item: Item) -> bool:
    """Whether an earlier compaction added ``item``; such items are replaced by the new ones. Users' words
    never count, whatever they begin with.
    """
    return isinstance(item, SystemItem) and item.text.startswith(_OF_COMPACTION)


def is_summary(item: Item) -> bool:
    """Whether ``item`` is the summary of an earlier compaction."""
    return isinstance(item, SystemItem) and item.text.startswith(SUMMARY)


def split(items: Sequence[Item], at: Cut) -> Split:
    """The two parts of a history at a cut. Items of earlier compactions are folded with the rest. Refused
    turns are in neither part, except for the notice of what was done in them.
    """
    first = at.tail if at.pinned is None else at.pinned
    instead = left_out(items, refused_answers(items))
    folded: list[Item] = []
    kept: list[Item] = []
    for index, original in enumerate(items):
        item = instead.get(index, original)
        if item is None:
            continue
        stays = index == first or index >= at.tail
        (kept if stays and not is_of_compaction(item) else folded).append(item)
    return Split(folded, kept)


def compose(
    summary: str,
    kept: Sequence[Item],
    *,
    files: Sequence[RequiredFile] = (),
    references: Sequence[Reference] = (),
    snapshot: str = "",
    source: SummarySource = "tool",
) -> Composed:
    """The compacted history. ``snapshot`` lists the tasks; it replaces all task calls before it."""
    opening = [SystemItem.of(f"{SUMMARY}\n{summary.strip()}")]
    opening += [SystemItem.of(f"{REQUIRED_FILE} {file.path}\n{file.text}") for file in files]
    if references:
        lines = (f"- {each.path}: {each.why}" if each.why else f"- {each.path}" for each in references)
        opening.append(SystemItem.of("\n".join([REFERENCES, *lines])))
    return Composed(opening, list(kept), [SystemItem.of(f"{SNAPSHOT}\n{snapshot}")], source)


def summary_in(items: Sequence[Item]) -> str | None:
    """The text of the newest summary in a history, without its mark."""
    for item in reversed(items):
        if is_summary(item):
            return item.text.removeprefix(SUMMARY).strip()
    return None
