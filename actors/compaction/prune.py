"""What a model is shown of a history: a view without copying, in which long old tool results are cut."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import overload

from actors.compaction.tokens import BYTES_PER_TOKEN, encoded_size
from protocol.items import AssistantItem, ImagePart, Item, TextPart, ToolResult

#: The newest turns (a request with its tool results) whose results are shown whole.
WHOLE_TURNS = 3
#: An older result of more characters than this is cut to so many, plus a marker.
LONGEST_OLD_RESULT = 2000
CUT_RESULT = 500
#: The line before which results are cut moves only when that saves so many tokens: until then the
#: beginning of the request stays as it was, byte for byte, and a server's cache of it serves on.
LEAST_SAVING = 4096

_NO_CUTS: Mapping[int, ToolResult] = MappingProxyType({})


class RequestView(Sequence[Item]):
    """The first ``length`` items of a history as a request shows them, with ``cuts`` in the place of
    some results.

    It stays as it is while the history grows at its end, and ends with it where the history is cut back.
    """

    __slots__ = ("_cuts", "_items", "_length")

    def __init__(self, items: Sequence[Item], length: int, cuts: Mapping[int, ToolResult] = _NO_CUTS) -> None:
        self._items = items
        self._length = length
        self._cuts = cuts

    def __repr__(self) -> str:
        return f"<RequestView of {self._length} items, {len(self._cuts)} cut>"

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
        return self._cuts.get(index) or self._items[index]

    def __iter__(self) -> Iterator[Item]:
        if not self._cuts:
            return islice(self._items, self._length)
        return self._with_cuts()

    def _with_cuts(self) -> Iterator[Item]:
        cut = self._cuts.get
        for index, item in enumerate(islice(self._items, self._length)):
            yield cut(index) or item

    def _slice(self, index: slice) -> list[Item]:
        wanted = range(*index.indices(self._length))
        items, cut = self._items, self._cuts.get
        return [cut(n) or items[n] for n in wanted]


class Pruner:
    """Decides which results of a history are cut. What it decides for a history of some length depends
    on its items alone, so a restored pod sends what it sent before.

    Each call costs what was added since the last one.
    """

    __slots__ = ("_cuts", "_items", "_line", "_moves", "_newest", "_old", "_pending", "_saved", "_seen")

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._start()

    def _start(self) -> None:
        self._seen = 0
        self._newest: list[int] = []
        #: Where the whole turns begin; what is long before it is known in ``_pending`` or ``_cuts``.
        self._line = 0
        self._pending: dict[int, ToolResult] = {}
        self._cuts: Mapping[int, ToolResult] = _NO_CUTS
        #: Where the long old results are, and the bytes that cutting the first n of them saves.
        self._old: list[int] = []
        self._saved = [0]
        #: At which length of history how many of them came to be cut.
        self._moves = [(0, 0)]

    def view(self) -> RequestView:
        """The history as it is now, for a request."""
        self._advance()
        return RequestView(self._items, len(self._items), self._cuts)

    @property
    def cuts(self) -> int:
        """How many results are cut. While this stays, a view only has more at its end than the last."""
        self._advance()
        return self._moves[-1][1]

    def saved_before(self, index: int) -> int:
        """The encoded bytes that are cut now in the items before ``index``."""
        return self._saved[min(self.cuts, bisect_left(self._old, index))]

    def saved_since(self, length: int) -> int:
        """The encoded bytes that are cut now and were not in a request of ``length`` items."""
        now = self.cuts
        then = self._moves[bisect_right(self._moves, length, key=_length) - 1][1]
        return self._saved[now] - self._saved[then]

    def rewind(self) -> None:
        """The history was cut back at its end: decide again."""
        self._start()

    def _advance(self) -> None:
        items, newest, moved = self._items, self._newest, False
        for index in range(self._seen, len(items)):
            if not isinstance(items[index], AssistantItem):
                continue
            newest.append(index)
            if len(newest) > WHOLE_TURNS:
                del newest[0]
                self._consider(newest[0])
                moved = self._move(index + 1) or moved
        self._seen = len(items)
        if moved:
            # A new mapping: views that are out keep theirs.
            due = self._old[len(self._cuts) : self._moves[-1][1]]
            self._cuts = {**self._cuts, **{index: self._pending.pop(index) for index in due}}

    def _consider(self, line: int) -> None:
        """Results before ``line`` are old now."""
        for index in range(self._line, line):
            item = self._items[index]
            if isinstance(item, ToolResult) and _characters(item) > LONGEST_OLD_RESULT:
                cut = cut_result(item)
                saved = encoded_size(item) - encoded_size(cut)
                if saved > 0:
                    self._pending[index] = cut
                    self._old.append(index)
                    self._saved.append(self._saved[-1] + saved)
        self._line = line

    def _move(self, length: int) -> bool:
        """Cut what is pending in requests of at least ``length`` items, if that is worth it."""
        saving = self._saved[-1] - self._saved[self._moves[-1][1]]
        if saving < LEAST_SAVING * BYTES_PER_TOKEN:
            return False
        self._moves.append((length, len(self._old)))
        return True


def _length(move: tuple[int, int]) -> int:
    return move[0]


def cut_result(result: ToolResult) -> ToolResult:
    """What is shown of a long result once it is old."""
    text = result.text
    where = f"; the whole is in {result.kept}" if result.kept else ""
    marker = f"\n[an old result of {len(text)} characters, cut{where}]"
    return ToolResult(
        result.call_id, result.name, (TextPart(text[:CUT_RESULT] + marker),), result.is_error, result.kept
    )


def _characters(result: ToolResult) -> int:
    """The length of what a model reads of a result, pictures as the text they are sent as."""
    return sum(
        len(part.data or "") if isinstance(part, ImagePart) else len(part.text) for part in result.content
    )
