"""What a model is shown of a history: a view without copying, in which results stand in the order of their
calls, long old ones are shortened, and answers that were cut off say so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import overload

from actors.compaction.call_order import CallOrder
from actors.compaction.tokens import BYTES_PER_TOKEN, encoded_size, text_size
from protocol.items import AssistantItem, ImagePart, Item, TextPart, ToolResult

#: The newest turns (a request with its tool results) whose results are shown whole.
WHOLE_TURNS = 3
#: An older result of more characters than this is cut to so many, plus a marker.
LONGEST_OLD_RESULT = 2000
CUT_RESULT = 500
#: What stands behind the text of an answer that was cut off.
CUT_OFF = "[interrupted: this answer was cut off here]"
#: The line before which results are cut moves only when that saves so many tokens: until then the
#: beginning of the request stays as it was, byte for byte, and a server's cache of it serves on.
LEAST_SAVING = 4096


class RequestView(Sequence[Item]):
    """The first ``length`` items of a history as a request shows them, with ``cuts`` in the place of
    some results before ``line``, and ``broken`` (None: there are none) in the place of answers that were cut
    off; ``order`` (None: they stand so) says which item is shown at an index where it is another, and up to
    which index that holds.

    It stays as it is while the history grows at its end and while more is cut behind its line.
    """

    __slots__ = ("_broken", "_cuts", "_items", "_length", "_line", "_order", "_plain")

    def __init__(
        self,
        items: Sequence[Item],
        length: int,
        cuts: Mapping[int, ToolResult] | None = None,
        line: int = 0,
        broken: dict[int, AssistantItem] | None = None,
        order: tuple[Mapping[int, int], int] | None = None,
    ) -> None:
        self._items = items
        self._length = length
        self._cuts: Mapping[int, ToolResult] = {} if cuts is None else cuts
        self._line = line
        self._broken = broken
        self._order = order
        #: Behind this place items are shown as they are.
        self._plain = line if not broken else max(line, next(reversed(broken)) + 1)
        if order is not None:
            self._plain = max(self._plain, order[1])

    def __repr__(self) -> str:
        cut = sum(index < self._line for index in self._cuts)
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
        return self._shown(index) if index < self._plain else self._items[index]

    def __iter__(self) -> Iterator[Item]:
        items, plain = self._items, self._plain
        if not plain:
            return islice(items, self._length)
        return chain(map(self._shown, range(plain)), islice(items, plain, self._length))

    def _shown(self, index: int) -> Item:
        if self._order is not None and index < self._order[1]:
            index = self._order[0].get(index, index)
        if index < self._line and index in self._cuts:
            return self._cuts[index]
        if self._broken is not None and index in self._broken:
            return self._broken[index]
        return self._items[index]

    def _slice(self, index: slice) -> list[Item]:
        start, stop, step = index.indices(self._length)
        if start >= self._plain and step > 0:
            return list(self._items[start:stop:step])
        return [self[n] for n in range(start, stop, step)]


class Pruner:
    """Decides which results of a history are cut. What it decides for a history of some length depends
    on its items alone, so a restored pod sends what it sent before.

    Each call costs what was added since the last one.
    """

    __slots__ = (
        "_broken",
        "_cuts",
        "_group",
        "_items",
        "_line",
        "_moves",
        "_newest",
        "_old",
        "_order",
        "_pending",
        "_saved",
        "_seen",
        "_young",
        "refused",
    )

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._start()

    def _start(self) -> None:
        self._seen = 0
        #: Where the answers stand that were refused.
        self.refused: list[int] = []
        #: Where the whole turns begin, and the long results from there on.
        self._newest: deque[int] = deque(maxlen=WHOLE_TURNS)
        self._young: deque[int] = deque()
        #: Where the long results before there are, and the bytes of text that are still to save there.
        self._old: list[int] = []
        self._pending = 0
        #: At which length of history how many of them came to be cut.
        self._moves = [(0, 0)]
        #: What is shown in their place, of those before the line.
        self._cuts: dict[int, ToolResult] = {}
        self._line = 0
        #: What is shown in the place of answers that were cut off; None while there are none.
        self._broken: dict[int, AssistantItem] | None = None
        #: The calls of the last answer, if it has several that wait for their results.
        self._group: CallOrder | None = None
        #: Which item is shown at an index where it is another, and up to where that is decided; None while
        #: all stand where they are shown.
        self._order: tuple[dict[int, int], int] | None = None
        #: The encoded bytes that the first n cuts save, as far as anybody asked.
        self._saved = [0]

    def view(self) -> RequestView:
        """The history as it is now, for a request."""
        self._advance()
        items = self._items
        return RequestView(items, len(items), self._cuts, self._line, self._broken, self._order)

    @property
    def cuts(self) -> int:
        """How many results are cut. While this stays, a view only has more at its end than the last."""
        self._advance()
        return len(self._cuts)

    def saved_before(self, index: int) -> int:
        """The encoded bytes that are cut now in the items before ``index``."""
        return self._saving(min(self.cuts, bisect_left(self._old, index)))

    def saved_since(self, length: int) -> int:
        """The encoded bytes that are cut now and were not in a request of ``length`` items."""
        now = self.cuts
        then = self._moves[bisect_right(self._moves, length, key=_length) - 1][1]
        return self._saving(now) - self._saving(then) if now > then else 0

    def rewind(self) -> None:
        """The history was cut back at its end: decide again."""
        self._start()

    def look_through(self, until: int) -> None:
        """Decide for the first ``until`` items: a long history in parts, before it is first asked for."""
        if until > self._seen:
            self._advance(until)

    def _advance(self, until: int | None = None) -> None:
        items, newest, young, group = self._items, self._newest, self._young, self._group
        length = len(items) if until is None else until
        for index in range(self._seen, length):
            item = items[index]
            kind = type(item)
            if group is not None and self._decide_order(group, index, item):
                group = None
            if kind is ToolResult:
                if _characters(item) > LONGEST_OLD_RESULT:  # type: ignore[arg-type]
                    young.append(index)
            elif kind is AssistantItem:
                newest.append(index)
                if item.calls or item.cut or item.refused:  # type: ignore[union-attr]
                    group = self._mark(index, item)  # type: ignore[arg-type]
                if young and young[0] < newest[0] and len(newest) == WHOLE_TURNS:
                    self._age(newest[0], index + 1)
        self._seen, self._group = length, group
        if self._old:
            for index in self._old[len(self._cuts) : self._moves[-1][1]]:
                self._cuts[index] = cut_result(self._result(index))
                self._line = index + 1

    def _decide_order(self, group: CallOrder, index: int, item: Item) -> bool:
        """Take the next item behind an answer with calls; whether the order of their results stands."""
        end = index
        if isinstance(item, ToolResult):
            if not group.add(index, item):
                return False
            end += 1
        if moved := group.moved():
            before = {} if self._order is None else self._order[0]
            before.update(moved)
            self._order = (before, end)
        return True

    def _mark(self, index: int, item: AssistantItem) -> CallOrder | None:
        """An answer has calls, or is none that a request shows as it is: it was refused, or cut."""
        if item.refused:
            self.refused.append(index)
        if item.cut:
            self._broken = {**(self._broken or {}), index: cut_answer(item)}
        return CallOrder(index, item.calls) if len(item.calls) > 1 else None

    def _age(self, line: int, length: int) -> None:
        """Results before ``line`` are old, from a history of ``length`` on."""
        while self._young and self._young[0] < line:
            index = self._young.popleft()
            saved = _saved_by_cutting(self._result(index))
            if saved > 0:
                self._old.append(index)
                self._pending += saved
        if self._pending >= LEAST_SAVING * BYTES_PER_TOKEN:
            self._pending = 0
            self._moves.append((length, len(self._old)))

    def _saving(self, count: int) -> int:
        """The encoded bytes that the first ``count`` cuts save."""
        while len(self._saved) <= count:
            index = self._old[len(self._saved) - 1]
            saved = encoded_size(self._items[index]) - encoded_size(self._cuts[index])
            self._saved.append(self._saved[-1] + saved)
        return self._saved[count]

    def _result(self, index: int) -> ToolResult:
        item = self._items[index]
        assert isinstance(item, ToolResult)
        return item


def cut_answer(item: AssistantItem) -> AssistantItem:
    """What is shown of an answer that was cut off: its text and that it was cut; no reasoning, which servers
    take back only whole.
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
    """The bytes that cutting saves, before they are escaped: quick, and no more than it is."""
    text = result.text
    pictures = sum(len(part.data or "") for part in result.content if isinstance(part, ImagePart))
    rest = len(text) - CUT_RESULT if text.isascii() else text_size(text[CUT_RESULT:])
    return pictures + rest - text_size(_marker(result, len(text)))


def _characters(result: ToolResult) -> int:
    """The length of what a model reads of a result, pictures as the text they are sent as."""
    content = result.content
    if len(content) == 1 and type(content[0]) is TextPart:
        return len(content[0].text)
    return sum(len(part.data or "") if isinstance(part, ImagePart) else len(part.text) for part in content)
