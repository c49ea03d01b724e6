"""Formats numbers for people; pure."""

from __future__ import annotations

from bench.compare import Change
from bench.results import Row, Spread, Target, Unit

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))
_RATES = ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s"))


def number(value: float, unit: Unit) -> str:
    """``12.3 us``, ``3.21 KB``, ``82.1k/s``, ``7``."""
    if unit == "s":
        return _scaled(value, _TIMES, " ")
    if unit == "B":
        return _scaled(value, _BYTES, " ")
    if unit == "/s":
        return _scaled(value, _RATES, "")
    return f"{value:g}"


def _scaled(value: float, scale: tuple[tuple[float, str], ...], gap: str) -> str:
    for size, name in scale:
        if abs(value) >= size:
            return f"{_three(value / size)}{gap}{name}"
    size, name = scale[-1]
    return f"{_three(value / size)}{gap}{name}"


def _three(value: float) -> str:
    """A number with three significant digits."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(value: Spread, unit: Unit) -> str:
    """``11.9 .. 12.8 us``, from the least to the greatest."""
    if value.low == value.high:
        return ""
    return f"{number(value.low, unit)} .. {number(value.high, unit)}"


def target(wanted: Target, unit: Unit) -> str:
    """``<= 40.0 us``, or ``<= 1.5x sockets, 60.0 us``."""
    share = "" if wanted.times is None else f"{times(wanted.times)} {wanted.floor}, "
    return f"{'>=' if wanted.at_least else '<='} {share}{number(wanted.limit, unit)}"


def times(value: float) -> str:
    """``12x``, ``0.04x``."""
    return f"{_three(value)}x" if value >= 0.1 else f"{value:.2g}x"


def other(row: Row) -> str:
    """The number by the other clock: ``12.4 us wall``."""
    if row.other is None:
        return ""
    return f"{number(row.other.median, row.unit)} {'wall' if row.clock == 'cpu' else 'cpu'}"


def verdict(row: Row) -> str:
    """Whether a row meets its target; empty if it has none."""
    return {True: "met", False: "MISSED", None: ""}[row.met]


def change(of: Change) -> tuple[str, ...]:
    """A row in two runs: claim, case, metric and library; before, after and how many times; the verdict."""

    def side(row: Row | None) -> str:
        return "" if row is None else number(row.value.median, row.unit)

    ratio = "" if of.times is None else f"{of.times:.2f}"
    return of.claim, of.case, of.metric, of.by, side(of.before), side(of.after), ratio, of.verdict
