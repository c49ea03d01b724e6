"""The command ``python -m bench crash``: runs a campaign and prints its tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import machine
from bench.crash import campaign, faults
from bench.crash.campaign import Outcome, Plan
from bench.crash.rounds import Round
from bench.crash.tally import Tally
from bench.markdown import rows_of
from bench.table import machine_line

_PHASES = ("start", "stream", "tool", "compaction", "memory", "idle")
_KILLS = ("store", "rounds", *_PHASES, "told", "looked for", "verified", "restored", "resumed", "tools run",
          "compactions", "findings")  # fmt: skip
_FAULTS = ("store", "fault", "rounds", "spells", "hits", "refused, typed", "alive after", "killed", "told",
           "looked for", "restored", "tools run", "half-written", "findings")  # fmt: skip
_TITLE_OF_KILLS = "kill -9: rounds, and how many kills caught a pod in each phase"
_TITLE_OF_FAULTS = "failing disks: what was refused, and what was left of it"

HOW_TO_READ = """\
In each round a process with six pods works in a store that lives for eight rounds, and is killed with SIGKILL at
a moment by chance. Another process then looks for every event that a subscriber of the first had been told
(`told`; `looked for` counts them again in each later round), checks every hash chain (`verified` entries), every
call and result against the file that the tools append to, and every compaction; in most rounds it then restores
all sessions (`restored`), resumes the runs that were interrupted (`resumed`) and gives each session another run.
A finding is whatever is lost, changed, doubled, torn, unanswered or bricked.

Faults: `cut` no file may grow beyond a limit (short writes, EFBIG, SQLITE_IOERR_WRITE), `full` a small disk that
is full (ENOSPC, SQLITE_FULL), `gone` the store's folder is moved away and put back, `eio` the operations of the
store's files fail by chance with EIO or ENOSPC, writes after some bytes (`hits` counts those). `refused, typed`
are commands that failed with a StoreError behind them, as they should; `alive after` are pods that took a run
when the fault was over, of those that had to; every third process is killed in the middle of a fault as well."""


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench crash",
        description="Kill processes full of pods, make their disks fail, and look for what they had told.",
    )
    parser.add_argument("--rounds", type=int, default=300, metavar="N", help="kills for each store (300)")
    parser.add_argument(
        "--fault-rounds", type=int, default=24, metavar="N", help="rounds for each store and fault (24)"
    )
    parser.add_argument("--store", action="append", choices=faults.STORES, help="only this one (repeatable)")
    parser.add_argument("--fault", action="append", choices=faults.FAULTS, help="only this one (repeatable)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what is left to chance (1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="rounds at the same time (2)")
    parser.add_argument("--json", action="store_true", help="print JSON lines for programs")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="also write the tables as Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run a campaign; 0, or 1 if it found anything."""
    args = _arguments(arguments)
    plan = Plan(
        stores=args.store or faults.STORES,
        rounds=args.rounds,
        fault_rounds=args.fault_rounds,
        faults=args.fault or faults.FAULTS,
        seed=args.seed,
        jobs=args.jobs,
    )
    started = time.monotonic()
    with Console(stderr=True).status("") as status:
        count = 0

        def tell(each: Round) -> None:
            nonlocal count
            count += 1
            status.update(Text(f"round {count}: {each.store}, {each.fault or 'kill -9'}"))

        outcome = campaign.run(plan, tell)
    seconds = time.monotonic() - started
    if args.page is not None:
        command = " ".join(["python -m bench crash", *_without_page(arguments)])
        args.page.write_text("\n".join(_page(outcome, seconds, command)), encoding="utf-8")
    if args.json:
        _put_json(outcome)
    else:
        _show(outcome, seconds, Console(width=None if sys.stdout.isatty() else 180))
    return 1 if outcome.findings else 0


def _without_page(arguments: Sequence[str]) -> list[str]:
    return [
        each
        for number, each in enumerate(arguments)
        if each != "--page" and (number == 0 or arguments[number - 1] != "--page")
    ]


def _put_json(outcome: Outcome) -> None:
    for tally in outcome.tallies:
        print(tally.line().decode())
    for finding in outcome.findings:
        print(msgspec.json.encode(finding).decode())


def _show(outcome: Outcome, seconds: float, console: Console) -> None:
    for title, headings, rows in _tables(outcome):
        table = Table(title=title, title_justify="left", title_style="bold", box=None)
        for number, heading in enumerate(headings):
            table.add_column(heading, header_style="dim", justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(Text(_summary(outcome, seconds), "bold red" if outcome.findings else "green"))
    for kind in outcome.left_out:
        console.print(Text(f"left out: {kind}, which needs the right to mount a small disk", "dim"))
    for finding in outcome.findings:
        for what in finding.what:
            console.print(Text(what, "red"))
        console.print(Text(f"  kept in {finding.folder}\n  again:  {finding.repeat}"))


def _summary(outcome: Outcome, seconds: float) -> str:
    rounds = sum(tally.rounds for tally in outcome.tallies)
    findings = sum(len(finding.what) for finding in outcome.findings)
    return f"{rounds} rounds in {seconds:.0f} seconds ({rounds / seconds:.1f} a second), {findings} findings"


def _tables(outcome: Outcome) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    kills = [_kill_row(tally) for tally in outcome.tallies if tally.fault is None]
    if kills:
        yield _TITLE_OF_KILLS, _KILLS, kills
    failing = [_fault_row(tally) for tally in outcome.tallies if tally.fault is not None]
    if failing:
        yield _TITLE_OF_FAULTS, _FAULTS, failing


def _kill_row(tally: Tally) -> list[str]:
    phases = [tally.killed_in.get(phase, 0) for phase in _PHASES]
    return _words(
        tally.store,
        tally.rounds,
        *phases,
        tally.told,
        tally.looked_for,
        tally.verified,
        tally.restored,
        tally.resumed,
        tally.tools,
        tally.compacted,
        len(tally.findings),
    )


def _fault_row(tally: Tally) -> list[str]:
    counted = tally.fault == faults.FailingFiles.name
    return _words(
        tally.store,
        str(tally.fault),
        tally.rounds,
        tally.spells,
        tally.hits if counted else "",
        tally.refused,
        f"{tally.alive:,} of {tally.alive_wanted:,}",
        tally.kills,
        tally.told,
        tally.looked_for,
        tally.restored,
        tally.tools,
        tally.torn,
        len(tally.findings),
    )


def _words(*cells: str | int) -> list[str]:
    return [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]


def _page(outcome: Outcome, seconds: float, command: str) -> Iterator[str]:
    yield "# The crash campaign\n"
    yield f"{machine_line(machine.described())}; `{command}`.\n"
    yield f"**{_summary(outcome, seconds)}.**\n"
    yield HOW_TO_READ
    for title, headings, rows in _tables(outcome):
        yield f"\n## {title[0].upper()}{title[1:]}\n"
        yield from rows_of(headings, rows)
    for finding in outcome.findings:
        yield f"\nFinding: {'; '.join(finding.what)} (again: `{finding.repeat}`)"
    yield ""
