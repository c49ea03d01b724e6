"""The process under test: measures one case and prints its readings as one line of JSON."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Iterable

import msgspec

from bench.catalogue import claim
from bench.claim import Case
from bench.results import Effort, Reading


def measure(case: Case, effort: Effort) -> list[Reading]:
    """The median of each number over the rounds of one process, after a warm-up."""
    count = case.count(effort)
    case.measure(min(count, case.warm_up if case.warm_up is not None else max(1, count // 4)))
    rounds = 1 if effort == "tiny" else case.rounds
    return medians(_round(case, count) for _ in range(rounds))


def _round(case: Case, count: int) -> list[Reading]:
    gc.collect()  # so that this round does not clear away garbage of the last one
    return case.measure(count)


def medians(rounds: Iterable[list[Reading]]) -> list[Reading]:
    """The medians of all rounds, number by number."""
    return [_median(same) for same in zip(*rounds, strict=True)]


def _median(same: tuple[Reading, ...]) -> Reading:
    first = same[0]
    others = [reading.other for reading in same if reading.other is not None]
    return Reading(
        first.metric,
        first.unit,
        statistics.median(reading.value for reading in same),
        first.clock,
        statistics.median(others) if others else None,
    )


def main() -> None:
    """Measure the case that the arguments name."""
    parser = argparse.ArgumentParser(prog="bench.child", description=__doc__)
    parser.add_argument("claim")
    parser.add_argument("by")
    parser.add_argument("case")
    parser.add_argument("effort", choices=["full", "quick", "tiny"])
    args = parser.parse_args()
    case = claim(args.claim).find(args.case, args.by)
    sys.stdout.write(msgspec.json.encode(measure(case, args.effort)).decode() + "\n")


if __name__ == "__main__":
    main()
