"""The names of a chain's models, and the names under which their calls have a price."""

from __future__ import annotations

from typing import NamedTuple, Self

from actors.llm.http.presets import PRESETS


class Names(NamedTuple):
    """The names of one model: as people write it, as its server knows it, and under which its calls have a
    price (None: they cost nothing).
    """

    shown: str
    asked: str
    price: str | None

    @classmethod
    def of(cls, model: str, *, local: bool) -> Self:
        """The names of a model as people write it: ``ollama/qwen3``, ``claude-opus-5``, ``qwen/qwen3-8b``."""
        scheme, slash, rest = model.partition("/")
        if slash and scheme in {"offline", *PRESETS}:
            return cls(model, rest, model)
        if local:
            return cls(model, model, None)
        return cls(model, model, f"anthropic/{model}" if model.startswith("claude-") else model)
