"""Budgets: a tree of limits; an estimate is reserved before a call and settled after it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from protocol.errors import BudgetError
from protocol.manifest import BudgetSection
from protocol.results import BudgetUse
from protocol.usage import Usage

Resource = Literal["tokens", "cost_usd", "seconds"]

#: What an answer that nothing bounds is taken to need, until some have told what they take.
ANSWER_TOKENS = 4096

_NOUNS: dict[Resource, str] = {"tokens": "tokens", "cost_usd": "US dollars", "seconds": "seconds"}


class Exceeded(NamedTuple):
    """Which limit would not hold: ``used`` is what was spent, ``reserved`` what is held back for calls under
    way together with what the next call may take.
    """

    budget: Resource
    limit: float
    used: float
    reserved: float = 0.0
    whose: Literal["pod", "system"] = "pod"

    def __str__(self) -> str:
        """What a person reads."""
        text = f"the {self.whose}'s budget of {self.limit:g} {_NOUNS[self.budget]}: {self.used:g} used"
        if self.budget == "seconds":
            return text
        return f"{text}, and {self.reserved:g} needed for the next call and those under way"


class OverBudget(BudgetError):  # noqa: N818 - says what it is
    """A call would not fit the budget; nothing was sent."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(f"the next call does not fit {exceeded}")
        self.exceeded = exceeded


class Reservation(Struct, frozen=True):
    """What a call may take, held back in every budget from the pod's own up to the root."""

    tokens: int
    cost: float


class Budget:
    """One node: its own limits and its parent's. All on one loop, so that check and reserve are one."""

    __slots__ = (
        "_answer",
        "_calls",
        "_held_cost",
        "_held_tokens",
        "incomplete",
        "limits",
        "parent",
        "seconds",
        "spent_cost",
        "spent_tokens",
    )

    def __init__(self, limits: BudgetSection, parent: Budget | None = None) -> None:
        self.limits = limits
        self.parent = parent
        self.spent_tokens = 0
        self.spent_cost = 0.0
        self.seconds = 0.0
        #: Whether some call was settled at an estimate because nobody told what it took.
        self.incomplete = False
        #: What is held back for calls under way, and how many these are.
        self._held_tokens = 0
        self._held_cost = 0.0
        self._calls = 0
        #: What answers took of late, in tokens; None where none has told.
        self._answer: int | None = None

    @property
    def tokens(self) -> int:
        """What is spent or held back, in tokens."""
        return self.spent_tokens + self._held_tokens

    @property
    def cost(self) -> float:
        """What is spent or held back, in US dollars."""
        return self.spent_cost + self._held_cost

    @property
    def answer_tokens(self) -> int:
        """What an answer that nothing bounds is taken to need: as much as answers took of late."""
        if self._answer is not None:
            return self._answer
        return ANSWER_TOKENS if self.parent is None else self.parent.answer_tokens

    def exceeded(
        self, tokens: int = 0, cost: float = 0.0, *, perhaps: Reservation | None = None
    ) -> Exceeded | None:
        """Which limit, here or above, ``tokens`` and ``cost`` more would break; None if none.

        ``perhaps`` is what the call may take beyond that though nobody knows: it counts only beside other
        calls under way, since a call alone can go past a limit by no more than its own answer.
        """
        limits = self.limits
        more_tokens, more_cost = self._held_tokens + tokens, self._held_cost + cost
        if perhaps is not None and self._calls:
            more_tokens, more_cost = more_tokens + perhaps.tokens, more_cost + perhaps.cost
        if limits.tokens is not None and self.spent_tokens + more_tokens > limits.tokens:
            return Exceeded("tokens", limits.tokens, self.spent_tokens, more_tokens)
        if limits.cost_usd is not None and self.spent_cost + more_cost > limits.cost_usd:
            return Exceeded("cost_usd", limits.cost_usd, self.spent_cost, more_cost)
        if limits.seconds is not None and self.seconds >= limits.seconds:
            return Exceeded("seconds", limits.seconds, self.seconds)
        above = None if self.parent is None else self.parent.exceeded(tokens, cost, perhaps=perhaps)
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
        return BudgetUse(
            self.limits,
            self.tokens,
            self.cost,
            self.seconds,
            self.incomplete,
            reserved_tokens=self._held_tokens,
            reserved_cost_usd=self._held_cost,
        )

    def seconds_left(self) -> float | None:
        """How long runs may still take, None without a limit."""
        above = None if self.parent is None else self.parent.seconds_left()
        if self.limits.seconds is None:
            return above
        own = max(0.0, self.limits.seconds - self.seconds)
        return own if above is None else min(own, above)

    def reserve(self, tokens: int, cost: float) -> Reservation:
        """Hold back ``tokens`` and ``cost``; ask ``exceeded`` first."""
        self._hold(tokens, cost, 1)
        return Reservation(tokens, cost)

    def settle(self, held: Reservation, usage: Usage | None, cost: float | None) -> None:
        """Put what a call really took in the place of what was held; unknown stays at what was held."""
        self._hold(-held.tokens, -held.cost, -1)
        known = None if usage is None else usage.total_tokens
        estimated = usage is None or known is None or usage.incomplete
        if not estimated and usage is not None and usage.output_tokens is not None:
            self._learn(usage.output_tokens)
        self._spend(held.tokens if known is None else known, held.cost if cost is None else cost, estimated)

    def carry(self, usage: Usage, cost: float | None, seconds: float) -> None:
        """Count what the pod used up before it was resumed; those above have counted it already."""
        self.spent_tokens += usage.total_tokens or 0
        self.spent_cost += cost or 0.0
        self.seconds += seconds
        self.incomplete = self.incomplete or usage.incomplete

    def spend_seconds(self, seconds: float) -> None:
        """Count the time of a run."""
        self.seconds += seconds
        if self.parent is not None:
            self.parent.spend_seconds(seconds)

    def _hold(self, tokens: int, cost: float, calls: int) -> None:
        self._calls += calls
        self._held_tokens += tokens
        self._held_cost = self._held_cost + cost if self._calls else 0.0  # no dust of rounding stays
        if self.parent is not None:
            self.parent._hold(tokens, cost, calls)  # noqa: SLF001 - the same class, one level up

    def _spend(self, tokens: int, cost: float, estimated: bool) -> None:
        self.spent_tokens += tokens
        self.spent_cost += cost
        self.incomplete = self.incomplete or estimated
        if self.parent is not None:
            self.parent._spend(tokens, cost, estimated)  # noqa: SLF001

    def _learn(self, output: int) -> None:
        """A long answer is remembered at once and forgotten slowly."""
        before = self._answer or 0
        self._answer = max(1, output, before - (before - output) // 8)
        if self.parent is not None:
            self.parent._learn(output)  # noqa: SLF001


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
