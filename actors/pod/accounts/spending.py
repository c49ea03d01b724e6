"""``Spending``: charges a helper agent's model calls to the budget and the usage of its pod."""

from __future__ import annotations

from msgspec import Struct

from actors.compaction.tokens import encoded_size, text_tokens, tokens_in
from actors.llm.base import Answer, Request
from actors.pod.accounts.exchange import Exchange
from actors.pod.resources import PodResources
from protocol.errors import ModelError
from protocol.usage import Usage
from protocol.wire import encode

#: How much of a refusal its error quotes, in tokens.
_REFUSAL_TOKENS = 100


class Spent(Struct, frozen=True):
    """What a helper agent's calls took together: both None where it made none, or nobody knows."""

    usage: Usage | None = None
    cost: float | None = None


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
        exchange = Exchange(self._resources, lambda: _prompt_tokens(request), request.max_tokens)
        try:
            answer = await exchange.ask(request)
        except BaseException as error:
            exchange.end(error)
            raise
        else:
            self._add(answer.usage, exchange.settle_answer(answer))
            if answer.item.refused:  # whatever was said on the way to that helps nobody
                from actors.compaction.transcript import shortened  # noqa: PLC0415 - paid for by a refusal

                words = shortened(answer.item.text, _REFUSAL_TOKENS)
                raise ModelError(f"{request.model} refused its task: {words}", kind="content_filter")
            return answer
        finally:
            for failed in exchange.failed:
                if failed.usage is not None:
                    self._add(failed.usage, failed.cost)

    def _add(self, usage: Usage | None, cost: float | None) -> None:
        self.spent = Spent(_sum(self.spent.usage, usage), _plus(self.spent.cost, cost))


def _prompt_tokens(request: Request) -> int:
    """Estimate a helper agent's request in tokens, by its bytes."""
    size = sum(map(encoded_size, request.items)) + len(encode(request.tools))
    return tokens_in(size) + text_tokens(request.system or "")


def _sum(sum_: Usage | None, usage: Usage | None) -> Usage:
    used = usage or Usage()
    return used if sum_ is None else sum_ + used


def _plus(sum_: float | None, cost: float | None) -> float | None:
    return sum_ if cost is None else cost if sum_ is None else sum_ + cost
