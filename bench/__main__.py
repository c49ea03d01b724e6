"""The command ``python -m bench``: measures claims, and prints and keeps the results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench import catalogue, chart, markdown, quotes, table
from bench.before import Checkout
from bench.compare import compare
from bench.crash import command as crash
from bench.house import command as house
from bench.results import Report, read_report
from bench.running import claim_by_claim, joined


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure polypod's claims, each beside its floor: the least that the same can cost.",
        epilog="python -m bench crash: kill processes full of pods and look for what they had told; "
        "python -m bench house: the structure of the code in numbers; "
        "python -m bench quotes: the figures in the README and the docs as bench/RESULTS.md has them.",
    )
    parser.add_argument("names", nargs="*", metavar="CLAIM", help="claims to measure (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON lines for programs")
    parser.add_argument(
        "--quick", action="store_true", help="less work and fewer repeats: to see, not to quote"
    )
    parser.add_argument(
        "--repeat", type=int, metavar="N", help="fresh processes for each case (default: 5, quick 3)"
    )
    parser.add_argument("--peers", action="store_true", help="beside the other libraries that are installed")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="in turns with another checkout of polypod; both in one table",
    )
    parser.add_argument("--list", action="store_true", help="list the claims and their cases")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also keep the run as JSON lines")
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="also write the run as a page in Markdown"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="also draw the rows that have targets")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="what changed between two runs kept",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the bench. Returns 0, 2 for bad input, 130 if interrupted. ``crash`` runs the crash campaign (1 if
    it found anything), ``house`` measures the structure of the code, and ``quotes`` writes the tables of
    figures in other pages.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["crash"]:
        return crash.main(given[1:])
    if given[:1] == ["house"]:
        return house.main(given[1:])
    if given[:1] == ["quotes"]:
        return quotes.main()
    args = _arguments(given)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if args.compare:
            table.show_changes(compare(*map(read_report, args.compare)), console)
        elif args.list:
            _list(console)
        else:
            _measure(args, console)
    except (KeyError, ValueError, OSError) as error:
        reported = error.args[0] if isinstance(error, KeyError) else error
        print(f"bench: {reported}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def _list(console: Console) -> None:
    for name in catalogue.names():
        claim = catalogue.claim(name)
        console.print(Text(f"{name:<11} {claim.title}", "bold"))
        for case in claim.cases:
            console.print(Text(f"  {case.name}, {case.by}"))


def _measure(args: argparse.Namespace, console: Console) -> None:
    repeat = args.repeat or (3 if args.quick else 5)
    with Console(stderr=True).status("") as status:  # shown only at a terminal
        parts: list[Report] = []
        for part in claim_by_claim(
            args.names,
            effort="quick" if args.quick else "full",
            repeat=repeat,
            peers=args.peers,
            before=args.before and Checkout.at(args.before),
            tell=lambda claim, case, turn: status.update(Text(f"{turn}/{repeat} {claim}: {case}")),
        ):
            status.stop()
            _part(part, args, console, first=not parts)
            parts.append(part)
            status.start()
    report = joined(parts)
    if not args.json:
        table.show_end(report, console)
    if args.page is not None:
        args.page.write_text(markdown.page(report), encoding="utf-8")
        if args.page.resolve() == quotes.RESULTS:
            quotes.write()
    if args.chart is not None:
        args.chart.write_text(chart.drawn(report), encoding="utf-8")


def _part(part: Report, args: argparse.Namespace, console: Console, *, first: bool) -> None:
    """Show and keep a claim as soon as it is measured, so that a long run can be stopped without losing what
    it has.
    """
    lines = b"".join(line + b"\n" for line in (part.lines() if first else part.body()))
    if args.save is not None:
        with args.save.open("wb" if first else "ab") as kept:
            kept.write(lines)
    if args.json:
        sys.stdout.write(lines.decode())
    else:
        if first:
            table.show_opening(part, console)
        table.show_claims(part, console)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
