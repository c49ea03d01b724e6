"""Detects a model that repeats itself without progress; pure: items in, numbers of repetitions out."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from actors.pod.runs.tool_runner import NOT_RUN
from actors.tools.toolbox import INTERRUPTED
from protocol.items import AssistantItem, Item, TextPart, ToolCall, ToolResult, UserItem
from protocol.wire import encode

#: From how many repetitions on the result carries a notice for the model.
NOTICE_FROM = 3
#: How a notice begins, by which a result with one is known again.
_MARK = "\n[polypod: "


#: What stands in the place of a result says nothing of its tool.
_NO_RESULTS = frozenset({INTERRUPTED, NOT_RUN})
#: Tools that look at what goes on in the background: to see the same there again is to wait for it.
_WATCHING = frozenset({"shell_output", "read_pod_output", "list_pods"})


class Repeated(Struct, frozen=True):
    """How often a tool failed in a row, or the same call had the same result; ``times`` is at least 1."""

    name: str
    times: int
    failing: bool

    @property
    def words(self) -> str:
        """What happened, for a model or a person."""
        if self.failing:
            return f"the tool {self.name} has failed {self.times} times in a row"
        return f"the same call of {self.name} has returned the same result {self.times} times"


class _Came(Struct, frozen=True):
    """A result: its tool, what distinguishes it and its call from others, and whether it is a failure."""

    name: str
    sign: int
    is_error: bool


class Repeats:
    """Follows the items of a history and counts repetitions.

    A user's words start the count anew, and so does a call or a result that was not there before (among
    failures, only a call that succeeds): a test that is run again after each change is not a loop. A look at
    background work counts only if it fails. The calls of one answer count once, since the model has seen none
    of their results, and each is compared with what was there before that answer, in whatever order the
    results come.
    """

    __slots__ = ("_calls", "_failed", "_known", "_times", "_turn")

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
        #: How often in a row each tool failed.
        self._failed: dict[str, int] = {}
        #: The results of the last answer's calls, which are none of the above yet.
        self._turn: list[_Came] = []

    def add(self, item: Item) -> Repeated | None:
        """Take the next item; for a result, return how often it repeats what was there before."""
        if isinstance(item, UserItem):
            self._start()
        elif isinstance(item, AssistantItem):
            self._end_turn()
            self._calls = {call.id: call for call in item.calls}
        elif isinstance(item, ToolResult) and _counts(item):
            came = _Came(item.name, self._sign(item), item.is_error)
            self._turn.append(came)
            return self._repeated(came)
        return None

    @property
    def worst(self) -> Repeated | None:
        """The most repeated call of the last answer, as far as there are results."""
        made = self._made()
        found = [self._repeated(came, *made) for came in self._turn]
        return max(found, key=_times, default=None)

    def _repeated(
        self, came: _Came, fresh: bool = False, headway: bool = False, succeeded: frozenset[str] = frozenset()
    ) -> Repeated:
        again = came.sign in self._known and not fresh
        same = Repeated(came.name, self._times.get(came.sign, 1) + 1 if again else 1, False)
        failed = came.is_error and not headway and came.name not in succeeded
        failing = Repeated(came.name, self._failed.get(came.name, 0) + 1 if failed else 0, True)
        return failing if failing.times >= same.times else same

    def _made(self) -> tuple[bool, bool, frozenset[str]]:
        """Whether the last answer's calls brought anything new, whether one of them succeeded, and which
        tools did.
        """
        new = [came for came in self._turn if came.sign not in self._known]
        succeeded = frozenset(came.name for came in self._turn if not came.is_error)
        return bool(new), not all(came.is_error for came in new), succeeded

    def _end_turn(self) -> None:
        turn = self._turn
        if not turn:
            return
        fresh, headway, succeeded = self._made()
        if fresh:
            self._times = {}
        else:
            self._times.update({each: self._times.get(each, 1) + 1 for each in {came.sign for came in turn}})
        if headway:
            self._failed = {}
        else:
            for name in {came.name for came in turn}:
                self._failed[name] = 0 if name in succeeded else self._failed.get(name, 0) + 1
        self._known.update(came.sign for came in turn)
        self._turn = []

    def _sign(self, result: ToolResult) -> int:
        call = self._calls.get(result.call_id)
        plain = without_notice(result)
        arguments = b"" if call is None else encode((call.arguments, call.invalid))
        return hash((result.name, arguments, encode(plain.content), result.is_error))


def _counts(result: ToolResult) -> bool:
    """Whether a result says whether its call was useless."""
    return result.text not in _NO_RESULTS and (result.is_error or result.name not in _WATCHING)


def _times(repeated: Repeated) -> int:
    return repeated.times


def noticed(result: ToolResult, repeated: Repeated, most: int) -> ToolResult:
    """``result`` with a notice of its repetitions, if there are enough of them."""
    if not NOTICE_FROM <= repeated.times < most:
        return result
    notice = f"{_MARK}{repeated.words}; try something else: the run ends after {most}]"
    return replace(result, content=(*result.content, TextPart(notice)))


def without_notice(result: ToolResult) -> ToolResult:
    """``result`` as its tool gave it."""
    last = result.content[-1] if result.content else None
    if isinstance(last, TextPart) and last.text.startswith(_MARK):
        return replace(result, content=result.content[:-1])
    return result


def answers_since_last_words(items: list[Item], *, at_least: int) -> bool:
    """Whether a model has answered at least that often since the user's last words: nothing can have been
    repeated more often than that.
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
    """The items after the user's last words."""
    for index in range(len(items) - 1, -1, -1):
        if isinstance(items[index], UserItem):
            return items[index + 1 :]
    return items[:]
