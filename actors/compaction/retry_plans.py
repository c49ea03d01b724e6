"""Retry plans of the summariser: how much less it reads each time its own request overflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.compaction.tokens import text_tokens
from actors.compaction.transcript import chunks

#: Chunks are summarised one after another; what would need more of them loses its oldest part.
MOST_CHUNKS = 8
#: After an overflow: chunks of a half and a quarter of what was too much, then only the newest part.
_STEPS = ((2, MOST_CHUNKS), (4, MOST_CHUNKS), (4, 1), (8, 1))


def ladder(texts: Sequence[str], budget: int) -> Iterator[list[str]]:
    """The transcript as the summariser's requests have it, one reading after another.

    The first is the whole in one request, if it is thought to fit ``budget`` tokens. Take the next one
    after an overflow, and only then; when there is none left, summarise without a model.
    """
    if not texts:
        yield ["[nothing was said]"]
        return
    size = sum(text_tokens(text) + 1 for text in texts)
    yield ["\n".join(texts)] if size <= budget else chunks(texts, budget, MOST_CHUNKS)
    for part, most in _STEPS:
        yield chunks(texts, max(1, min(size, budget) // part), most)
