"""Compare two runs: what changed beyond the noise that both have shown."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from bench.results import Report, Row

#: A difference below this share is no news, however steady both runs were.
LEAST_CHANGE = 0.03

Verdict = Literal["better", "worse", "same", "only in the first", "only in the second"]


class Change(Struct, frozen=True):
    """One row in two runs. ``times`` is the second median over the first."""

    claim: str
    case: str
    by: str
    metric: str
    verdict: Verdict
    before: Row | None
    after: Row | None
    times: float | None = None


def compare(before: Report, after: Report) -> list[Change]:
    """All rows of both runs; a change counts where the ranges of the repeats do not overlap."""
    old = {row.key: row for row in before.rows}
    new = {row.key: row for row in after.rows}
    changes = [_change(row, new.get(key)) for key, row in old.items()]
    added = [Change(*key, "only in the second", None, row) for key, row in new.items() if key not in old]
    return changes + added


def _change(old: Row, new: Row | None) -> Change:
    if new is None:
        return Change(*old.key, "only in the first", old, None)
    times = new.value.median / old.value.median if old.value.median else None
    return Change(*old.key, _verdict(old, new, times), old, new, times)


def _verdict(old: Row, new: Row, times: float | None) -> Verdict:
    apart = new.value.low > old.value.high or new.value.high < old.value.low
    if not apart or (times is not None and abs(times - 1) < LEAST_CHANGE):
        return "same"
    more = new.value.median > old.value.median
    return "better" if more == (old.unit == "/s") else "worse"
