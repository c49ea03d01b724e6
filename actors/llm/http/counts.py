"""The token counts that servers report, whatever their format; pure."""

from __future__ import annotations

from typing import Any


def count_of(value: Any) -> int | None:
    """A server's number of tokens; None if ``value`` is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)


def first_count(*values: Any) -> int | None:
    """The first of ``values`` that is a number of tokens."""
    return next((count for each in values if (count := count_of(each)) is not None), None)


def output_of(prompt: int | None, output: Any, total: Any) -> int | None:
    """The tokens of an answer, its reasoning included: xAI's and Google's chat completions count that in the
    total alone.
    """
    counted, sum_ = count_of(output), count_of(total)
    if prompt is None or sum_ is None or sum_ - prompt <= (counted or 0):
        return counted
    return sum_ - prompt


#: What servers call the tokens that were written to a cache: OpenAI and OpenRouter, DashScope, litellm.
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")


def cached_of(details: Any) -> tuple[int | None, int | None]:
    """The parts of a prompt that were read from a cache and written to one, by the details of its tokens."""
    if not isinstance(details, dict):
        return None, None
    return count_of(details.get("cached_tokens")), first_count(*(details.get(name) for name in _WRITTEN))
