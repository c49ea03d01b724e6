"""Finds where a history may be cut so that the kept end is complete: no call without its result, or the
reverse. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import Struct

from protocol.items import AssistantItem, Item, ToolResult, UserItem


class Cut(Struct, frozen=True):
    """What is kept of a history as it is: the items from ``tail`` on and, if it comes before them, the newest
    user item at ``pinned``.
    """

    tail: int
    pinned: int | None = None

    def kept(self, items: Sequence[Item]) -> list[Item]:
        """The items that are kept, in order."""
        first = [] if self.pinned is None else [items[self.pinned]]
        return [*first, *items[self.tail :]]


def cut(
    items: Sequence[Item],
    tokens_from: Callable[[int], int],
    retained_tokens: int,
    *,
    keep_open_turn: bool = False,
) -> Cut:
    """Keep at most ``retained_tokens`` of the end, as many whole items as fit.

    ``tokens_from(index)`` counts the tokens of the items from ``index`` on. A call stays together with all
    results of its answer, and the answer's other calls. The newest user item is kept whatever it takes. With
    ``keep_open_turn`` so are a last answer's calls with the results that the model has not read yet.
    """
    tail = len(items)
    while tail and tokens_from(tail - 1) <= retained_tokens:
        tail -= 1
    tail = _whole_from(items, tail)
    if keep_open_turn:
        tail = min(tail, _whole_from(items, _open_turn(items)))
    newest = next((n for n in reversed(range(len(items))) if isinstance(items[n], UserItem)), None)
    return Cut(tail, newest if newest is not None and newest < tail else None)


def _whole_from(items: Sequence[Item], start: int) -> int:
    """The first index from ``start`` on from which every result still has its call."""
    while (torn := _last_torn(items, start)) is not None:
        start = torn + 1
    return start


def _last_torn(items: Sequence[Item], start: int) -> int | None:
    """The last result from ``start`` on whose call is before ``start``. Ids may recur in later answers, so
    each call counts for one result. A result that nobody asked for belongs to no call.
    """
    waiting: Counter[str] = Counter()
    found: list[int] = []
    for index in range(start, len(items)):
        item = items[index]
        if isinstance(item, AssistantItem):
            waiting.update(call.id for call in item.calls)
        elif isinstance(item, ToolResult):
            if waiting[item.call_id] > 0:
                waiting[item.call_id] -= 1
            else:
                found.append(index)
    if not found:
        return None
    asked = {call.id for item in items[:start] if isinstance(item, AssistantItem) for call in item.calls}
    return next((index for index in reversed(found) if _call_id(items[index]) in asked), None)


def _call_id(item: Item) -> str | None:
    return item.call_id if isinstance(item, ToolResult) else None


def _open_turn(items: Sequence[Item]) -> int:
    """The index of the last answer if it has calls, otherwise the end."""
    for index in reversed(range(len(items))):
        item = items[index]
        if isinstance(item, AssistantItem):
            return index if item.calls else len(items)
    return len(items)
