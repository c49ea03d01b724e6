"""Counts a request that is made outside of a pod: without a budget, at given prices or the known ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import Struct

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient, Request
from actors.llm.prices import Prices, cost, standard_prices
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, Totals
from actors.pod.accounts.exchange import Exchange, Publish, PublishText, request_tokens
from actors.pod.accounts.tiered import PriceOf, TieredExchange, TierSpent
from protocol.usage import Usage

_NO_LIMITS = Limits(None, None, 0)


class Shows(Struct, frozen=True, eq=False):
    """What is shown an answer as it arrives: its text, and everything else as events."""

    publish: Publish
    publish_text: PublishText


class _Asked(Struct, frozen=True, eq=False):
    client: LLMClient
    price: Callable[[Usage | None], float | None]
    price_of: PriceOf
    totals: Totals
    limits: Limits = _NO_LIMITS
    retry: RetryPolicy = RetryPolicy()


class _Payer(Struct, frozen=True, eq=False):
    template: _Asked
    budget: Budget | None = None


#: What Exchange takes behind its payer.
_Rest = tuple[Callable[[], int], int | None, Callable[[], bool], Publish, PublishText]


def _free(_: Usage | None) -> float:
    return 0.0


def _unknown(_: Usage | None) -> float | None:
    return None


async def _ignore(_: TierSpent) -> None:
    """Take an event that nobody listens to."""


def own_meter(
    client: LLMClient,
    request: Request,
    *,
    prices: Prices | None = None,
    on_tier: Callable[[TierSpent], Awaitable[None]] = _ignore,
    shows: Shows | None = None,
) -> TieredExchange:
    """The counter for a request to a client that asks several models, each at its own price."""
    payer = _Payer(_asked(client, _unknown, prices))
    return TieredExchange(payer, *_of(request, shows), on_tier=on_tier)


def own_exchange(
    client: LLMClient,
    request: Request,
    model: str | None,
    *,
    prices: Prices | None = None,
    shows: Shows | None = None,
) -> Exchange:
    """The counter for a request to a client that asks one model, at the price of ``model``
    (``scheme/model_id``); None costs nothing.
    """
    price = _free if model is None else partial(_cost, prices, model)
    return Exchange(_Payer(_asked(client, price, prices)), *_of(request, shows))


def _asked(client: LLMClient, price: Callable[[Usage | None], float | None], prices: Prices | None) -> _Asked:
    return _Asked(client, price, partial(_cost, prices), Totals())


def _cost(prices: Prices | None, model: str, usage: Usage | None) -> float | None:
    return cost(model, usage, prices or standard_prices())


def _of(request: Request, shows: Shows | None) -> _Rest:
    """What an exchange has to know of a request, and who is shown its answer."""
    size = partial(request_tokens, request)
    if shows is None:
        return size, request.max_tokens, _never, _silent, _silent
    return size, request.max_tokens, _always, shows.publish, shows.publish_text


def _never() -> bool:
    return False


def _always() -> bool:
    return True


def _silent(*_: object, **__: object) -> None:
    """Publish nothing."""
