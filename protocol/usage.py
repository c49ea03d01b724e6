"""Usage: what a call, a run or a pod consumed, where unknown is None and never 0."""

from __future__ import annotations

from msgspec import Struct


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """Tokens of one call or a sum of calls.

    ``input_tokens`` is the whole prompt, cached part included; ``cache_write_1h_tokens`` is the part of
    ``cache_write_tokens`` that is kept for an hour (which costs more). A field is None where no server
    told it. ``incomplete`` marks a sum in which some part was unknown.
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
        return Usage(
            _plus(self.input_tokens, other.input_tokens),
            _plus(self.output_tokens, other.output_tokens),
            _plus(self.cache_read_tokens, other.cache_read_tokens),
            _plus(self.cache_write_tokens, other.cache_write_tokens),
            self.incomplete
            or other.incomplete
            or (self.input_tokens is None) != (other.input_tokens is None)
            or (self.output_tokens is None) != (other.output_tokens is None),
            _plus(self.cache_write_1h_tokens, other.cache_write_1h_tokens),
        )


def _plus(a: int | None, b: int | None) -> int | None:
    if a is None:
        return b
    return a if b is None else a + b


def total(parts: list[Usage]) -> Usage:
    """The sum of parts; nothing at all is all-unknown."""
    if not parts:
        return Usage()
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result
