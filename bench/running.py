"""Runs claims: each case in a fresh process, several times, with the cases of a claim taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from bench import catalogue, machine
from bench.before import Checkout
from bench.jobs import Job, NotMeasured, jobs
from bench.pace import BUSY, pace
from bench.peers import catalogue as peer_catalogue
from bench.results import Effort, Failed, Reading, Report, Row, Spread

#: Called with each step, for a person who waits: the claim, the case with its library, and the repeat.
OnStep = Callable[[str, str, int], None]


def run(
    names: Sequence[str] = (),
    *,
    effort: Effort = "full",
    repeat: int = 5,
    peers: bool = False,
    before: Checkout | None = None,
    tell: OnStep | None = None,
) -> Report:
    """Measure the claims ``names`` (by default all), each case ``repeat`` times.

    ``peers`` has other libraries with an environment here (``make bench-peers``) do the same work in the same
    run; ``before`` is another checkout of polypod, whose cases take turns with ours. A case that cannot be
    measured is reported in ``Report.failed`` and stops nothing. Raises KeyError for a name that is not a
    claim.
    """
    return joined(claim_by_claim(names, effort=effort, repeat=repeat, peers=peers, before=before, tell=tell))


def claim_by_claim(
    names: Sequence[str] = (),
    *,
    effort: Effort = "full",
    repeat: int = 5,
    peers: bool = False,
    before: Checkout | None = None,
    tell: OnStep | None = None,
) -> Iterator[Report]:
    """Measure like ``run``, and yield a report for each claim as soon as it is measured."""
    claims = [catalogue.claim(name) for name in names or catalogue.names()]
    left_out = peer_catalogue.left_out([each.name for each in claims]) if peers else []
    opening = Report(machine.described(with_peers=peers), effort, repeat, time.time(), [], [])
    for each in claims:
        todo = jobs(each, effort, with_peers=peers) + (before.jobs(each, effort) if before else [])
        rows, failed = run_jobs(todo, repeat, tell or _silent)
        yield msgspec.structs.replace(opening, rows=rows, failed=left_out + failed)
        left_out = []


def joined(parts: Iterable[Report]) -> Report:
    """The reports of one run as one. Raises ValueError if there are none."""
    first, *others = parts
    return msgspec.structs.replace(
        first,
        rows=[row for part in (first, *others) for row in part.rows],
        failed=[failed for part in (first, *others) for failed in part.failed],
    )


def _silent(_claim: str, _case: str, _repeat: int) -> None:
    """Report to nobody."""


class _Repeat(NamedTuple):
    """The readings of one fresh process, and the pace of the machine around it."""

    readings: list[Reading]
    pace: float


def run_jobs(
    todo: Sequence[Job], repeat: int, tell: OnStep, pace: Callable[[], float] = pace
) -> tuple[list[Row], list[Failed]]:
    """The rows of some jobs, which take turns, so that a busy moment of the machine affects them alike.

    What was measured in a busy moment all the same is measured once more, and the better pace counts;
    ``pace`` measures the time of a fixed piece of work.
    """
    repeats: list[list[_Repeat]] = [[] for _ in todo]
    lost: dict[int, Failed] = {}
    for turn in range(1, repeat + 1):
        for number, job in enumerate(todo):
            if number in lost or not job.due(turn):
                continue
            tell(job.claim, f"{job.case}, {job.by}", turn)
            try:
                repeats[number].append(_repeated(job, pace))
            except NotMeasured as error:
                lost[number] = Failed(job.claim, job.case, job.by, str(error))
    _again(todo, repeats, lost, tell, pace)
    rows = [
        row for number, job in enumerate(todo) if number not in lost for row in _rows(job, repeats[number])
    ]
    return beside_ours(rows), list(lost.values())


def _repeated(job: Job, pace: Callable[[], float]) -> _Repeat:
    before = pace()
    readings = job.measure()
    return _Repeat(readings, max(before, pace()))


def _again(
    todo: Sequence[Job],
    repeats: list[list[_Repeat]],
    lost: Mapping[int, Failed],
    tell: OnStep,
    pace: Callable[[], float],
) -> None:
    best = min((each.pace for done in repeats for each in done), default=0.0)
    for number, job in enumerate(todo):
        for place, each in enumerate(repeats[number]):
            if number in lost or each.pace <= best * BUSY:
                continue
            tell(job.claim, f"{job.case}, {job.by}", place + 1)
            with suppress(NotMeasured):  # then the first one counts
                repeats[number][place] = min(each, _repeated(job, pace), key=lambda one: one.pace)


def _rows(job: Job, repeats: list[_Repeat]) -> Iterable[Row]:
    paces = statistics.median(each.pace for each in repeats)
    for same in zip(*(each.readings for each in repeats), strict=True):
        first = same[0]
        value = Spread.of([reading.value for reading in same])
        others = [reading.other for reading in same if reading.other is not None]
        target = job.targets.get(first.metric)
        yield Row(
            claim=job.claim,
            case=job.case,
            by=job.by,
            kind=job.kind,
            metric=first.metric,
            unit=first.unit,
            value=value,
            repeats=[reading.value for reading in same],
            clock=first.clock,
            other=Spread.of(others) if others else None,
            target=target,
            met=None if target is None else target.met(value.median),
            pace=paces,
        )


def beside_ours(rows: list[Row]) -> list[Row]:
    """The rows: those of floors and peers with their ratio to polypod's in the same run, and ours with the
    targets that a floor of that run sets.
    """
    ours = {(row.claim, row.case, row.metric): row for row in rows if row.kind == "ours"}
    by_key = {row.key: row for row in rows}
    compared = (_compared(row, ours.get((row.claim, row.case, row.metric))) for row in rows)
    return [_held_to_floor(row, by_key) for row in compared]


def _held_to_floor(row: Row, rows: Mapping[tuple[str, str, str, str], Row]) -> Row:
    target = row.target
    if target is None or target.floor is None or target.times is None:
        return row
    floor = rows.get((row.claim, row.case, target.floor, row.metric))
    if floor is None:  # it could not be measured, so there is no limit
        return msgspec.structs.replace(row, target=None, met=None)
    known = msgspec.structs.replace(target, limit=target.times * floor.value.median)
    return msgspec.structs.replace(row, target=known, met=known.met(row.value.median))


def _compared(row: Row, ours: Row | None) -> Row:
    if ours is None or row is ours or not ours.value.median or not row.value.median:
        return row
    times = row.value.median / ours.value.median
    return msgspec.structs.replace(row, times_ours=1 / times if row.unit == "/s" else times)
