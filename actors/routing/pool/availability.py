"""``Availability``: how many more jobs each runner may take, and until when a rate-limited one takes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from actors.routing.pool.endings import Outcome, limited_until, rest_after
from actors.routing.pool.scheduling import RunnerState
from protocol.routing import SystemStatus


class Availability:
    """The runners of one pool. ``active`` is how many jobs each has, as was seen last."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.active: dict[str, int] = {}
        self._limits = limits
        #: Until when each rests, and how many seconds it was to at most: the clock may be set back.
        self._resting: dict[str, float] = {}
        self._rests: dict[str, float] = {}
        #: How often each died in a row.
        self._deaths: Counter[str] = Counter()

    def states(self) -> dict[str, RunnerState]:
        """The runners, without what they do now."""
        resting = self._resting
        return {name: RunnerState(limit, 0, resting.get(name, 0.0)) for name, limit in self._limits.items()}

    def status(self, now: float) -> SystemStatus:
        """The status in the form that a classifier gets."""
        active = {name: self.active.get(name, 0) for name in self._limits}
        return SystemStatus(active_tasks=active, rate_limited=self._resting_at(now))

    def _resting_at(self, now: float) -> dict[str, float]:
        longest = self._rests
        return {name: min(until, now + longest[name]) for name, until in self._resting.items() if until > now}

    def why_not(self, agent: str, now: float) -> str | None:
        """Why a runner can take no job; None if it can, once it has room."""
        if agent not in self._limits:
            return "is not a runner of the pool"
        return "is rate-limited right now" if self._resting.get(agent, 0.0) > now else None

    def wake(self, now: float) -> bool:
        """Whether any runner that rested takes jobs again."""
        resting, self._resting = self._resting, self._resting_at(now)
        return len(self._resting) < len(resting)

    def note(self, agent: str, outcome: Outcome, now: float) -> tuple[bool, bool]:
        """Whether the runner is limited, by what came of a job, and whether it rests: for that, or since it
        died again and again.
        """
        until = limited_until(outcome, now)
        limited = until is not None
        if outcome.kind == "died":
            self._deaths[agent] += 1
            until = until or rest_after(self._deaths[agent], now)
        elif outcome.kind != "cancelled" and not limited:
            self._deaths.pop(agent, None)
        if until is not None:
            self._resting[agent] = until = max(until, self._resting_at(now).get(agent, 0.0))
            self._rests[agent] = until - now
        return limited, until is not None
