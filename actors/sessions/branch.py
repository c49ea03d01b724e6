"""Writes the first entries of a forked session: what it takes over from its parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Raw

from actors.sessions.activities import ends_in_branch
from actors.sessions.log import SessionLog
from protocol.entries import Parent
from protocol.events import Activity
from protocol.items import Item

#: Items that are taken over in one entry; encoding and hashing them takes about 2 ms.
_PART = 500


def stage_branch(
    log: SessionLog,
    opening: Raw,
    parent: Parent,
    items: Sequence[Item],
    pointer: int | None,
    left: tuple[Sequence[Activity], str | None],
) -> Iterator[None]:
    """Stage the first entries of a branch: its opening, the items, how far memory has read them, and the ends
    of what was ``left`` open in the parent (activities and a run).

    Pauses after each part, so that a caller on a loop can give it a turn.
    """
    log.open(opening, parent)
    yield from stage_history(log, items, pointer)
    for kind, run_id, fields in ends_in_branch(*left):
        log.record(kind, run_id, **fields)


def stage_history(log: SessionLog, items: Sequence[Item], pointer: int | None) -> Iterator[None]:
    """Stage the items that a new session takes over, and how far memory has read them; pauses likewise."""
    for start in range(0, len(items), _PART):
        log.append_items(list(items[start : start + _PART]))
        yield
    if pointer is not None:
        log.append_pointer(pointer)
