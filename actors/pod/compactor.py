"""The compaction worker: a little model-and-tool loop that writes the summary of a history."""

from __future__ import annotations

from typing import NamedTuple

from actors.compaction.compose import Composed
from actors.compaction.policy import Limits
from actors.pod.context import Context
from actors.pod.parts import PodParts
from protocol.events import CompactReason
from protocol.items import Item


class Folding(NamedTuple):
    """What is to be folded: the history, what it weighs, and how much of its end shall stay."""

    items: list[Item]
    context: Context
    limits: Limits
    retained: int
    occupancy: int
    reason: CompactReason


async def fold(parts: PodParts, folding: Folding) -> Composed:
    raise NotImplementedError
