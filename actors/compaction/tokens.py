"""Estimates tokens from bytes, where no server has counted them; a picture counts little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from protocol.items import ImagePart, Item
from protocol.wire import encode

BYTES_PER_TOKEN = 4
#: The most bytes that a picture counts for: servers scale large ones down. Anthropic documents some 1,600
#: tokens for the largest that most models see, OpenAI up to 1,100 in tiles and 1,536 in patches.
PICTURE_BYTES = 1600 * BYTES_PER_TOKEN


def tokens_in(size: int) -> int:
    """The estimated tokens of ``size`` bytes, rounded up."""
    return -(-size // BYTES_PER_TOKEN)


def text_size(text: str) -> int:
    """The bytes of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def text_tokens(text: str) -> int:
    """The estimated tokens of a text."""
    return tokens_in(text_size(text))


def encoded_size(item: Item) -> int:
    """The bytes of an item in a request; pictures count with their share."""
    return _counted(item, len(encode(item)))


def picture_size(part: ImagePart) -> int:
    """The bytes that a picture counts for."""
    return min(PICTURE_BYTES, len(part.data or part.url or ""))


def _counted(item: Item, size: int) -> int:
    """What an item of so many bytes counts for."""
    if size <= PICTURE_BYTES:
        return size
    pictures = [part for part in item.content if isinstance(part, ImagePart)]
    return size - sum(len(each.data or each.url or "") - picture_size(each) for each in pictures)


def _summed(items: Sequence[Item], before: int) -> Iterator[int]:
    """Running sums of ``before`` and the items' sizes; all in C except for long items, since restored
    histories are long.
    """
    sizes = [*map(len, map(encode, items))]
    if max(sizes, default=0) > PICTURE_BYTES:
        sizes = [*map(_counted, items, sizes)]
    return accumulate(sizes, initial=before)


class EncodedSizes:
    """The encoded sizes of a history that only grows at its end, summed so that any stretch costs two
    look-ups.

    An item is encoded once, when a stretch up to it is first asked for: a restored history whose tokens a
    server has counted costs nothing.
    """

    __slots__ = ("_items", "_start", "_sums")

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._start: int | None = None
        self._sums = [0]

    def between(self, start: int, stop: int) -> int:
        """The bytes of the items from ``start`` up to ``stop``."""
        known_from = self._start
        if known_from is None:
            known_from = self._start = start
        elif start < known_from:
            known_from = self._reach_back(start, known_from)
        sums = self._sums
        if len(sums) <= stop - known_from:
            new = self._items[known_from + len(sums) - 1 : stop]
            sums += _summed(new, sums.pop())
        return sums[stop - known_from] - sums[start - known_from]

    def rewind(self, length: int) -> None:
        """Forget the items from ``length`` on, which are gone from the history."""
        if self._start is None:
            return
        if length < self._start:
            self._start, self._sums = None, [0]
        else:
            del self._sums[length - self._start + 1 :]

    def _reach_back(self, start: int, known_from: int) -> int:
        sums = list(_summed(self._items[start:known_from], 0))
        before = sums.pop()
        self._start, self._sums = start, sums + [before + each for each in self._sums]
        return start
