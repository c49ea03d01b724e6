"""Usage: what a call, a run or a pod consumed, where unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """Tokens of one call or a sum of calls.

    ``input_tokens`` is the whole prompt, cached part included; ``cache_write_1h_tokens`` is the part of
    ``cache_write_tokens`` that is kept for an hour (which costs more). A field is None where no server
    reported it. ``incomplete`` marks a sum in which some part was unknown or is an estimate.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    incomplete: bool = False
    cache_write_1h_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Input and output together, None where neither is known."""
        return _plus(self.input_tokens, self.output_tokens)

    def __add__(self, other: Usage) -> Usage:
        """The sum: a field is None only where neither side knows it."""
        # Written out, since it is done for every call of every pod: half the time of calling ``_plus``.
        a, b = self.input_tokens, other.input_tokens
        c, d = self.output_tokens, other.output_tokens
        e, f = self.cache_read_tokens, other.cache_read_tokens
        g, h = self.cache_write_tokens, other.cache_write_tokens
        i, j = self.cache_write_1h_tokens, other.cache_write_1h_tokens
        return Usage(
            b if a is None else a if b is None else a + b,
            d if c is None else c if d is None else c + d,
            f if e is None else e if f is None else e + f,
            h if g is None else g if h is None else g + h,
            self.incomplete or other.incomplete or (a is None) != (b is None) or (c is None) != (d is None),
            j if i is None else i if j is None else i + j,
        )

    def without(self, part: Usage) -> Usage:
        """The sum as it was before ``part`` was added to it; where that was nothing, 0 for what is known."""
        fields = (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "cache_write_1h_tokens",
        )
        left = {name: _minus(getattr(self, name), getattr(part, name)) for name in fields}
        return Usage(incomplete=self.incomplete, **left)


def sum_of(usages: Sequence[Usage]) -> Usage:
    """The sum of one or more: what adding them one by one gives, in a fraction of the time."""
    inputs, input_known = _column([each.input_tokens for each in usages])
    outputs, output_known = _column([each.output_tokens for each in usages])
    return Usage(
        inputs,
        outputs,
        _column([each.cache_read_tokens for each in usages])[0],
        _column([each.cache_write_tokens for each in usages])[0],
        not (input_known and output_known) or True in [each.incomplete for each in usages],
        _column([each.cache_write_1h_tokens for each in usages])[0],
    )


def _column(numbers: list[int | None]) -> tuple[int | None, bool]:
    """The sum of what is known, and whether all of it or nothing is."""
    unknown = numbers.count(None)
    if not unknown:
        return sum(numbers), True  # type: ignore[arg-type]
    if unknown == len(numbers):
        return None, True
    return sum([each for each in numbers if each is not None]), False


def _plus(a: int | None, b: int | None) -> int | None:
    if a is None:
        return b
    return a if b is None else a + b


def _minus(a: int | None, b: int | None) -> int | None:
    return a if a is None or b is None else a - b
