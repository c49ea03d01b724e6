"""Draws the results as an SVG chart: for each row with a target a dot, beside its floor and its peers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from bench import words
from bench.results import Report, Row

_LABELS = 480
_WIDTH = 1200
#: The width right of the scale, for the number itself.
_NUMBERS = 90
_LINE = 26
_TOP = 64
#: The scale reaches from a hundredth of the target to a hundred times the target.
_DECADES = 2.0
_COLOUR = {"ours": "#1f6feb", "floor": "#8b949e", "peer": "#d29922", "before": "#8250df"}
_STYLE = "text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}.q{fill:#57606a}"


def drawn(report: Report) -> str:
    """The chart as SVG text; left of the line is better than the target."""
    rows = [row for row in report.rows if row.target is not None]
    height = _TOP + _LINE * len(rows) + 30
    body = "".join([*_frame(height), *(mark for n, row in enumerate(rows) for mark in _row(n, row, report))])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _frame(height: int) -> Iterator[str]:
    yield '<text class="t" x="16" y="24">polypod, measured against its targets</text>'
    legend = (
        ("ours", "polypod", 0),
        ("floor", "floor: the least the same can cost", 90),
        ("peer", "other libraries", 330),
    )
    for kind, text, right in legend:
        x = _LABELS + right
        yield f'<circle cx="{x}" cy="20" r="5" fill="{_COLOUR[kind]}"/>'
        yield f'<text class="q" x="{x + 10}" y="24">{text}</text>'
    for power in range(-int(_DECADES), int(_DECADES) + 1):
        at = _x(10.0**power)
        line = "#cf222e" if power == 0 else "#d0d7de"
        name = "target" if power == 0 else f"{words.times(10.0**power)} cost"
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{height - 24}" stroke="{line}"/>'
        yield f'<text class="q" x="{at:.1f}" y="{_TOP - 14}" text-anchor="middle">{name}</text>'


def _x(cost: float) -> float:
    """The position of a cost that is so many times the target."""
    power = max(-_DECADES, min(_DECADES, math.log10(max(cost, 1e-9))))
    return _LABELS + (power + _DECADES) / (2 * _DECADES) * (_WIDTH - _LABELS - _NUMBERS - 30)


def _cost(value: float, row: Row) -> float:
    """A value in multiples of the target's cost; for rates, how many times fewer it reaches."""
    assert row.target is not None
    limit = row.target.limit
    if not limit or not value:
        return 1.0 if value <= limit else 100.0
    return limit / value if row.target.at_least else value / limit


def _row(number: int, row: Row, report: Report) -> Iterator[str]:
    y = _TOP + _LINE * number + 14
    note = "" if row.target is None else f"({words.target(row.target, row.unit)})"
    yield f'<text x="16" y="{y + 4}">{escape(f"{row.claim}: {row.case}, {row.metric}")}</text>'
    measured = words.number(row.value.median, row.unit)
    yield f'<text x="{_WIDTH - 12}" y="{y + 4}" text-anchor="end">{measured}</text>'
    ends = sorted(_x(_cost(value, row)) for value in (row.value.low, row.value.high))
    for other in report.rows:
        if other.kind != "ours" and (other.claim, other.case, other.metric) == (
            row.claim,
            row.case,
            row.metric,
        ):
            yield _dot(other, _cost(other.value.median, row), y)
    yield f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="#1f6feb" stroke-width="3"/>'
    yield _dot(row, _cost(row.value.median, row), y, note)


def _dot(row: Row, cost: float, y: int, note: str = "") -> str:
    title = escape(f"{row.by}: {words.number(row.value.median, row.unit)} {note}".strip())
    colour = _COLOUR[row.kind]
    return f'<circle cx="{_x(cost):.1f}" cy="{y}" r="5" fill="{colour}"><title>{title}</title></circle>'
