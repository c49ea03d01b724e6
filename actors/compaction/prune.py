"""Shows a model a history as a view, without copying it.

In the view, results are in the order of their calls, long old ones are shortened, and answers that were cut
off say so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, overload

from actors.compaction.call_order import CallOrder
from actors.compaction.tokens import BYTES_PER_TOKEN, encoded_size, picture_size, text_size
from protocol.items import AssistantItem, ImagePart, Item, TextPart, ToolResult

#: The newest turns (a request with its tool results), whose results are shown whole.
WHOLE_TURNS = 3
#: An older result with more characters is cut to so many, plus a marker.
LONGEST_OLD_RESULT = 2000
CUT_RESULT = 500
#: Follows the text of an answer that was cut off.
CUT_OFF = "[interrupted: this answer was cut off here]"
#: The line before which results are cut moves only when that saves so many tokens. Until then the beginning
#: of the request stays the same, byte for byte, and a server's cache of it remains valid.
LEAST_SAVING = 4096


_NO_CUTS: Mapping[int, ToolResult] = {}


class Edits(NamedTuple):
    """How a request differs from the history: ``cuts`` replace some results before ``line``, ``broken``
    (None: there are none) replace answers that were cut off. ``order`` (None: unchanged) says which item is
    shown at an index instead of its own, and up to which index that holds. From ``plain`` on, items are shown
    as they are.
    """

    cuts: Mapping[int, ToolResult]
    line: int
    broken: Mapping[int, AssistantItem] | None
    order: tuple[Mapping[int, int], int] | None
    plain: int

    def shown(self, items: Sequence[Item], index: int) -> Item:
        """The item that is shown at that index."""
        if self.order is not None and index < self.order[1]:
            index = self.order[0].get(index, index)
        if index < self.line and index in self.cuts:
            return self.cuts[index]
        if self.broken is not None and index in self.broken:
            return self.broken[index]
        return items[index]


class RequestView(Sequence[Item]):
    """The first ``length`` items of a history as a request shows them, with ``edits`` (None: as they are).

    It does not change while the history grows at its end, or more is cut after its line.
    """

    __slots__ = ("_edits", "_items", "_length")

    def __init__(self, items: Sequence[Item], length: int, edits: Edits | None = None) -> None:
        self._items = items
        self._length = length
        self._edits = edits

    def __repr__(self) -> str:
        edits = self._edits
        cut = 0 if edits is None else sum(index < edits.line for index in edits.cuts)
        return f"<RequestView of {self._length} items, {cut} cut>"

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return self._slice(index)
        if index < 0:
            index += self._length
        if not 0 <= index < self._length:
            raise IndexError(f"item {index} of {self._length}")
        edits = self._edits
        if edits is None or index >= edits.plain:
            return self._items[index]
        return edits.shown(self._items, index)

    def __iter__(self) -> Iterator[Item]:
        items, edits = self._items, self._edits
        if edits is None:
            return islice(items, self._length)
        shown = (edits.shown(items, index) for index in range(edits.plain))
        return chain(shown, islice(items, edits.plain, self._length))

    def _slice(self, index: slice) -> list[Item]:
        start, stop, step = index.indices(self._length)
        if step > 0 and (self._edits is None or start >= self._edits.plain):
            return list(self._items[start:stop:step])
        return [self[n] for n in range(start, stop, step)]


class LongResults:
    """The long results of a history, of which the old ones are cut; created with the first of them."""

    __slots__ = ("_items", "_moves", "_newest", "_old", "_pending", "_saved", "_young", "cuts", "line")

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        #: Where the whole turns begin, except the first of them.
        self._newest: list[int] = []
        #: The indexes of long results in whole turns.
        self._young: deque[int] = deque()
        #: The indexes of older ones, and the bytes of text that can still be saved there.
        self._old: list[int] = []
        self._pending = 0
        #: History lengths, and how many of the old ones were cut from there on.
        self._moves = [(0, 0)]
        #: The replacements of those before the line.
        self.cuts: dict[int, ToolResult] = {}
        self.line = 0
        #: The encoded bytes that the first n cuts save, as far as computed.
        self._saved = [0]

    def add(self, index: int) -> None:
        """Note a long result at ``index``, in the current turn."""
        self._young.append(index)

    def add_answer(self, index: int) -> None:
        """Note an answer at ``index``, which begins a turn."""
        newest = self._newest
        newest.append(index)
        if len(newest) > WHOLE_TURNS:
            del newest[0]
        if len(newest) == WHOLE_TURNS:
            self._age(newest[0], index + 1)

    def _age(self, line: int, length: int) -> None:
        """Note that results before ``line`` are old, from a history of ``length`` on."""
        young = self._young
        if not young or young[0] >= line:
            return
        while young and young[0] < line:
            index = young.popleft()
            saved = _saved_by_cutting(self._result(index))
            if saved > 0:
                self._old.append(index)
                self._pending += saved
        if self._pending >= LEAST_SAVING * BYTES_PER_TOKEN:
            self._pending = 0
            self._moves.append((length, len(self._old)))

    def cut_due(self) -> bool:
        """Cut those that are due; returns whether there were any."""
        due = self._old[len(self.cuts) : self._moves[-1][1]]
        for index in due:
            self.cuts[index] = cut_result(self._result(index))
        if due:
            self.line = due[-1] + 1
        return bool(due)

    def saved_before(self, index: int) -> int:
        """The encoded bytes that are cut in the items before ``index``."""
        return self._saving(min(len(self.cuts), bisect_left(self._old, index)))

    def saved_since(self, length: int) -> int:
        """The encoded bytes that are cut, and were not yet in a request of ``length`` items."""
        now = len(self.cuts)
        then = self._moves[bisect_right(self._moves, length, key=_length) - 1][1]
        return self._saving(now) - self._saving(then) if now > then else 0

    def _saving(self, count: int) -> int:
        """The encoded bytes that the first ``count`` cuts save."""
        while len(self._saved) <= count:
            index = self._old[len(self._saved) - 1]
            saved = encoded_size(self._items[index]) - encoded_size(self.cuts[index])
            self._saved.append(self._saved[-1] + saved)
        return self._saved[count]

    def _result(self, index: int) -> ToolResult:
        item = self._items[index]
        assert isinstance(item, ToolResult)
        return item


class Pruner:
    """Decides which results of a history are cut. The decision for a history of some length depends on its
    items alone, so a restored pod sends what it sent before.

    Each call costs what was added since the last one.
    """

    __slots__ = ("_broken", "_edits", "_group", "_items", "_long", "_order", "_seen", "refused")

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._start()

    def _start(self) -> None:
        self._seen = 0
        #: The indexes of refused answers.
        self.refused: tuple[int, ...] = ()
        #: The long results; None while there are none.
        self._long: LongResults | None = None
        #: The replacements of answers that were cut off; None while there are none.
        self._broken: dict[int, AssistantItem] | None = None
        #: The calls of the last answer, if several of them wait for results.
        self._group: CallOrder | None = None
        #: Which item is shown at an index instead of its own, and up to where that is decided; None while
        #: each is at its place.
        self._order: tuple[dict[int, int], int] | None = None
        #: Everything that is shown differently; None while nothing is.
        self._edits: Edits | None = None

    def view(self) -> RequestView:
        """The history as it is now, for a request."""
        self._advance()
        return RequestView(self._items, self._seen, self._edits)

    @property
    def cuts(self) -> int:
        """How many results are cut. While this stays the same, a view differs from the last one only at its
        end.
        """
        self._advance()
        return 0 if self._long is None else len(self._long.cuts)

    def saved_before(self, index: int) -> int:
        """The encoded bytes that are cut now in the items before ``index``."""
        self._advance()
        return 0 if self._long is None else self._long.saved_before(index)

    def saved_since(self, length: int) -> int:
        """The encoded bytes that are cut now, and were not yet in a request of ``length`` items."""
        self._advance()
        return 0 if self._long is None else self._long.saved_since(length)

    def rewind(self) -> None:
        """Decide again, since the history was cut back at its end."""
        self._start()

    def look_through(self, until: int) -> None:
        """Decide for the first ``until`` items, to do a long history in parts before its first request."""
        if until > self._seen:
            self._advance(until)

    def _advance(self, until: int | None = None) -> None:
        items, group = self._items, self._group
        length = len(items) if until is None else until
        # A slice, because ``islice`` would walk over the whole history in each turn to reach its start.
        for index, item in enumerate(items[self._seen : length], self._seen):
            kind = type(item)
            if group is not None and self._decide_order(group, index, item):
                group = None
            if kind is ToolResult:
                if _characters(item) > LONGEST_OLD_RESULT:  # type: ignore[arg-type]
                    self._take_long_result(index)
            elif kind is AssistantItem:
                if item.calls or item.cut or item.refused:  # type: ignore[union-attr]
                    group = self._mark(index, item)  # type: ignore[arg-type]
                if self._long is not None:
                    self._long.add_answer(index)
        self._seen, self._group = length, group
        if self._long is not None and self._long.cut_due():
            self._edit()

    def _take_long_result(self, index: int) -> None:
        if self._long is None:
            self._long = LongResults(self._items)
        self._long.add(index)

    def _edit(self) -> None:
        """Rebuild what is shown differently."""
        cuts, line = (_NO_CUTS, 0) if self._long is None else (self._long.cuts, self._long.line)
        plain = max(line, 0 if self._order is None else self._order[1])
        if self._broken:
            plain = max(plain, next(reversed(self._broken)) + 1)
        self._edits = Edits(cuts, line, self._broken, self._order, plain)

    def _decide_order(self, group: CallOrder, index: int, item: Item) -> bool:
        """Take the next item after an answer with calls. Returns whether the order of their results
        is final.
        """
        end = index
        if isinstance(item, ToolResult):
            if not group.add(index, item):
                return False
            end += 1
        if moved := group.moved():
            before = {} if self._order is None else self._order[0]
            before.update(moved)
            self._order = (before, end)
            self._edit()
        return True

    def _mark(self, index: int, item: AssistantItem) -> CallOrder | None:
        """Note an answer that has calls, or is not shown as it is because it was refused or cut."""
        if item.refused:
            self.refused = (*self.refused, index)
        if item.cut:
            self._broken = {**(self._broken or {}), index: cut_answer(item)}
            self._edit()
        return CallOrder(index, item.calls) if len(item.calls) > 1 else None


def cut_answer(item: AssistantItem) -> AssistantItem:
    """What is shown of an answer that was cut off: its text, and that it was cut. No reasoning, which servers
    accept only whole.
    """
    text = item.text.rstrip()
    return AssistantItem.of(f"{text}\n\n{CUT_OFF}" if text else CUT_OFF)


def _length(move: tuple[int, int]) -> int:
    return move[0]


def cut_result(result: ToolResult) -> ToolResult:
    """What is shown of a long result once it is old."""
    text = result.text
    cut = TextPart(text[:CUT_RESULT] + _marker(result, len(text)))
    return ToolResult(result.call_id, result.name, (cut,), result.is_error, result.kept)


def _marker(result: ToolResult, length: int) -> str:
    where = f"; the whole is in {result.kept}" if result.kept else ""
    return f"\n[an old result of {length} characters, cut{where}]"


def _saved_by_cutting(result: ToolResult) -> int:
    """The bytes that cutting saves, before escaping: a quick lower bound."""
    text = result.text
    pictures = sum(picture_size(part) for part in result.content if isinstance(part, ImagePart))
    rest = len(text) - CUT_RESULT if text.isascii() else text_size(text[CUT_RESULT:])
    return pictures + rest - text_size(_marker(result, len(text)))


def _characters(result: ToolResult) -> int:
    """The characters that a model reads of a result; pictures count with their share."""
    content = result.content
    if len(content) == 1 and type(content[0]) is TextPart:
        return len(content[0].text)
    return sum(picture_size(part) if isinstance(part, ImagePart) else len(part.text) for part in content)
