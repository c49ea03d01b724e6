"""Run claims: each case in a fresh process, several times, the cases of a claim taking turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bench import catalogue, machine
from bench.claim import Case, Claim
from bench.results import Effort, Failed, Reading, Report, Row, Spread
from bench.root import ROOT

#: The longest that one process may take, in seconds.
TIMEOUT = 240.0

#: Told of each step, for a person who waits: the claim, the case with who does it, and the repeat.
Tell = Callable[[str, str, int], None]

_decoder = msgspec.json.Decoder(list[Reading])


class NotMeasured(Exception):  # noqa: N818 - says what it is
    """A process under test failed; the text says why."""


def run(
    names: Sequence[str] = (),
    *,
    effort: Effort = "full",
    repeat: int = 5,
    tell: Tell | None = None,
) -> Report:
    """Measure the claims ``names`` (all, where none is given), each case ``repeat`` times.

    A case that cannot be measured is told in ``Report.failed`` and stops nothing. Raises KeyError for
    a name that is no claim.
    """
    claims = [catalogue.claim(name) for name in names or catalogue.names()]
    started = time.time()
    rows: list[Row] = []
    failed: list[Failed] = []
    for each in claims:
        found, lost = run_claim(each, effort=effort, repeat=repeat, tell=tell or _silent)
        rows += found
        failed += lost
    return Report(machine.described(), effort, repeat, started, rows, failed)


def _silent(_claim: str, _case: str, _repeat: int) -> None:
    """Tell nobody."""


def run_claim(claim: Claim, *, effort: Effort, repeat: int, tell: Tell) -> tuple[list[Row], list[Failed]]:
    """The rows of one claim. Its cases take turns, so that a busy moment of the machine hits them alike."""
    repeats: dict[int, list[list[Reading]]] = {}
    lost: dict[int, str] = {}
    for turn in range(repeat):
        for number, case in enumerate(claim.cases):
            if number in lost:
                continue
            tell(claim.name, f"{case.name}, {case.by}", turn + 1)
            try:
                repeats.setdefault(number, []).append(_in_fresh_process(claim, case, effort))
            except NotMeasured as error:
                lost[number] = str(error)
    rows = [
        row
        for number, case in enumerate(claim.cases)
        if number not in lost
        for row in _rows(claim, case, repeats[number])
    ]
    failed = [
        Failed(claim.name, case.name, case.by, lost[n]) for n, case in enumerate(claim.cases) if n in lost
    ]
    return beside_ours(rows), failed


def _in_fresh_process(claim: Claim, case: Case, effort: Effort) -> list[Reading]:
    return child_readings([sys.executable, "-m", "bench.child", claim.name, case.by, case.name, effort])


def child_readings(command: Sequence[str], timeout: float = TIMEOUT) -> list[Reading]:
    """What a process under test prints as its last line. Raises NotMeasured."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"took more than {timeout:g} seconds") from error
    except OSError as error:
        raise NotMeasured(f"could not be started: {error}") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise NotMeasured(_last_words(done.stderr) or f"ended with code {done.returncode}")
    try:
        return _decoder.decode(lines[-1])
    except msgspec.DecodeError as error:
        raise NotMeasured(f"printed no readings: {error}") from error


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def _rows(claim: Claim, case: Case, repeats: list[list[Reading]]) -> Iterable[Row]:
    for same in zip(*repeats, strict=True):
        first = same[0]
        value = Spread.of([reading.value for reading in same])
        others = [reading.other for reading in same if reading.other is not None]
        target = case.targets.get(first.metric)
        yield Row(
            claim=claim.name,
            case=case.name,
            by=case.by,
            kind=case.kind,
            metric=first.metric,
            unit=first.unit,
            value=value,
            repeats=[reading.value for reading in same],
            clock=first.clock,
            other=Spread.of(others) if others else None,
            target=target,
            met=None if target is None else target.met(value.median),
        )


def beside_ours(rows: list[Row]) -> list[Row]:
    """The rows, those of floors and peers with how they compare to polypod's in the same run."""
    ours = {(row.claim, row.case, row.metric): row for row in rows if row.kind == "ours"}
    return [_compared(row, ours.get((row.claim, row.case, row.metric))) for row in rows]


def _compared(row: Row, ours: Row | None) -> Row:
    if ours is None or row is ours or not ours.value.median or not row.value.median:
        return row
    times = row.value.median / ours.value.median
    return msgspec.structs.replace(row, times_ours=1 / times if row.unit == "/s" else times)
