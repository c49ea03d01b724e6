"""The token counts of Anthropic's messages, pure: the vendor's counts in, usage out."""

from __future__ import annotations

from typing import Any

from actors.llm.http.counts import count_of
from protocol.usage import Usage

#: The parts of a prompt, which are counted apart: fresh, written to the cache, read from it.
_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class MessagesMeter:
    """A call's tokens as a server reports them: once at the beginning, then in sums that replace it."""

    __slots__ = ("_output", "_parts", "_written_1h", "said")

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._output: int | None = None
        self._written_1h: int | None = None
        #: What was given out last.
        self.said: Usage | None = None

    def begin(self, reported: Any) -> Usage | None:
        """What is known of the prompt; how long the answer gets nobody knows yet."""
        return self._take(reported) if isinstance(reported, dict) else None

    def end(self, reported: Any) -> Usage | None:
        """What is known now, or None where that is nothing new."""
        if not isinstance(reported, dict):
            return None
        output = count_of(reported.get("output_tokens"))
        known = self._parts or any(count_of(reported.get(name)) for name in _PROMPT)
        if output or (output is not None and known):  # zeros all over come from servers that count nothing
            self._output = output
        return self._take(reported)

    def _take(self, reported: dict[str, Any]) -> Usage | None:
        counts = {name: count for name in _PROMPT if (count := count_of(reported.get(name))) is not None}
        if any(counts.values()):  # a prompt of no tokens does not exist
            self._parts.update(counts)
            split = reported.get("cache_creation")
            if isinstance(split, dict):
                self._written_1h = count_of(split.get("ephemeral_1h_input_tokens"))
        usage = self._usage()
        if usage == self.said or usage == Usage():
            return None
        self.said = usage
        return usage

    def _usage(self) -> Usage:
        """The usage: the whole prompt is what was fresh, what was written to the cache and what was read from
        it.
        """
        return Usage(
            sum(self._parts.values()) if self._parts else None,
            self._output,
            self._parts.get("cache_read_input_tokens"),
            self._parts.get("cache_creation_input_tokens"),
            cache_write_1h_tokens=self._written_1h,
        )
