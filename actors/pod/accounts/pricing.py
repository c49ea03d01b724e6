"""``Pricing``: what calls of a client cost, by the system's table of prices, as budgets need to know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from actors.llm.base import LLMClient, models_of
from actors.llm.prices import Prices, cost
from actors.pod.accounts.budget import Budget
from actors.pod.client_factory import label, priced_as
from protocol.errors import BudgetError
from protocol.manifest import ModelSection, PodManifest
from protocol.usage import Usage

#: From what a call used to what it cost in US dollars; None where nobody knows.
Price = Callable[[Usage | None], float | None]


class Pricing:
    """The prices of one system, as its pods need them."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def cost(self, model: str, usage: Usage | None) -> float | None:
        """What a call of the model cost in US dollars."""
        return cost(model, usage, self.prices)

    def price_of(self, section: ModelSection, client: LLMClient, *, is_named: bool) -> Price:
        """The function from usage to cost: for a chain the price of its most expensive model, for another
        client that of the manifest's model if the client ``is_named`` by it.
        """
        if (models := models_of(client)) is not None:
            return partial(self._dearest, models)
        return partial(self.cost, priced_as(section)) if is_named else _unknown_price

    def _dearest(self, models: Sequence[str], usage: Usage | None) -> float | None:
        """The highest price that a call of any of these models can cost; None where the price of one is
        unknown.
        """
        costs = [self.cost(each, usage) for each in models]
        known = [each for each in costs if each is not None]
        return None if len(known) < len(costs) else max(known, default=0.0)

    def _unpriced(self, manifest: PodManifest, client: LLMClient) -> str:
        """The first model whose price is unknown."""
        models = models_of(client) or (label(manifest.model),)
        return next((each for each in models if self.cost(each, Usage(1, 1)) is None), models[0])

    def check(self, manifest: PodManifest, client: LLMClient, price: Price, shared: Budget | None) -> None:
        """Raise BudgetError where the pod, or the budget it draws on (``shared``), limits dollars and the
        cost of a call is unknown.
        """
        limits = manifest.budget
        in_dollars = [
            each for each in (limits, shared and shared.limits) if each and each.cost_usd is not None
        ]
        if in_dollars and price(Usage(1, 1)) is None:
            whose = f"pod {manifest.name!r}" if in_dollars[0] is limits else "the system"
            raise BudgetError(
                f"{whose} has a budget in cost_usd, but the price of the model "
                f"{self._unpriced(manifest, client)} of pod {manifest.name!r} is unknown",
                hint="add its price to PodSystem(prices=…), or limit tokens instead",
            )


def _unknown_price(_: Usage | None) -> float | None:
    """The price of a client whose model has no known name: None."""
    return None
