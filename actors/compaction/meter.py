"""``TokenMeter``: how many tokens a history takes: servers' own counts where they exist, estimates in
between.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

from actors.compaction.prune import Pruner
from actors.compaction.tokens import EncodedSizes, tokens_in
from protocol.items import Item
from protocol.usage import Usage

#: The least distance in bytes between two counts from which a density is computed, and the highest density.
DENSITY_BYTES = 2000
HIGHEST_DENSITY = 4.0


class UsageRecord(Struct, frozen=True, gc=False):
    """A server's count of one call: its request had ``history_len`` items, and ``input_tokens`` is that whole
    request, including its cached part, the system prompt and the tools.
    """

    history_len: int
    input_tokens: int
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


_NOTHING = UsageRecord(0, 0)


class TokenMeter(Struct, eq=False, gc=False):  # untracked, since it is in no reference cycle
    """Counts the tokens of one history, as requests show it. A question costs what was added since the last
    one.

    It reads the list that the pod appends to; a history that replaces this one gets its own meter.
    """

    _items: Sequence[Item]
    #: The pruner that makes the requests.
    _pruner: Pruner
    #: The sizes of the items; None until somebody asks for what no server has counted.
    _known_sizes: EncodedSizes | None = None
    #: The servers' counts, oldest first, both numbers rising: a lower count invalidates those before it.
    records: list[UsageRecord] = []

    @property
    def _sizes(self) -> EncodedSizes:
        if self._known_sizes is None:
            self._known_sizes = EncodedSizes(self._items)
        return self._known_sizes

    def record_usage(self, history_len: int, usage: Usage | None) -> None:
        """Record a server's count for a request of ``history_len`` items; None or 0 is ignored."""
        if usage is None or not usage.input_tokens:
            return
        records = self.records
        while records and (
            records[-1].history_len >= history_len or records[-1].input_tokens > usage.input_tokens
        ):
            records.pop()
        records.append(
            UsageRecord(
                history_len,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
            )
        )

    def rewind(self) -> None:
        """Forget the counts after the end to which the history was cut back."""
        length = len(self._items)
        if self._known_sizes is not None:
            self._known_sizes.rewind(length)
        self._pruner.rewind()
        while self.records and self.records[-1].history_len > length:
            self.records.pop()

    def weigh(self, start: int, until: int) -> None:
        """Weigh the items from ``start`` to ``until``, to do a long history in parts before the count is
        needed.
        """
        self._sizes.between(start, max(start, until))

    def occupancy(self) -> int:
        """The tokens of the whole history."""
        return self.before(len(self._items))

    def before(self, index: int) -> int:
        """The tokens before item ``index``, as requests show it now."""
        records = self.records
        if not records:
            size = self._sizes.between(0, index) - self._pruner.saved_before(index)
            return tokens_in(size)
        last = records[-1]
        # What was cut since the last count is in no request any more.
        counted = max(0, last.input_tokens - tokens_in(self._pruner.saved_since(last.history_len)))
        if index > last.history_len:
            return counted + tokens_in(self._sizes.between(last.history_len, index))
        at = bisect_left(records, index, key=_length)
        found = self._within(records[at - 1] if at else _NOTHING, records[at], index)
        return min(found, counted)

    def since(self, index: int) -> int:
        """The tokens of the items from ``index`` on, unshortened: by the counts, and no less than
        by bytes.
        """
        length = len(self._items)
        counted = self.before(length) - self.before(index)
        return max(counted, tokens_in(self._sizes.between(index, length)))

    def density(self) -> float | None:
        """How many tokens a server counts for one token of an estimate by bytes, from its latest counts; at
        least 1, to stay on the safe side. None if there are too few counts.
        """
        if len(self.records) < 2:
            return None
        last = self.records[-1]
        for earlier in reversed(self.records[:-1]):
            size = self._sizes.between(earlier.history_len, last.history_len)
            if size >= DENSITY_BYTES:
                found = (last.input_tokens - earlier.input_tokens) / tokens_in(size)
                return min(HIGHEST_DENSITY, max(1.0, found))
        return None

    def _within(self, low: UsageRecord, high: UsageRecord, index: int) -> int:
        if index == high.history_len:
            return high.input_tokens
        whole = self._sizes.between(low.history_len, high.history_len)
        part = self._sizes.between(low.history_len, index)
        more = (high.input_tokens - low.input_tokens) * part // whole
        return low.input_tokens + more


def _length(record: UsageRecord) -> int:
    return record.history_len
