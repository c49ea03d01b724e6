"""Budgets: a tree of limits; an estimate is reserved before a call and settled after it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from protocol.errors import BudgetError
from protocol.manifest import BudgetSection
from protocol.results import BudgetUse
from protocol.text import amount
from protocol.usage import Usage

Resource = Literal["tokens", "cost_usd", "seconds"]

#: What an answer that nothing bounds is taken to need, until some have reported their usage.
ANSWER_TOKENS = 4096

_NOUNS: dict[Resource, str] = {"tokens": "tokens", "cost_usd": "US dollars", "seconds": "seconds"}


_OWNERS = {"pod": "pod", "parent": "parent pod", "system": "system"}


class Exceeded(NamedTuple):
    """Which limit would be exceeded: ``used`` is what was spent, ``reserved`` what is held back for calls
    under way plus what the next call may take.
    """

    budget: Resource
    limit: float
    used: float
    reserved: float = 0.0
    whose: Literal["pod", "parent", "system"] = "pod"

    def __str__(self) -> str:
        """What a person reads."""
        text = (
            f"the {_OWNERS[self.whose]}'s budget of {amount(self.limit)} {_NOUNS[self.budget]}: "
            f"{amount(self.used)} used"
        )
        if self.budget == "seconds":
            return text
        return f"{text}, {amount(self.reserved)} reserved for the next call and calls in progress"


class OverBudget(BudgetError):  # noqa: N818 - says what it is
    """A call would not fit the budget; nothing was sent."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(f"the next call would exceed {exceeded}")
        self.exceeded = exceeded


class Reservation(Struct, frozen=True):
    """What a call may take, held back in every budget from the pod's own up to the root."""

    tokens: int
    cost: float


class Budget:
    """One node of the tree: its own limits and its parent's. It is used on one loop alone, so that nothing
    comes between a check and its reservation.
    """

    __slots__ = (
        "_answer",
        "_calls",
        "_held_cost",
        "_held_tokens",
        "children",
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
        #: Whether some call was settled at an estimate because its usage was not reported.
        self.incomplete = False
        #: What is held back for calls under way, and how many these are.
        self._held_tokens = 0
        self._held_cost = 0.0
        self._calls = 0
        #: Those below for which something is set aside here, sub-agents'; None where there are none.
        self.children: list[Budget] | None = None
        #: What answers took of late, in tokens; None where none was reported.
        self._answer: int | None = None

    @property
    def tokens(self) -> int:
        """What is spent or held back, in tokens."""
        return self.spent_tokens + self.reserved_tokens

    @property
    def cost(self) -> float:
        """What is spent or held back, in US dollars."""
        return self.spent_cost + self.reserved_cost

    @property
    def reserved_tokens(self) -> int:
        """What is held back for calls under way and set aside for sub-agents, in tokens."""
        return self._held_tokens + self._aside_tokens

    @property
    def reserved_cost(self) -> float:
        """What is held back for calls under way and set aside for sub-agents, in US dollars."""
        return self._held_cost + self._aside_cost

    @property
    def _aside_tokens(self) -> int:
        return 0 if self.children is None else sum([each.unspent_tokens for each in self.children])

    @property
    def _aside_cost(self) -> float:
        return 0.0 if self.children is None else sum([each.unspent_cost for each in self.children])

    @property
    def _aside_seconds(self) -> float:
        return 0.0 if self.children is None else sum([each.unspent_seconds for each in self.children])

    @property
    def unspent_tokens(self) -> int:
        """What is set aside above for this node and those below, in tokens."""
        return self._aside_tokens

    @property
    def unspent_cost(self) -> float:
        """What is set aside above for this node and those below, in US dollars."""
        return self._aside_cost

    @property
    def unspent_seconds(self) -> float:
        """What is set aside above for this node and those below, in seconds."""
        return self._aside_seconds

    @property
    def answer_tokens(self) -> int:
        """How many tokens an answer without ``max_tokens`` is expected to need: as many as recent answers
        took.
        """
        if self._answer is not None:
            return self._answer
        return ANSWER_TOKENS if self.parent is None else self.parent.answer_tokens

    def exceeded(
        self,
        tokens: int = 0,
        cost: float = 0.0,
        *,
        perhaps: Reservation | None = None,
        timed: bool = True,
    ) -> Exceeded | None:
        """Which limit, here or above, ``tokens`` and ``cost`` more would exceed; None if none. ``perhaps`` is
        what the call might take on top of that: it counts only beside other calls under way, since a single
        call can overrun a limit by no more than its own answer. The limit of seconds is checked only with
        ``timed``.
        """
        limits = self.limits
        if self.children is None:
            more_tokens, more_cost = self._held_tokens + tokens, self._held_cost + cost
        else:
            more_tokens, more_cost = self.reserved_tokens + tokens, self.reserved_cost + cost
        if perhaps is not None and self._calls:
            more_tokens, more_cost = more_tokens + perhaps.tokens, more_cost + perhaps.cost
        if limits.tokens is not None and self.spent_tokens + more_tokens > limits.tokens:
            return Exceeded("tokens", limits.tokens, self.spent_tokens, more_tokens)
        if limits.cost_usd is not None and self.spent_cost + more_cost > limits.cost_usd:
            return Exceeded("cost_usd", limits.cost_usd, self.spent_cost, more_cost)
        if timed and limits.seconds is not None and self.seconds + self._aside_seconds >= limits.seconds:
            return Exceeded("seconds", limits.seconds, self.seconds)
        return self._exceeded_above(tokens, cost, perhaps, timed)

    def _exceeded_above(
        self, tokens: int, cost: float, perhaps: Reservation | None, timed: bool
    ) -> Exceeded | None:
        if self.parent is None:
            return None
        above = self.parent.exceeded(tokens, cost, perhaps=perhaps, timed=timed)
        return None if above is None else above._replace(whose="system")

    def out_of_time(self) -> Exceeded:
        """The limit of seconds, here or above, that a run has reached."""
        above = None if self.parent is None else self.parent.seconds_left()
        own = self.limits.seconds
        if self.parent is None or above is None or (own is not None and own - self.seconds <= above):
            return Exceeded("seconds", own or 0.0, own or 0.0)
        return self.parent.out_of_time()._replace(whose="system")

    def use(self) -> BudgetUse:
        """What has been used up so far, as data."""
        return BudgetUse(
            self.limits,
            self.tokens,
            self.cost,
            self.seconds,
            self.incomplete,
            reserved_tokens=self.reserved_tokens,
            reserved_cost_usd=self.reserved_cost,
        )

    def seconds_left(self) -> float | None:
        """How long runs may still take, None without a limit."""
        above = None if self.parent is None else self.parent.seconds_left()
        if self.limits.seconds is None:
            return above
        own = max(0.0, self.limits.seconds - self.seconds - self._aside_seconds)
        return own if above is None else min(own, above)

    def reserve(self, tokens: int, cost: float) -> Reservation:
        """Hold back ``tokens`` and ``cost``; check ``exceeded`` first."""
        self.hold(tokens, cost, 1)
        return Reservation(tokens, cost)

    def settle(self, held: Reservation, usage: Usage | None, cost: float | None) -> None:
        """Replace what was held back by what a call really took; where that is unknown, what was held back
        counts as spent.
        """
        self.hold(-held.tokens, -held.cost, -1)
        known = None if usage is None else usage.total_tokens
        estimated = usage is None or known is None or usage.incomplete
        if not estimated and usage is not None and usage.output_tokens is not None:
            self._learn(usage.output_tokens)
        self.spend(held.tokens if known is None else known, held.cost if cost is None else cost, estimated)

    def carry(self, usage: Usage, cost: float | None, seconds: float) -> None:
        """Count what the pod used up before it was resumed. Budgets above have counted it already."""
        self.spent_tokens += usage.total_tokens or 0
        self.spent_cost += cost or 0.0
        self.seconds += seconds
        self.incomplete = self.incomplete or usage.incomplete

    def spend_seconds(self, seconds: float) -> None:
        """Count the time of a run."""
        self.seconds += seconds
        if self.parent is not None:
            self.parent.spend_seconds(seconds)

    def _hold_here(self, tokens: int, cost: float, calls: int) -> None:
        self._calls += calls
        self._held_tokens += tokens
        self._held_cost = self._held_cost + cost if self._calls else 0.0  # no dust of rounding stays

    def hold(self, tokens: int, cost: float, calls: int) -> None:
        """Hold back more tokens and cost for more calls, here and above."""
        self._hold_here(tokens, cost, calls)
        if self.parent is not None:
            self.parent.hold(tokens, cost, calls)

    def spend(self, tokens: int, cost: float, estimated: bool) -> None:
        """Count what a call took, here and above."""
        self.spend_here(tokens, cost, estimated)
        if self.parent is not None:
            self.parent.spend(tokens, cost, estimated)

    def spend_here(self, tokens: int, cost: float, estimated: bool) -> None:
        """Count in this node alone what those above have counted already."""
        self.spent_tokens += tokens
        self.spent_cost += cost
        self.incomplete = self.incomplete or estimated

    def set_aside_for(self, node: Budget) -> None:
        """Hold back what is unspent of ``node``, here and above."""
        if self.children is None:
            self.children = []
            # A sub-agent's is held there already.
            if self.parent is not None and not isinstance(self, ChildBudget):
                self.parent.set_aside_for(self)
        self.children.append(node)

    def give_back(self, node: Budget) -> None:
        """Hold back nothing for ``node`` any more."""
        if self.children is None or node not in self.children:
            return
        self.children.remove(node)
        if not self.children:
            self.children = None
            if self.parent is not None and not isinstance(self, ChildBudget):
                self.parent.give_back(self)

    def _learn(self, output: int) -> None:
        """Learn from the length of an answer: a long one is remembered at once and forgotten slowly."""
        before = self._answer or 0
        self._answer = max(1, output, before - (before - output) // 8)
        if self.parent is not None:
            self.parent._learn(output)  # noqa: SLF001


class ChildBudget(Budget):
    """A sub-agent's node. Its own limits are set aside in its parent from the start, until ``close``; what it
    has no limit for it draws from the parent call by call, like any other node.
    """

    __slots__ = ("_above",)

    def __init__(self, limits: BudgetSection, parent: Budget) -> None:
        super().__init__(limits, parent)
        self._above = parent
        parent.set_aside_for(self)

    def close(self) -> None:
        """Give back to the parent what the sub-agent has left, since it has ended."""
        self._above.give_back(self)

    @property
    def unspent_tokens(self) -> int:
        limit = self.limits.tokens
        return self._aside_tokens if limit is None else max(0, limit - self.spent_tokens)

    @property
    def unspent_cost(self) -> float:
        limit = self.limits.cost_usd
        return self._aside_cost if limit is None else max(0.0, limit - self.spent_cost)

    @property
    def unspent_seconds(self) -> float:
        limit = self.limits.seconds
        return self._aside_seconds if limit is None else max(0.0, limit - self.seconds)

    def carry(self, usage: Usage, cost: float | None, seconds: float) -> None:
        super().carry(usage, cost, seconds)
        self._above.carry(usage, cost, seconds)

    def seconds_left(self) -> float | None:
        if self.limits.seconds is None:
            return super().seconds_left()
        return max(0.0, self.limits.seconds - self.seconds - self._aside_seconds)

    def out_of_time(self) -> Exceeded:
        if self.limits.seconds is None:
            above = self._above.out_of_time()
            return above._replace(whose="parent") if above.whose == "pod" else above
        return Exceeded("seconds", self.limits.seconds, self.limits.seconds)

    def _exceeded_above(
        self, tokens: int, cost: float, perhaps: Reservation | None, timed: bool
    ) -> Exceeded | None:
        if perhaps is not None:
            perhaps = Reservation(*self._not_set_aside(perhaps.tokens, perhaps.cost))
        timed = timed and self.limits.seconds is None
        above = self._above.exceeded(*self._not_set_aside(tokens, cost), perhaps=perhaps, timed=timed)
        return above._replace(whose="parent") if above is not None and above.whose == "pod" else above

    def hold(self, tokens: int, cost: float, calls: int) -> None:
        self._hold_here(tokens, cost, calls)
        self._above.hold(*self._not_set_aside(tokens, cost), calls)

    def _not_set_aside(self, tokens: int, cost: float) -> tuple[int, float]:
        """What of this node is not set aside in the node above."""
        limits = self.limits
        return (0 if limits.tokens is not None else tokens, 0.0 if limits.cost_usd is not None else cost)


class SharingBudget(Budget):
    """The node of an agent that a pod has started: beside its own limits it draws on that pod's budget, call
    by call.
    """

    __slots__ = ()

    def _exceeded_above(
        self, tokens: int, cost: float, perhaps: Reservation | None, timed: bool
    ) -> Exceeded | None:
        above = (
            None if self.parent is None else self.parent.exceeded(tokens, cost, perhaps=perhaps, timed=timed)
        )
        return above._replace(whose="parent") if above is not None and above.whose == "pod" else above


def check_left(asked: BudgetSection, parent: Budget) -> None:
    """Refuse a sub-agent's budget that is larger than what its parent has left. Raises BudgetError."""
    if (over := parent.exceeded(asked.tokens or 0, asked.cost_usd or 0.0)) is not None:
        raise BudgetError(f"budget.{over.budget} is more than what is left of {over}")
    left = parent.seconds_left()
    if asked.seconds is not None and left is not None and asked.seconds > left:
        raise BudgetError(f"budget.seconds is more than the pod has left: {amount(left)} seconds")


def set_aside(asked: BudgetSection, parent: Budget | None) -> Budget | None:
    """The budget of a sub-agent that asked for ``asked``, or had it before a restart; None where nothing
    limits it.
    """
    if parent is None:
        return None if asked == BudgetSection() else Budget(asked)
    return ChildBudget(asked, parent)


class Totals:
    """What all pods of a system have consumed together; unknown stays None until something is known."""

    __slots__ = ("calls", "cost", "usage")

    def __init__(self) -> None:
        self.calls = 0
        self.usage = Usage()
        self.cost: float | None = None

    def __repr__(self) -> str:
        return f"Totals(calls={self.calls}, usage={self.usage!r}, cost={self.cost})"

    def count(self, usage: Usage | None, cost: float | None) -> None:
        """Add one call."""
        self.usage = usage or Usage() if self.calls == 0 else self.usage + (usage or Usage())
        self.calls += 1
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost
