"""The command ``python -m bench crash``: runs a campaign and prints its tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from bench.crash import campaign, faults, tables
from bench.crash.campaign import Outcome, Plan
from bench.crash.rounds import Round


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench crash",
        description="Kill processes full of pods, make their disks fail, and look for what they had told.",
    )
    parser.add_argument("--rounds", type=int, default=300, metavar="N", help="kills for each store (300)")
    parser.add_argument(
        "--fault-rounds",
        type=int,
        metavar="N",
        help="rounds for each store and fault (24, or --rounds if that is less)",
    )
    parser.add_argument("--store", action="append", choices=faults.STORES, help="only this one (repeatable)")
    parser.add_argument("--fault", action="append", choices=faults.FAULTS, help="only this one (repeatable)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what is left to chance (1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="rounds at the same time (2)")
    parser.add_argument("--json", action="store_true", help="print JSON lines for programs")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="also write the tables as Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run a campaign. Returns 0, or 1 if it found anything."""
    args = _arguments(arguments)
    fault_rounds = min(24, args.rounds) if args.fault_rounds is None else args.fault_rounds
    plan = Plan(
        stores=args.store or faults.STORES,
        rounds=args.rounds,
        fault_rounds=fault_rounds,
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
        counts = f"--rounds {args.rounds} --fault-rounds {fault_rounds} --seed {args.seed}"
        command = f"python -m bench crash {counts}"
        args.page.write_text("\n".join(tables.page(outcome, seconds, command)), encoding="utf-8")
    if args.json:
        _put_json(outcome)
    else:
        tables.show(outcome, seconds, Console(width=None if sys.stdout.isatty() else 180))
    return 1 if outcome.findings else 0


def _put_json(outcome: Outcome) -> None:
    for tally in outcome.tallies:
        print(tally.line().decode())
    for finding in outcome.findings:
        print(msgspec.json.encode(finding).decode())
