"""Prints results as tables for people: claims, cases, floors and peers, with targets and whether they are
met.
"""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import catalogue, words
from bench.before import changes
from bench.compare import Change
from bench.ratios import Ratio, ratios
from bench.results import Machine, Report, Row

_VERDICT_STYLE = {True: "green", False: "bold red", None: ""}
_CHANGE_STYLE = {"better": "green", "worse": "bold red"}


def show(report: Report, console: Console) -> None:
    """Print a run."""
    show_opening(report, console)
    show_claims(report, console)
    show_end(report, console)


def show_opening(report: Report, console: Console) -> None:
    """Print what a run is run on."""
    repeats = "1 repeat" if report.repeat == 1 else f"{report.repeat} repeats"
    console.print(Text(machine_line(report.machine) + f"; {report.effort}, {repeats}"))


def show_claims(report: Report, console: Console) -> None:
    """Print the tables of a run, or of a part of it, and what could not be measured."""
    for name, rows in groupby(report.rows, key=lambda row: row.claim):
        console.print(table_of(name, list(rows)))
    for failed in report.failed:
        console.print(Text(f"not measured: {failed.claim}, {failed.case}, {failed.by}: {failed.why}", "red"))


def show_end(report: Report, console: Console) -> None:
    """Print the summary of a whole run."""
    found = ratios(report)
    if found:
        console.print(_table_of_ratios(found))
    if any(row.kind == "before" for row in report.rows):
        console.print(_table_of_changes("before and after", changes(report)))
    met = [row.met for row in report.rows if row.met is not None]
    console.print(Text(f"{sum(met)} of {len(met)} targets met"))


def machine_line(machine: Machine) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{machine.cores} cores, {machine.system}, {machine.python}, {versions}"


def table_of(name: str, rows: list[Row]) -> Table:
    """The table of one claim; the cases of floors and peers are below ours."""
    table = Table(title=catalogue.claim(name).title, title_justify="left", title_style="bold", box=None)
    for heading in ("case", "metric", "by"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for heading in ("median", "min .. max", "other clock", "x ours", "target"):
        table.add_column(heading, justify="right", header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True)
    last = ("", "")
    for row in in_order(rows):
        table.add_row(*_cells(row, last), style="" if row.kind == "ours" else "dim")
        last = (row.case, row.metric)
    return table


def in_order(rows: list[Row]) -> list[Row]:
    """The rows by case and metric, ours first, then floors and peers."""
    cases = {row.case: number for number, row in reversed(list(enumerate(rows)))}
    metrics = {row.metric: number for number, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (cases[row.case], metrics[row.metric]))


def _cells(row: Row, last: tuple[str, str]) -> list[Text | str]:
    return [
        row.case if row.case != last[0] else "",
        row.metric if (row.case, row.metric) != last else "",
        row.by if row.kind != "floor" else f"floor: {row.by}",
        words.number(row.value.median, row.unit),
        words.spread(row.value, row.unit),
        words.other(row),
        "" if row.times_ours is None else words.times(row.times_ours),
        "" if row.target is None else words.target(row.target, row.unit),
        Text(words.verdict(row), _VERDICT_STYLE[row.met]),
    ]


def _table_of_ratios(found: list[Ratio]) -> Table:
    """Polypod beside the best of its peers, whichever is better."""
    table = Table(title="beside the best peer", title_justify="left", title_style="bold", box=None)
    for heading in ("claim", "case", "metric"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for heading in ("polypod", "best peer"):
        table.add_column(heading, justify="right", header_style="dim", no_wrap=True)
    table.add_column("", header_style="dim")
    table.add_column("better", header_style="dim", no_wrap=True)
    for each in found:
        table.add_row(
            each.ours.claim,
            each.ours.case,
            each.ours.metric,
            words.number(each.ours.value.median, each.ours.unit),
            words.number(each.peer.value.median, each.peer.unit),
            each.peer.by,
            Text(each.words, "" if each.times >= 1 else "bold red"),
        )
    return table


def show_changes(found: list[Change], console: Console) -> None:
    """Print how two runs differ, and how much they agree on."""
    changed = [change for change in found if change.verdict != "same"]
    if changed:
        console.print(_table_of_changes(None, changed))
    console.print(Text(f"{len(found) - len(changed)} of {len(found)} rows are the same within their spread"))


def _table_of_changes(title: str | None, found: list[Change]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for heading in ("claim", "case", "metric", "by"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for heading in ("before", "after", "times"):
        table.add_column(heading, justify="right", header_style="dim")
    table.add_column("")
    for change in found:
        *cells, verdict = words.change(change)
        table.add_row(*cells, Text(verdict, _CHANGE_STYLE.get(verdict, "")))
    return table
