"""``Claim`` and ``Case``: what is measured, how much of it, and the targets it has to meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from bench.results import Effort, Kind, Reading, Target

#: Does the work ``count`` times, and returns its numbers.
Measure = Callable[[int], list[Reading]]


class Case(Struct, frozen=True):
    """One thing to measure, in a process of its own: once to warm up, then ``rounds`` times.

    ``by`` is the library that does the work; ``full``, ``quick`` and ``tiny`` are the counts for each effort.
    A case whose memory is measured has one round, and warms up with ``warm_up`` operations.
    """

    name: str
    by: str
    kind: Kind
    measure: Measure
    full: int
    quick: int
    tiny: int
    rounds: int
    warm_up: int | None
    targets: Mapping[str, Target]

    def count(self, effort: Effort) -> int:
        """How many operations a round has."""
        return {"full": self.full, "quick": self.quick, "tiny": self.tiny}[effort]


class Claim:
    """A statement about one part of polypod, and the cases that prove it."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.cases: list[Case] = []

    def case(
        self,
        name: str,
        *,
        by: str = "polypod",
        kind: Kind = "ours",
        full: int,
        quick: int,
        tiny: int = 2,
        rounds: int = 3,
        warm_up: int | None = None,
        targets: Mapping[str, Target] | None = None,
    ) -> Callable[[Measure], Measure]:
        """Make a function a case of this claim."""

        def made(measure: Measure) -> Measure:
            case = Case(name, by, kind, measure, full, quick, tiny, rounds, warm_up, targets or {})
            self.cases.append(case)
            return measure

        return made

    def find(self, name: str, by: str) -> Case:
        """The case with that name, done by that library. Raises KeyError."""
        for case in self.cases:
            if (case.name, case.by) == (name, by):
                return case
        raise KeyError(f"claim {self.name} has no case {name!r} by {by!r}")


def at_most(limit: float) -> Target:
    """A target: a number that must not be greater, in the metric's own unit (seconds, bytes)."""
    return Target(limit)


def at_least(limit: float) -> Target:
    """A target: a number that must not be smaller."""
    return Target(limit, at_least=True)


def at_most_times(times: float, floor: str) -> Target:
    """A target: a number that must not be greater than so many times what ``floor`` takes for the same case
    in the same run.
    """
    return Target(0.0, floor=floor, times=times)
