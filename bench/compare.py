"""Compares two runs of the bench: what changed by more than the noise in either."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from bench.results import Report, Row, Spread

#: A smaller difference never counts, however steady both runs were.
LEAST_CHANGE = 0.03

Verdict = Literal["better", "worse", "same", "only in the first", "only in the second"]


#: How many widths a range is extended to either side, by its number of repeats: few repeats show too small a
#: range.
_WIDER = {2: 1.0, 3: 0.5, 4: 0.25}
#: The possible error of a single repeat, and of a number that was corrected by the machine's pace.
_UNSURE = 0.10, 0.05


class Change(Struct, frozen=True):
    """One row in two runs. ``times`` is the second median divided by the first, as measured."""

    claim: str
    case: str
    by: str
    metric: str
    verdict: Verdict
    before: Row | None
    after: Row | None
    times: float | None = None


def compare(before: Report, after: Report) -> list[Change]:
    """All rows of both runs; a change counts only beyond the noise of both.

    The ranges must not overlap, and those of few repeats are extended. A change on the wall clock must also
    show on the processor's. If the machine ran at another pace in the second run, the change must show both
    as measured and with the times corrected by the pace, which was taken around the work and not during it.
    """
    old = {row.key: row for row in before.rows}
    new = {row.key: row for row in after.rows}
    changes = [_change(row, new.get(key)) for key, row in old.items()]
    added = [Change(*key, "only in the second", None, row) for key, row in new.items() if key not in old]
    return changes + added


def _change(old: Row, new: Row | None) -> Change:
    if new is None:
        return Change(*old.key, "only in the first", old, None)
    times = new.value.median / old.value.median if old.value.median else None
    pace = old.pace / new.pace if old.pace and new.pace and old.clock is not None else 1.0
    scales = {1.0, 1 / pace if old.unit == "/s" else pace}
    values = [(old.value, new.value)]
    if old.clock == "wall" and old.other is not None and new.other is not None:
        values.append((old.other, new.other))
    moves = {_moved(*each, old, new, scale) for each in values for scale in scales}
    moved = moves.pop() if len(moves) == 1 else 0
    verdict: Verdict = "same" if not moved else "better" if (moved > 0) == (old.unit == "/s") else "worse"
    return Change(*old.key, verdict, old, new, times)


def _moved(before: Spread, after: Spread, old: Row, new: Row, scale: float) -> int:
    """Up (1), down (-1) or neither (0), beyond the noise that was seen and that may have gone unseen."""
    if before.median and abs(after.median * scale / before.median - 1) < LEAST_CHANGE:
        return 0
    low, high = _range(before, len(old.repeats), 0.0)
    unsure = _UNSURE[1] if abs(scale - 1) > LEAST_CHANGE else 0.0
    new_low, new_high = _range(after, len(new.repeats), unsure)
    return 1 if new_low * scale > high else -1 if new_high * scale < low else 0


def _range(value: Spread, repeats: int, unsure: float) -> tuple[float, float]:
    wider = (value.high - value.low) * _WIDER.get(repeats, 0.0)
    wider += abs(value.median) * (unsure + (_UNSURE[0] if repeats == 1 else 0.0))
    return value.low - wider, value.high + wider
