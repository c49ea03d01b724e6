"""Budgets: a tree of limits; an estimate is reserved before a call and settled after it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from protocol.errors import ModelError
from protocol.manifest import BudgetSection
from protocol.results import BudgetUse
from protocol.usage import Usage

Resource = Literal["tokens", "cost_usd", "seconds"]


class Exceeded(NamedTuple):
    """Which limit would not hold; ``used`` includes what is reserved."""

    budget: Resource
    limit: float
    used: float
    whose: Literal["pod", "system"] = "pod"


class Reservation(NamedTuple):
    """What a call may take, held back in every budget from the pod's own up to the root."""

    tokens: int
    cost: float


class Budget:
    """One node: its own limits and its parent's. All on one loop, so that check and reserve are one."""

    __slots__ = ("cost", "incomplete", "limits", "parent", "seconds", "tokens")

    def __init__(self, limits: BudgetSection, parent: Budget | None = None) -> None:
        self.limits = limits
        self.parent = parent
        self.tokens = 0
        self.cost = 0.0
        self.seconds = 0.0
        #: Whether some call was settled at its estimate because nobody told what it took.
        self.incomplete = False

    def exceeded(self, tokens: int = 0, cost: float = 0.0) -> Exceeded | None:
        """Which limit, here or above, ``tokens`` and ``cost`` more would break; None if none."""
        limits = self.limits
        if limits.tokens is not None and self.tokens + tokens > limits.tokens:
            return Exceeded("tokens", limits.tokens, self.tokens + tokens)
        if limits.cost_usd is not None and self.cost + cost > limits.cost_usd:
            return Exceeded("cost_usd", limits.cost_usd, self.cost + cost)
        if limits.seconds is not None and self.seconds >= limits.seconds:
            return Exceeded("seconds", limits.seconds, self.seconds)
        return self._above(tokens, cost)

    def _above(self, tokens: int, cost: float) -> Exceeded | None:
        above = None if self.parent is None else self.parent.exceeded(tokens, cost)
        return None if above is None else above._replace(whose="system")

    def out_of_time(self) -> Exceeded:
        """The limit of seconds, here or above, that a run has come to whose time is up."""
        above = None if self.parent is None else self.parent.seconds_left()
        own = self.limits.seconds
        if self.parent is None or above is None or (own is not None and own - self.seconds <= above):
            return Exceeded("seconds", own or 0.0, own or 0.0)
        return self.parent.out_of_time()._replace(whose="system")

    def use(self) -> BudgetUse:
        """What is used up to now, as data."""
        return BudgetUse(self.limits, self.tokens, self.cost, self.seconds, self.incomplete)

    def seconds_left(self) -> float | None:
        """How long runs may still take, None without a limit."""
        above = None if self.parent is None else self.parent.seconds_left()
        if self.limits.seconds is None:
            return above
        own = max(0.0, self.limits.seconds - self.seconds)
        return own if above is None else min(own, above)

    def reserve(self, tokens: int, cost: float) -> Reservation:
        """Hold back ``tokens`` and ``cost``; ask ``exceeded`` first."""
        self._add(tokens, cost)
        return Reservation(tokens, cost)

    def settle(self, held: Reservation, usage: Usage | None, cost: float | None) -> None:
        """Put what a call really took in the place of what was held; unknown stays at the estimate."""
        known = None if usage is None else usage.total_tokens
        if known is None:
            self.incomplete = True
            if self.parent is not None:
                self.parent.incomplete = True
        self._add(0 if known is None else known - held.tokens, 0.0 if cost is None else cost - held.cost)

    def settle_failed(self, held: Reservation, error: BaseException) -> None:
        """A request that was refused for its length took nothing; what another failed one took nobody
        knows, so it stays at the estimate.
        """
        if isinstance(error, ModelError) and error.kind == "context_overflow":
            self._add(-held.tokens, -held.cost)
        else:
            self.settle(held, None, None)

    def carry(self, usage: Usage, cost: float | None, seconds: float) -> None:
        """Count what the pod used up before it was resumed; those above have counted it already."""
        self.tokens += usage.total_tokens or 0
        self.cost += cost or 0.0
        self.seconds += seconds
        self.incomplete = self.incomplete or usage.incomplete

    def spend_seconds(self, seconds: float) -> None:
        """Count the time of a run."""
        self.seconds += seconds
        if self.parent is not None:
            self.parent.spend_seconds(seconds)

    def _add(self, tokens: int, cost: float) -> None:
        self.tokens += tokens
        self.cost += cost
        if self.parent is not None:
            self.parent._add(tokens, cost)  # noqa: SLF001 - the same class, one floor up


class Totals:
    """What all pods of a system have consumed together; unknown stays None until something is known."""

    __slots__ = ("calls", "cost", "usage")

    def __init__(self) -> None:
        self.calls = 0
        self.usage = Usage()
        self.cost: float | None = None

    def count(self, usage: Usage | None, cost: float | None) -> None:
        """Add one call."""
        self.usage = usage or Usage() if self.calls == 0 else self.usage + (usage or Usage())
        self.calls += 1
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost
