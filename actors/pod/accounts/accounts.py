"""``Accounts``: what a pod has used up in tokens, US dollars and time."""

from __future__ import annotations

import time
from typing import Any

from actors.pod.accounts.budget import Budget
from actors.pod.accounts.spending import Spending
from actors.pod.accounts.spent import Spent
from actors.sessions.head import SessionHead
from actors.sessions.replay import Replayed
from protocol.routing import AttemptRecord
from protocol.usage import Usage

#: Of one run: its steps, what it used up in tokens and US dollars, and the tiers that it has asked.
Figures = tuple[int, Usage | None, float | None, tuple[AttemptRecord, ...]]


class Accounts:
    """The usage and cost of all of a pod's calls, the length of its ended runs, and the figures of its open
    run.

    ``usage`` and ``cost`` (US dollars) are None where nothing is known; ``seconds`` sums the runs that have
    ended; ``steps`` counts the requests of the current run, or of the run that a restored session left open;
    ``run_usage`` and ``run_cost`` are what that run used up, its compactions included.
    """

    __slots__ = (
        "_budget",
        "_held_at",
        "_started_at",
        "cost",
        "earlier_attempts",
        "run_cost",
        "run_usage",
        "seconds",
        "steps",
        "usage",
    )

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self.usage: Usage | None = None
        self.cost: float | None = None
        self.seconds = 0.0
        self.steps = 0
        #: What came of the tiers that the open run asked before its session was restored.
        self.earlier_attempts: tuple[AttemptRecord, ...] = ()
        self.run_usage: Usage | None = None
        self.run_cost: float | None = None
        #: ``time.monotonic()`` of when the run that goes on began; None where none does.
        self._started_at: float | None = None
        #: Since when its time does not count; None where it does.
        self._held_at: float | None = None

    def take_over(self, state: Replayed) -> None:
        """Take over what the pod used up in earlier lives, as a restored session records it."""
        self.steps, self.earlier_attempts = state.open_steps, state.open_attempts
        self.usage, self.cost, self.seconds = state.usage, state.cost, state.seconds
        if self._budget is not None:
            self._budget.carry(state.usage or Usage(), state.cost, state.seconds)

    def carried(self, head: SessionHead) -> dict[str, Any]:
        """What a session that takes the place of this one inherits."""
        return {
            "steps": self.steps,
            "usage": self.usage,
            "cost": self.cost,
            "seconds": self.seconds,
            "run_seconds": self.run_seconds(head),
        }

    def begin_run(self) -> Figures:
        """Start counting for a new run, which has used up nothing yet; returns the figures of the last."""
        last = self.steps, self.run_usage, self.run_cost, self.earlier_attempts
        self.go_back((0, None, None, ()))
        self._started_at = time.monotonic()
        return last

    def go_back(self, figures: Figures) -> None:
        """Count for the run that has these figures."""
        self.steps, self.run_usage, self.run_cost, self.earlier_attempts = figures

    def count(self, usage: Usage | None, cost: float | None) -> None:
        """Add what one request of the run used up."""
        used = usage or Usage()
        self.run_usage = used if self.run_usage is None else self.run_usage + used
        self.usage = used if self.usage is None else self.usage + used
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost
            self.run_cost = cost if self.run_cost is None else self.run_cost + cost

    def count_helper(self, spending: Spending | None, *, in_run: bool = False) -> Spent:
        """Add, once, what a helper agent's calls used up; also to the open run where they are part of it. The
        event of the helper's end carries the sum.
        """
        if spending is None:
            return Spent()
        spent = spending.spent
        if not spending.counted:
            spending.counted = True
            used = spent.usage
            if used is not None:
                self.usage = used if self.usage is None else self.usage + used
            if in_run and used is not None:
                self.run_usage = used if self.run_usage is None else self.run_usage + used
            if (cost := spent.cost) is not None:
                self.cost = cost if self.cost is None else self.cost + cost
                if in_run:
                    self.run_cost = cost if self.run_cost is None else self.run_cost + cost
        return spent

    # -- time ------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Start the clock again for a run that was paused."""
        self._started_at = time.monotonic()

    def stop_clock(self) -> float:
        """Stop the clock at the end of a run; returns its seconds, and 0 when it is stopped already."""
        if self._started_at is None:
            return 0.0
        seconds = time.monotonic() - self._started_at
        self._started_at = None
        self.seconds += seconds
        if self._budget is not None:
            self._budget.spend_seconds(seconds)
        return seconds

    def run_seconds(self, head: SessionHead) -> float:
        """How long the open run has taken, including the time that the log records of it."""
        if self._started_at is None or head.open_run is None:
            return 0.0
        return (self._held_at or time.monotonic()) - self._started_at

    def hold_clock(self) -> None:
        """Stop counting the time of the run until ``release_clock``."""
        self._held_at = time.monotonic()

    def release_clock(self) -> float:
        """Count the time of the run again; returns how long it was held, in seconds."""
        if self._held_at is None or self._started_at is None:
            return 0.0
        held = time.monotonic() - self._held_at
        self._started_at += held
        self._held_at = None
        return held
