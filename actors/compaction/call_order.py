"""Puts tool results into the order of their calls; a log has them in the order in which they
arrived. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.items import AssistantItem, Item, ToolCall, ToolResult


class CallOrder:
    """Follows the results of one answer with several calls, which is at ``answer`` in its history.

    The order is final once every call has its result, or something else follows. What comes later changes
    nothing, so a history is shown as it was when it was shorter.
    """

    __slots__ = ("_answer", "_calls", "_found", "_strangers")

    def __init__(self, answer: int, calls: Sequence[ToolCall]) -> None:
        self._answer = answer
        #: The calls that have no result yet.
        self._calls = list(enumerate(calls))
        #: The index of each call's result, by the call's position, and the results that no call asked for.
        self._found: dict[int, int] = {}
        self._strangers: list[int] = []

    def add(self, index: int, result: ToolResult) -> bool:
        """Take the next item, a result. Returns whether every call has its result now."""
        for place, (number, call) in enumerate(self._calls):
            if call.id == result.call_id:
                del self._calls[place]
                self._found[number] = index
                return not self._calls
        self._strangers.append(index)
        return False

    def moved(self) -> dict[int, int]:
        """The item to show at each index that shows another than its own."""
        shown = [*(self._found[number] for number in sorted(self._found)), *self._strangers]
        return {at: index for at, index in enumerate(shown, self._answer + 1) if at != index}


def moved_in(items: Sequence[Item]) -> dict[int, int]:
    """The item of a history to show at each index that shows another than its own."""
    moved: dict[int, int] = {}
    group: CallOrder | None = None
    for index, item in enumerate(items):
        if group is not None and (type(item) is not ToolResult or group.add(index, item)):
            moved.update(group.moved())
            group = None
        if type(item) is AssistantItem and len(item.calls) > 1:
            group = CallOrder(index, item.calls)
    return moved


def in_call_order(items: list[Item]) -> list[Item]:
    """The items as they are shown: results in the order of their calls. The same list if they are already in
    it.
    """
    moved = moved_in(items)
    return [items[moved.get(index, index)] for index in range(len(items))] if moved else items
