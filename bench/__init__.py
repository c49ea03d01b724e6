"""The benchmark harness: measures every claim of speed and size beside its floor and its peers."""

from bench.compare import Change, compare
from bench.results import Machine, Report, Row, Spread, Target, read_report
from bench.running import run
from bench.setup import run_setup

__all__ = [
    "Change",
    "Machine",
    "Report",
    "Row",
    "Spread",
    "Target",
    "compare",
    "read_report",
    "run",
    "run_setup",
]
