"""Which items of a history belong to turns that the model or its provider refused; pure.

A provider that refused a turn refuses every request that still has it, so requests, summaries and memory
leave such turns out: from the user's words, behind the last answer that ended a turn, to the refused answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol.items import AssistantItem, Item, UserItem


def refused_turn(items: Sequence[Item], answer: int) -> range:
    """The items of the turn that ended in the refused answer at index ``answer``."""
    start = answer
    for index in range(answer - 1, -1, -1):
        item = items[index]
        if isinstance(item, UserItem):
            start = index
        elif isinstance(item, AssistantItem) and not item.calls:
            break
    return range(start, answer + 1)


def left_out(items: Sequence[Item], answers: Iterable[int]) -> set[int]:
    """The indices of all items of turns that ended in the refused ``answers``."""
    return {index for answer in answers for index in refused_turn(items, answer)}


def refused_answers(items: Sequence[Item]) -> list[int]:
    """Where the refused answers stand."""
    return [index for index, item in enumerate(items) if isinstance(item, AssistantItem) and item.refused]


def without_refused(items: Sequence[Item]) -> Sequence[Item]:
    """The items of turns that nobody refused; the same sequence where none was."""
    answers = refused_answers(items)
    if not answers:
        return items
    out = left_out(items, answers)
    return [item for index, item in enumerate(items) if index not in out]
