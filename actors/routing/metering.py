"""How the models of a chain are called, what their calls cost, and what counts these outside of a pod."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Self

from msgspec import Struct

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient, Request
from actors.llm.http.presets import PRESETS
from actors.llm.prices import Prices, cost, standard_prices
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, Totals
from actors.pod.accounts.exchange import request_tokens
from actors.pod.accounts.tiered import PriceOf, TieredExchange, TierSpent
from protocol.usage import Usage

_NO_LIMITS = Limits(None, None, 0)


class Names(NamedTuple):
    """The names of one model: as people write it, as its server is asked, and by which its calls have a price
    (None: they cost nothing).
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


class _Asked(Struct, frozen=True, eq=False):
    client: LLMClient
    price_of: PriceOf
    totals: Totals
    limits: Limits = _NO_LIMITS
    retry: RetryPolicy = RetryPolicy()

    @property
    def price(self) -> Callable[[Usage | None], float | None]:
        """Of the whole: it is counted call by call."""
        return _unknown


class _Payer(Struct, frozen=True, eq=False):
    template: _Asked
    budget: Budget | None = None


def _unknown(_: Usage | None) -> float | None:
    return None


async def _ignore(_: TierSpent) -> None:
    """Nobody asks."""


def own_meter(
    client: LLMClient,
    request: Request,
    *,
    prices: Prices | None = None,
    on_tier: Callable[[TierSpent], Awaitable[None]] = _ignore,
) -> TieredExchange:
    """What counts a request outside of a pod: without a budget, at ``prices`` or those that polypod knows."""
    price_of = partial(_cost, prices)
    asked = _Asked(client, price_of, Totals())
    size = partial(request_tokens, request)
    return TieredExchange(_Payer(asked), size, request.max_tokens, on_tier=on_tier)


def _cost(prices: Prices | None, model: str, usage: Usage | None) -> float | None:
    return cost(model, usage, prices or standard_prices())
