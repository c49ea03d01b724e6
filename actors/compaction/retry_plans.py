"""Plans how much less the summariser reads each time its own request overflows; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.compaction.tokens import text_tokens
from actors.compaction.transcript import chunks

#: Chunks are summarised one after another; if more would be needed, the oldest part is dropped.
MOST_CHUNKS = 8
#: After an overflow: chunks of a half and a quarter of what was too much, then only the newest part.
_STEPS = ((2, MOST_CHUNKS), (4, MOST_CHUNKS), (4, 1), (8, 1))


def ladder(texts: Sequence[str], budget: int) -> Iterator[list[str]]:
    """The transcript as the texts of the summariser's requests, one plan after another.

    The first plan is the whole transcript in one request, if it seems to fit ``budget`` tokens. Take the next
    plan only after an overflow; when none is left, summarise without a model.
    """
    if not texts:
        yield ["[nothing was said]"]
        return
    size = sum(text_tokens(text) + 1 for text in texts)
    yield ["\n".join(texts)] if size <= budget else chunks(texts, budget, MOST_CHUNKS)
    for part, most in _STEPS:
        yield chunks(texts, max(1, min(size, budget) // part), most)
