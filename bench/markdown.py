"""Writes a run as a Markdown page for the repository, with targets, floors, peers and missed targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from bench import catalogue, words
from bench.before import changes
from bench.peers.catalogue import REPEATS
from bench.ratios import ratios
from bench.results import Report, Row
from bench.table import in_order, machine_line

_HOW_TO_READ = """\
A number is the median of the repeats, with the least and the greatest beside it. Times are processor time of
the process under test, and so are rates of what one thread does without waiting; rates of what waits for
threads or for a disk are by the clock on the wall. The other clock stands beside. What was measured while
the machine ran slower than at its best was measured again. A *floor* is the least that the same thing can
cost. `x ours` says how many times polypod's cost a floor's or a peer's is: above 1 polypod is better, below 1
the other."""


def page(report: Report) -> str:
    """The text of the page."""
    return "\n".join(
        [
            *_opening(report),
            *_missed(report),
            *_before(report),
            *_peers(report),
            *_claims(report),
            *_failed(report),
        ]
    )


def _opening(report: Report) -> Iterator[str]:
    met = [row.met for row in report.rows if row.met is not None]
    yield f"# Results of the last run ({report.effort})"
    yield ""
    yield f"{machine_line(report.machine)}; {report.repeat} repeats, each in a fresh process, and"
    yield f"at most {REPEATS} of each peer."
    yield ""
    yield _HOW_TO_READ
    yield ""
    yield f"**{sum(met)} of {len(met)} targets met.** `python -m bench --peers` measures all of it again."


def rows_of(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _missed(report: Report) -> Iterator[str]:
    if not report.missed:
        return
    yield "\n## Targets missed\n"
    yield "[README.md](README.md) says why, row by row.\n"
    yield from rows_of(
        ("claim", "case", "metric", "measured", "target"),
        (
            (
                row.claim,
                row.case,
                row.metric,
                words.number(row.value.median, row.unit),
                "" if row.target is None else words.target(row.target, row.unit),
            )
            for row in report.missed
        ),
    )


def _before(report: Report) -> Iterator[str]:
    other = next((row.by for row in report.rows if row.kind == "before"), None)
    if other is None:
        return
    yield "\n## Before and after\n"
    yield f"Another checkout, {other}, in turns with this one; *same* lies within the noise of both.\n"
    yield from rows_of(
        ("claim", "case", "metric", "by", "before", "after", "times", ""), map(words.change, changes(report))
    )


def _peers(report: Report) -> Iterator[str]:
    found = ratios(report)
    if not found:
        return
    yield "\n## Beside the best peer\n"
    yield "The best of the peers in the same run, each at its best settings; the better one is named.\n"
    yield from rows_of(
        ("claim", "case", "metric", "polypod", "best peer", "", "better"),
        (
            (
                each.ours.claim,
                each.ours.case,
                each.ours.metric,
                words.number(each.ours.value.median, each.ours.unit),
                words.number(each.peer.value.median, each.peer.unit),
                each.peer.by,
                f"**{each.words}**" if each.words.startswith("PEER") else each.words,
            )
            for each in found
        ),
    )


def _claims(report: Report) -> Iterator[str]:
    for name, rows in groupby(report.rows, key=lambda row: row.claim):
        yield f"\n## {catalogue.claim(name).title}\n"
        yield from rows_of(
            ("case", "metric", "by", "median", "min .. max", "other clock", "x ours", "target", ""),
            map(_cells, in_order(list(rows))),
        )


def _cells(row: Row) -> Sequence[str]:
    return (
        row.case,
        row.metric,
        row.by if row.kind != "floor" else f"*floor: {row.by}*",
        words.number(row.value.median, row.unit),
        words.spread(row.value, row.unit),
        words.other(row),
        "" if row.times_ours is None else words.times(row.times_ours),
        "" if row.target is None else words.target(row.target, row.unit),
        words.verdict(row),
    )


def _failed(report: Report) -> Iterator[str]:
    if report.failed:
        yield "\n## Not measured\n"
        for each in report.failed:
            yield f"- {each.claim}, {each.case}, {each.by}: {each.why}"
    yield ""
