"""``Context``: the request view of a history, and its size in tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from msgspec import Struct

from actors.compaction.meter import TokenMeter
from actors.compaction.picture_links import without_links
from actors.compaction.prune import Pruner
from actors.compaction.refused import left_out, shown_of
from protocol.items import Item
from protocol.usage import Usage

#: Items that are looked through at a time; about 2 ms.
_PART = 4000


class Context(Struct, eq=False, gc=False):  # untracked, since nothing that it has leads back to it
    """The request view of one list of items; a list that replaces it gets a context of its own.

    ``scratch`` is for the client, which keeps there what it has already encoded.
    """

    items: list[Item]
    _pruner: Pruner
    _meter: TokenMeter
    scratch: dict[str, Any] = {}
    #: What is shown in the place of items, by their ids, whose pictures a server does not take any more.
    _unlinked: dict[int, Item] = {}

    @classmethod
    def of(cls, items: list[Item], calls: Iterable[tuple[int, Usage]] = ()) -> Self:
        """The view of ``items``; ``calls`` are the measured calls in this history: number of items in the
        request, and usage.
        """
        pruner = Pruner(items)
        meter = TokenMeter(items, pruner)
        for length, usage in calls:
            meter.record_usage(length, usage)
        return cls(items, pruner, meter)

    def view(self) -> Sequence[Item]:
        """The history for a request: refused turns are replaced by a notice of what was done in them, and
        old, long tool results are cut; nothing else is changed.
        """
        view: Sequence[Item] = self._pruner.view()
        if self._pruner.refused:
            view = shown_of(view, left_out(self.items, self._pruner.refused))
        if self._unlinked:
            view = [self._unlinked.get(id(item), item) for item in view]
        return view

    def hide_links(self, length: int) -> bool:
        """From now on, replace pictures given by URL in the first ``length`` items by words; returns whether
        there were any.
        """
        before = len(self._unlinked)
        self._unlinked |= {id(item): shown for item, shown in without_links(self.items[:length])}
        return len(self._unlinked) > before

    def record_usage(self, length: int, usage: Usage | None) -> None:
        """Record what a server counted for a request of ``length`` items."""
        self._meter.record_usage(length, usage)

    def occupancy(self) -> int:
        """The tokens the history takes: the last measured input plus an estimate of what came after."""
        return self._meter.occupancy()

    def density(self) -> float | None:
        """How many of the server's tokens one estimated token stands for, as far as that is known."""
        return self._meter.density()

    def since(self, index: int) -> int:
        """The tokens of the items from ``index`` on."""
        return self._meter.since(index)

    def look_through(self, *, counted: bool, read: int | None) -> Iterator[None]:
        """Prepare a history that was read back, one part at each step of the iterator, so that the first
        request costs no more than any other.

        It is weighed in advance: all of it if it is ``counted`` and no server has counted it, else what comes
        after the first ``read`` items.
        """
        start = 0 if counted and not self._meter.records else read
        for until in range(_PART, len(self.items) + _PART, _PART):
            part = min(until, len(self.items))
            self._pruner.look_through(part)
            if start is not None:
                self._meter.weigh(start, part)
            yield

    def rewind(self) -> None:
        """Follow a history whose end was cut back to what is durable."""
        self._meter.rewind()
