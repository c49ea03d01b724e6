"""``Spending``: charges a helper agent's model calls to the budget and the usage of its pod."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.llm.base import Answer, Request
from actors.pod.accounts.exchange import Exchange, request_tokens
from actors.pod.accounts.spent import Spent, sum_of
from actors.pod.resources import PodResources
from protocol.errors import ModelError
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.accounts.tiered import TierSpent

#: How much of a refusal its error quotes, in tokens.
_REFUSAL_TOKENS = 100


class Spending:
    """Asks the model for one helper agent, and charges each call. Used on the pod's loop alone."""

    __slots__ = ("_resources", "counted", "spent")

    def __init__(self, resources: PodResources) -> None:
        self._resources = resources
        self.spent = Spent()
        #: Whether the pod has added it to its own.
        self.counted = False

    async def ask(self, request: Request) -> Answer:
        """The model's whole answer. Raises OverBudget, ModelError where the model or its provider would not
        answer, or what the client raises.
        """
        exchange = self._exchange(request)
        try:
            answer = await exchange.ask(request)
        except BaseException as error:
            exchange.end(error)
            raise
        else:
            self._add(answer.usage, exchange.settle_answer(answer))
            for each in exchange.accepted:
                await self._add_tier(each)
            if answer.item.refused:  # whatever was said on the way to that helps nobody
                from actors.compaction.transcript import shortened  # noqa: PLC0415 - paid for by a refusal

                words = shortened(answer.item.text, _REFUSAL_TOKENS)
                raise ModelError(f"{request.model} refused its task: {words}", kind="content_filter")
            return answer
        finally:
            for failed in exchange.failed:
                if failed.usage is not None:
                    self._add(failed.usage, failed.cost)

    def _exchange(self, request: Request) -> Exchange:
        resources = self._resources
        if not resources.template.asks_tiers:
            return Exchange(resources, partial(request_tokens, request), request.max_tokens)
        from actors.pod.accounts.tiered import TieredExchange  # noqa: PLC0415 - paid for by pods with a chain

        size = partial(request_tokens, request)
        return TieredExchange(resources, size, request.max_tokens, on_tier=self._add_tier)

    async def _add_tier(self, ended: TierSpent) -> None:
        """Count a tier of a chain whose answer was not accepted for a helper agent."""
        failed = [Spent(each.usage, each.cost) for each in ended.failed]
        self.spent = sum_of((self.spent, ended.spent, *failed))

    def _add(self, usage: Usage | None, cost: float | None) -> None:
        self.spent = sum_of((self.spent, Spent(usage or Usage(), cost)))
