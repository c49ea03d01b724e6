"""What little workers (summariser, extractor) take: they draw on their pod's budget and count as its own."""

from __future__ import annotations

from msgspec import Struct

from actors.compaction.tokens import encoded_size, text_tokens, tokens_in
from actors.llm.base import Answer, Request
from actors.llm.retry import ask
from actors.pod.budget import Exceeded, Reservation
from actors.pod.parts import PodParts
from protocol.errors import BudgetError
from protocol.usage import Usage
from protocol.wire import encode


class OverBudget(BudgetError):  # noqa: N818 - says what it is
    """A worker's next call would not fit the budget; nothing was sent."""

    def __init__(self, exceeded: Exceeded) -> None:
        budget, limit, used, whose = exceeded
        super().__init__(
            f"the {whose}'s budget of {limit:g} {budget} does not hold a worker's call ({used:g} with it)"
        )
        self.exceeded = exceeded


class Spent(Struct, frozen=True):
    """What a worker's calls took together: both None where it made none, or nobody knows."""

    usage: Usage | None = None
    cost: float | None = None


class Spending:
    """The model as one worker asks it. Used on the pod's loop alone."""

    __slots__ = ("_parts", "counted", "spent")

    def __init__(self, parts: PodParts) -> None:
        self._parts = parts
        self.spent = Spent()
        #: Whether the pod has added it to its own.
        self.counted = False

    async def ask(self, request: Request) -> Answer:
        """The model's whole answer. Raises OverBudget, or what the client raises."""
        held = self._reserve(request)
        try:
            answer = await ask(self._parts.client, request)
        except BaseException as error:
            if held is not None and self._parts.budget is not None:
                self._parts.budget.settle_failed(held, error)
            raise
        cost = self._parts.price(answer.usage)
        if held is not None and self._parts.budget is not None:
            self._parts.budget.settle(held, answer.usage, cost)
        self._parts.totals.count(answer.usage, cost)
        self.spent = Spent(_sum(self.spent.usage, answer.usage), _plus(self.spent.cost, cost))
        return answer

    def _reserve(self, request: Request) -> Reservation | None:
        budget = self._parts.budget
        if budget is None:
            return None
        prompt, answer = _prompt_tokens(request), request.max_tokens or 0
        cost = self._parts.price(Usage(prompt, answer)) or 0.0
        exceeded = budget.exceeded(prompt + answer, cost)
        if exceeded is not None:
            raise OverBudget(exceeded)
        return budget.reserve(prompt + answer, cost)


def _prompt_tokens(request: Request) -> int:
    """A worker's request in tokens, by its bytes."""
    size = sum(map(encoded_size, request.items)) + len(encode(request.tools))
    return tokens_in(size) + text_tokens(request.system or "")


def _sum(sum_: Usage | None, usage: Usage | None) -> Usage:
    used = usage or Usage()
    return used if sum_ is None else sum_ + used


def _plus(sum_: float | None, cost: float | None) -> float | None:
    return sum_ if cost is None else cost if sum_ is None else sum_ + cost
