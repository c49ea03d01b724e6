"""Measures another checkout of polypod in turns with this one, so that both are in one table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from bench.claim import Claim
from bench.compare import Change, compare
from bench.jobs import Job
from bench.results import Effort, Kind, Report


class Checkout(NamedTuple):
    """A folder with another version of polypod, with its own bench."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Checkout:
        """The checkout in a folder. Raises ValueError if there is none."""
        if not (folder / "bench" / "child.py").is_file() or not (folder / "actors").is_dir():
            raise ValueError(f"{folder} is not a checkout of polypod with a bench")
        return cls(folder.resolve())

    @property
    def version(self) -> str:
        """Its commit, if git knows it; otherwise the folder's name."""
        command = ["git", "-C", str(self.folder), "describe", "--always", "--dirty"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.stdout.strip() or self.folder.name

    def jobs(self, claim: Claim, effort: Effort) -> list[Job]:
        """Its cases with the same names, run by its own bench, on this interpreter with the same
        libraries.
        """
        by = f"before ({self.version})"
        return [
            Job(
                claim.name,
                case.name,
                by,
                "before",
                (sys.executable, "-m", "bench.child", claim.name, case.by, case.name, effort),
                root=self.folder,
            )
            for case in claim.cases
            if case.kind == "ours"
        ]


def changes(report: Report) -> list[Change]:
    """The changes from the other checkout to this one, in a run of both."""
    return compare(_alone(report, "before"), _alone(report, "ours"))


def _alone(report: Report, kind: Kind) -> Report:
    rows = [replace(row, by="polypod", kind="ours") for row in report.rows if row.kind == kind]
    return replace(report, rows=rows, failed=[])
