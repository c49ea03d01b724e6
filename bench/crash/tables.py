"""Prints the results of a campaign as tables for people, and as a page for a repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import machine
from bench.crash import faults
from bench.crash.campaign import Outcome
from bench.crash.tally import Tally
from bench.markdown import rows_of
from bench.table import machine_line

_PHASES = ("start", "stream", "tool", "compaction", "memory", "idle")
_KILLS = ("store", "rounds", *_PHASES, "reported", "looked for", "verified", "restored", "resumed",
          "tools run", "compactions", "findings")  # fmt: skip
_FAULTS = ("store", "fault", "rounds", "spells", "hits", "refused, typed", "alive after", "killed",
           "reported", "looked for", "restored", "tools run", "torn, cut off", "findings")  # fmt: skip
_TITLE_OF_KILLS = "kill -9: rounds, and how many kills caught a pod in each phase"
_TITLE_OF_FAULTS = "failing disks: what was refused, and what was left of it"

_HOW_TO_READ = """\
In each round a process with six pods works in a store that lives for eight rounds, and is killed with SIGKILL
at a moment by chance. Another process then looks for every event that a subscriber of the first had seen
(`reported`; `looked for` counts them again in each later round), checks every hash chain (`verified`
entries), every call and result against the file that the tools append to, and every compaction; in most
rounds it then restores all sessions (`restored`), resumes the runs that were interrupted (`resumed`) and
gives each session another run. Then every run, compaction, extraction and consolidation that began in a
session has its end, and every staged file an extraction that names it.
A finding is whatever is lost, changed, doubled, torn,
unanswered, unended, left over or bricked.

Faults: `cut`, no file may grow beyond a limit (short writes, EFBIG, SQLITE_IOERR_WRITE); `full`, a small
disk is full (ENOSPC, SQLITE_FULL); `gone`, the store's folder is moved away and put back; `eio`, what is
done to the store's files fails by chance with EIO or ENOSPC, writes after some bytes (`hits` counts that);
`log`, the write-ahead log of a SQLite store, its index or both are deleted at work; `swap`, a backup is put
in the place of the database or of sessions' files, by a rename or by copying over (what was reported since
may be gone; what is there must be sound and go on); `fork`, the process forks at work, and the child must be
refused what is its parent's. `refused, typed` are commands that failed with a StoreError behind them, as
they should; `alive after` are pods that took a run when the fault was over, of those given one; `torn, cut
off` are half-written batches at the end of a file that nobody has seen, which readers pass over and the
next claim cuts off. Every third process is killed within the faults; under `log` none, since what a deleted
log held is in no file any more."""


def show(outcome: Outcome, seconds: float, console: Console) -> None:
    """Print the results of a campaign that took so many seconds."""
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
        tally.reported,
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
        f"{tally.alive:,} of {tally.proven:,}",
        tally.kills,
        tally.reported,
        tally.looked_for,
        tally.restored,
        tally.tools,
        tally.torn,
        len(tally.findings),
    )


def _words(*cells: str | int) -> list[str]:
    return [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]


def page(outcome: Outcome, seconds: float, command: str) -> Iterator[str]:
    """The lines of the page; ``command`` is what made it."""
    yield "# The crash campaign\n"
    yield f"{machine_line(machine.described())}; `{command}`.\n"
    yield f"**{_summary(outcome, seconds)}.**\n"
    yield _HOW_TO_READ
    for title, headings, rows in _tables(outcome):
        yield f"\n## {title[0].upper()}{title[1:]}\n"
        yield from rows_of(headings, rows)
    for finding in outcome.findings:
        yield f"\nFinding: {'; '.join(finding.what)} (again: `{finding.repeat}`)"
    yield ""
