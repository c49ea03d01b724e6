"""Compare two runs: what changed beyond the noise that both have shown."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from bench.results import Report, Row, Spread

#: A difference below this share is no news, however steady both runs were.
LEAST_CHANGE = 0.03

Verdict = Literal["better", "worse", "same", "only in the first", "only in the second"]


#: How much wider than its repeats a range is taken to be, in widths to either side: few show too little.
_WIDER = {2: 1.0, 3: 0.5, 4: 0.25}
#: What one repeat alone may be off by, and any number that was set right by the machine's pace.
_UNSURE = 0.10, 0.05


class Change(Struct, frozen=True):
    """One row in two runs. ``times`` is the second median over the first, at the pace of the first."""

    claim: str
    case: str
    by: str
    metric: str
    verdict: Verdict
    before: Row | None
    after: Row | None
    times: float | None = None


def compare(before: Report, after: Report) -> list[Change]:
    """All rows of both runs; a change counts where it is beyond the noise of both.

    Ranges must not overlap, those of few repeats taken wider. What the clock on the wall says must show
    on the processor's clock too. Where the machine ran at another pace in the second run, its times are
    set right by that first.
    """
    old = {row.key: row for row in before.rows}
    new = {row.key: row for row in after.rows}
    changes = [_change(row, new.get(key)) for key, row in old.items()]
    added = [Change(*key, "only in the second", None, row) for key, row in new.items() if key not in old]
    return changes + added


def _change(old: Row, new: Row | None) -> Change:
    if new is None:
        return Change(*old.key, "only in the first", old, None)
    pace = old.pace / new.pace if old.pace and new.pace and old.clock is not None else 1.0
    scale = 1 / pace if old.unit == "/s" else pace
    times = new.value.median * scale / old.value.median if old.value.median else None
    return Change(*old.key, _verdict(old, new, times, scale), old, new, times)


def _verdict(old: Row, new: Row, times: float | None, scale: float) -> Verdict:
    if times is not None and abs(times - 1) < LEAST_CHANGE:
        return "same"
    moved = _moved(old.value, new.value, len(old.repeats), len(new.repeats), scale)
    if old.clock == "wall" and old.other is not None and new.other is not None:
        moved = moved and _moved(old.other, new.other, len(old.repeats), len(new.repeats), scale)
    if not moved:
        return "same"
    more = new.value.median * scale > old.value.median
    return "better" if more == (old.unit == "/s") else "worse"


def _moved(old: Spread, new: Spread, repeats_old: int, repeats_new: int, scale: float) -> bool:
    """Whether two spreads are apart, with what noise they may not have shown."""
    unsure = _UNSURE[1] if abs(scale - 1) > LEAST_CHANGE else 0.0
    low, high = _range(old, repeats_old, 0.0)
    new_low, new_high = _range(new, repeats_new, unsure)
    return new_low * scale > high or new_high * scale < low


def _range(value: Spread, repeats: int, unsure: float) -> tuple[float, float]:
    wider = (value.high - value.low) * _WIDER.get(repeats, 0.0)
    wider += abs(value.median) * (unsure + (_UNSURE[0] if repeats == 1 else 0.0))
    return value.low - wider, value.high + wider
