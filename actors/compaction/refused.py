"""Leaves turns that the model or its provider refused out of a history; pure.

A provider that refused a turn refuses every request that still contains it. So requests, summaries and memory
leave it out: from the user's words after the last answer that ended a turn, up to the refused answer. If
tools had run in the turn, a notice replaces it, since what they did has not been undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from protocol.items import AssistantItem, Item, SystemItem, ToolResult, UserItem

#: Replaces a turn that is left out, before the names of the tools that ran in it.
LEFT_OUT = (
    "A turn is left out here, since its answer was refused. These tools had been called in it, and what they "
    "did has not been undone: "
)


def refused_turn(items: Sequence[Item], answer: int) -> range:
    """The items of the turn that ended in the refused answer at index ``answer``. An earlier run without an
    answer is not part of it, if the answer says where its own run began.
    """
    refused = items[answer]
    length = refused.refused_items if isinstance(refused, AssistantItem) else 0
    return _turn(items, answer, max(0, answer - length) if length else 0)


def _turn(items: Sequence[Item], answer: int, earliest: int) -> range:
    start = answer
    for index in range(answer - 1, earliest - 1, -1):
        item = items[index]
        if isinstance(item, UserItem):
            start = index
        elif isinstance(item, AssistantItem) and not item.calls:
            break
    return range(start, answer + 1)


def left_out(items: Sequence[Item], answers: Iterable[int]) -> dict[int, SystemItem | None]:
    """What replaces each item of the turns that ended in the refused ``answers``, by index: nothing, or for
    the answer the notice of what was done. If two turns in a row were refused, unanswered words before them
    are left out too, since they may be the cause.
    """
    shown: dict[int, SystemItem | None] = {}
    streak = range(0)
    for answer in answers:
        turn = refused_turn(items, answer)
        if streak and turn.start == streak.stop:
            before = _turn(items, streak.start, 0)[:-1]
            shown.update(_in_place_of(items, before))
            streak = range(streak.start, turn.stop)
        else:
            streak = turn
        shown.update(_in_place_of(items, turn))
    return shown


def _in_place_of(items: Sequence[Item], turn: range) -> dict[int, SystemItem | None]:
    shown: dict[int, SystemItem | None] = dict.fromkeys(turn)
    if turn and (words := _ran([items[index] for index in turn])):
        shown[turn[-1]] = SystemItem.of(f"{LEFT_OUT}{words}.")
    return shown


def _ran(items: Sequence[Item]) -> str:
    """The tools that have results among ``items``, and how often each was called and failed."""
    results = [item for item in items if isinstance(item, ToolResult)]
    called = Counter(result.name for result in results)
    failed = Counter(result.name for result in results if result.is_error)
    return ", ".join(_counted(name, times, failed[name]) for name, times in called.items())


def _counted(name: str, times: int, failed: int) -> str:
    counts = [f"{times} times"] if times > 1 else []
    if failed:
        counts.append("with an error" if failed == times else f"{failed} of them with an error")
    return f"{name[:64]} ({', '.join(counts)})" if counts else name[:64]


def shown_of(items: Sequence[Item], instead: Mapping[int, SystemItem | None]) -> list[Item]:
    """The items, with those of refused turns replaced according to ``left_out``."""
    shown = (instead.get(index, item) for index, item in enumerate(items))
    return [item for item in shown if item is not None]


def refused_answers(items: Sequence[Item]) -> list[int]:
    """The indexes of the refused answers."""
    return [index for index, item in enumerate(items) if isinstance(item, AssistantItem) and item.refused]


def without_refused(items: Sequence[Item]) -> Sequence[Item]:
    """The items without refused turns; the same sequence if there are none."""
    answers = refused_answers(items)
    return shown_of(items, left_out(items, answers)) if answers else items
