"""Compares polypod with the best of its peers, row by row, whichever is better; pure."""

from __future__ import annotations

from msgspec import Struct

from bench.compare import LEAST_CHANGE
from bench.results import Report, Row

#: Numbers that say what was kept or loaded, and are not compared.
_NO_CONTEST = frozenset(
    {"modules loaded", "heavy modules loaded", "events kept", "memory of the process", "stops"}
)


class Ratio(Struct, frozen=True):
    """One number beside the best peer's; ``times`` above 1 means that polypod is so many times better."""

    ours: Row
    peer: Row
    times: float

    @property
    def words(self) -> str:
        """Which is better, in words."""
        if abs(self.times - 1) < LEAST_CHANGE:
            return "alike"
        if self.times >= 1:
            return f"polypod {_times(self.times)}"
        return f"PEER {_times(1 / self.times)}"


def _times(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x"


def ratios(report: Report) -> list[Ratio]:
    """Every row of ours that a peer has too, beside the best of them."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in report.rows:
        key = (row.claim, row.case, row.metric)
        if row.kind == "peer" and row.times_ours is not None and _better(row, best.get(key)):
            best[key] = row
    found = []
    for row in report.rows:
        peer = best.get((row.claim, row.case, row.metric))
        if row.kind == "ours" and row.metric not in _NO_CONTEST and peer is not None:
            assert peer.times_ours is not None
            found.append(Ratio(row, peer, peer.times_ours))
    return found


def _better(row: Row, than: Row | None) -> bool:
    if than is None:
        return True
    assert row.times_ours is not None
    assert than.times_ours is not None
    return row.times_ours < than.times_ours
