"""Failure tracking, pure: a history's items in, how often a model repeats itself in vain out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from actors.pod.calls import NOT_RUN
from actors.tools.base import INTERRUPTED
from protocol.items import AssistantItem, Item, TextPart, ToolCall, ToolResult, UserItem
from protocol.wire import encode

#: From how many repetitions on the model is told in the result.
TOLD_FROM = 3
#: How a notice begins, by which a result with one is known again.
_MARK = "\n[polypod: "


#: What stands in the place of a result says nothing of its tool.
_NO_RESULTS = frozenset({INTERRUPTED, NOT_RUN})


class Repeated(NamedTuple):
    """How often a tool failed in a row, or the same call had the same result; ``times`` is at least 1."""

    name: str
    times: int
    failing: bool

    @property
    def words(self) -> str:
        """What happened, for a model or a person."""
        if self.failing:
            return f"the tool {self.name} has failed {self.times} times in a row"
        return f"the same call of {self.name} has had the same result {self.times} times"


class Repeats:
    """Follows the items of a history. Words of a user begin anew, and so does a call or a result that was
    not there before (of failures, only one that succeeded): a test that is run again after each change is no
    loop. What one answer calls at once counts once, since the model has seen none of its results.
    """

    __slots__ = ("_calls", "_failed", "_known", "_seen", "_times", "_turn_failed", "worst")

    def __init__(self, items: Iterable[Item] = ()) -> None:
        """Follow ``items`` up to their end."""
        self._start()
        for item in items:
            self.add(item)

    def _start(self) -> None:
        self._calls: dict[str, ToolCall] = {}
        #: The calls with their results that were there before, and how often each came without anything new.
        self._known: set[int] = set()
        self._times: dict[int, int] = {}
        #: How often in a row each tool failed, in answers before this one and with it.
        self._failed: dict[str, int] = {}
        self._turn_failed: dict[str, int] = {}
        self._seen: set[int] = set()
        #: The most repeated thing of the last answer's calls.
        self.worst: Repeated | None = None

    def add(self, item: Item) -> Repeated | None:
        """Take the next item; of a result, how often it repeats what was there before."""
        if isinstance(item, UserItem):
            self._start()
        elif isinstance(item, AssistantItem):
            self._calls = {call.id: call for call in item.calls}
            self._failed.update(self._turn_failed)
            self._turn_failed, self._seen, self.worst = {}, set(), None
        elif isinstance(item, ToolResult) and item.text not in _NO_RESULTS:
            return self._result(item)
        return None

    def _result(self, result: ToolResult) -> Repeated:
        name = result.name
        if result.is_error:
            self._turn_failed.setdefault(name, self._failed.get(name, 0) + 1)
        else:
            self._turn_failed[name] = 0
        same = Repeated(name, self._again(result), False)
        failing = Repeated(name, self._turn_failed[name], True)
        found = failing if failing.times >= same.times else same
        if self.worst is None or found.times > self.worst.times:
            self.worst = found
        return found

    def _again(self, result: ToolResult) -> int:
        call = self._calls.get(result.call_id)
        told = without_notice(result)
        arguments = b"" if call is None else encode((call.arguments, call.invalid))
        sign = hash((result.name, arguments, encode(told.content), result.is_error))
        if sign in self._seen:
            return self._times.get(sign, 1)
        self._seen.add(sign)
        if sign in self._known:
            self._times[sign] = self._times.get(sign, 1) + 1
        else:
            self._known.add(sign)
            self._times = {}
            if not result.is_error:  # headway
                self._failed = {}
                self._turn_failed = dict.fromkeys(self._turn_failed, 0)
        return self._times.get(sign, 1)


def noticed(result: ToolResult, repeated: Repeated, most: int) -> ToolResult:
    """``result`` with what the model is told of its repetitions, where there are enough of them."""
    if not TOLD_FROM <= repeated.times < most:
        return result
    notice = f"{_MARK}{repeated.words}; try something else, the run ends after {most}]"
    return replace(result, content=(*result.content, TextPart(notice)))


def without_notice(result: ToolResult) -> ToolResult:
    """``result`` as its tool gave it."""
    last = result.content[-1] if result.content else None
    if isinstance(last, TextPart) and last.text.startswith(_MARK):
        return replace(result, content=result.content[:-1])
    return result


def answers_since_last_words(items: list[Item], *, at_least: int) -> bool:
    """Whether a model has answered so often behind the last words of a user: nothing can have been repeated
    more often than that.
    """
    answers = 0
    for item in reversed(items):
        if isinstance(item, UserItem):
            break
        answers += isinstance(item, AssistantItem)
        if answers >= at_least:
            return True
    return False


def since_last_words(items: list[Item]) -> list[Item]:
    """The items behind the last words of a user."""
    for index in range(len(items) - 1, -1, -1):
        if isinstance(items[index], UserItem):
            return items[index + 1 :]
    return items[:]
