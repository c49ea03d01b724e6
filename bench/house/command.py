"""``python -m bench house``: the structure in numbers, beside that of other packages."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import Counter
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.house.source import ClassShape, House, read_house
from bench.house.trace import Walk, walks
from bench.peers.catalogue import VENVS
from bench.root import ROOT


def main(arguments: list[str]) -> int:
    """Print the figures; 2 where a package is not found."""
    parser = argparse.ArgumentParser(prog="python -m bench house", description=__doc__)
    parser.add_argument("beside", nargs="*", metavar="PACKAGE", help="installed packages, or their folders")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--steps", action="store_true", help="also print every call of the traced runs")
    args = parser.parse_args(arguments)
    try:
        beside = {folder.name: read_house([folder]) for folder in map(_folder_of, args.beside)}
    except FileNotFoundError as missing:
        print(f"bench house: {missing}", file=sys.stderr)
        return 2
    houses = {"polypod": read_house(_own()), **beside}
    traced = walks()
    if args.json:
        shown = {"houses": houses, "walks": [_walk_data(walk) for walk in traced]}
        print(msgspec.json.encode(shown).decode())
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_house_table(houses))
    console.print(_walk_table(traced))
    if args.steps:
        for walk in traced:
            console.print(f"\n{walk.what}", style="bold")
            for step in walk.steps:
                console.print(f"  {step}", highlight=False)
    return 0


def _own() -> list[Path]:
    return [ROOT / name for name in ("protocol", "actors", "polypod") if (ROOT / name).is_dir()]


def _folder_of(name: str) -> Path:
    """The folder of a package: a path, one that is installed here, or one of a peer's environment."""
    if Path(name).is_dir():
        return Path(name).resolve()
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])
    for found in sorted(VENVS.glob(f"*/lib/python*/site-packages/{name}")):
        return found
    raise FileNotFoundError(
        f"no package {name!r} is installed here or among the peers, and there is no such folder"
    )


def _class_words(shape: ClassShape | None, number: int) -> str:
    return "-" if shape is None else f"{number} ({shape.name})"


def _house_table(houses: dict[str, House]) -> Table:
    table = Table(box=None, title="source", title_justify="left", title_style="bold")
    table.add_column("")
    for name in houses:
        table.add_column(name, justify="right")
    rows = {
        "modules, lines": [f"{house.modules}, {house.lines}" for house in houses.values()],
        "deepest class": [
            _class_words(h.deepest, h.deepest.depth if h.deepest else 0) for h in houses.values()
        ],
        "most methods": [
            _class_words(h.widest, h.widest.methods if h.widest else 0) for h in houses.values()
        ],
        "longest file": [f"{house.longest_file[1]}" for house in houses.values()],
        "longest function": [f"{house.longest_function[1]}" for house in houses.values()],
        "largest folder": [f"{house.largest_folders[0][1]}" for house in houses.values()],
        "circles, modules in them": [
            f"{len(house.circles)}, {sum(map(len, house.circles))}" for house in houses.values()
        ],
    }
    for label, cells in rows.items():
        table.add_row(label, *cells)
    return table


def _walk_table(traced: list[Walk]) -> Table:
    table = Table(box=None, title="traced", title_justify="left", title_style="bold")
    for heading in ("", "calls", "changes of file", "files", "called most"):
        table.add_column(heading, justify="left" if heading in {"", "called most"} else "right")
    for walk in traced:
        data = _walk_data(walk)
        most = ", ".join(
            f"{count}x {name.rpartition(':')[2]}" for name, count in Counter(walk.steps).most_common(3)
        )
        table.add_row(walk.what, str(data["calls"]), str(data["changes"]), str(data["files"]), most)
    return table


def _walk_data(walk: Walk) -> dict[str, int | str]:
    files = {step.partition(":")[0] for step in walk.steps}
    return {"what": walk.what, "calls": len(walk.steps), "changes": walk.changes, "files": len(files)}
