"""The results of a run of the bench as data, and as JSON lines for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

#: The units of all numbers; people are shown milliseconds, megabytes and thousands.
Unit = Literal["s", "B", "/s", "count"]
#: Which clock a number comes from: the processor's (only the process under test), or the wall clock.
Clock = Literal["cpu", "wall"]
#: ``ours``: polypod; ``floor``: the least that the same thing can cost; ``peer``: another library;
#: ``before``: another checkout of polypod.
Kind = Literal["ours", "floor", "peer", "before"]
#: How much work a run does: ``full`` for the record, ``quick`` for a look, ``tiny`` to test the bench itself.
Effort = Literal["full", "quick", "tiny"]


class Reading(Struct, frozen=True):
    """One number from one repeat of a case; ``other`` is the same by the other clock."""

    metric: str
    unit: Unit
    value: float
    clock: Clock | None = None
    other: float | None = None


class Target(Struct, frozen=True, omit_defaults=True):
    """What a number has to meet: at most ``limit``, or at least that.

    ``times`` says that the limit is so many times what ``floor`` took in the same run.
    """

    limit: float
    at_least: bool = False
    floor: str | None = None
    times: float | None = None

    def met(self, value: float) -> bool:
        """Whether ``value`` meets it."""
        return value >= self.limit if self.at_least else value <= self.limit


class Spread(Struct, frozen=True):
    """The median of some repeats, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


class Row(Struct, frozen=True, tag="row", omit_defaults=True):
    """One number of one case, over all repeats.

    For all others, ``times_ours`` is how many times polypod's cost theirs is (for rates: how many times fewer
    they reach): above 1 polypod is better, below 1 the other. ``pace`` is how long a fixed piece of work took
    meanwhile (seconds): on a busy machine it is longer.
    """

    claim: str
    case: str
    by: str
    kind: Kind
    metric: str
    unit: Unit
    value: Spread
    repeats: list[float]
    clock: Clock | None = None
    other: Spread | None = None
    target: Target | None = None
    met: bool | None = None
    times_ours: float | None = None
    pace: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies this row in another run."""
        return self.claim, self.case, self.by, self.metric


class Failed(Struct, frozen=True, tag="failed"):
    """A case that could not be measured, and why."""

    claim: str
    case: str
    by: str
    why: str


class Machine(Struct, frozen=True):
    """What the numbers were measured on, in general words."""

    cores: int
    system: str
    python: str
    versions: dict[str, str]


class Report(Struct, frozen=True):
    """The results of a run of the bench."""

    machine: Machine
    effort: Effort
    repeat: int
    started: float
    rows: list[Row]
    failed: list[Failed]

    def row(self, claim: str, case: str, metric: str, by: str = "polypod") -> Row | None:
        """One row, None if it was not measured."""
        return next((row for row in self.rows if row.key == (claim, case, by, metric)), None)

    @property
    def missed(self) -> list[Row]:
        """The rows that miss their targets."""
        return [row for row in self.rows if row.met is False]

    def lines(self) -> Iterable[bytes]:
        """The run as JSON lines: what it was run on, then its rows, then what failed."""
        yield msgspec.json.encode(_Opening(self.machine, self.effort, self.repeat, self.started))
        yield from self.body()

    def body(self) -> Iterable[bytes]:
        """The lines without the first."""
        yield from map(msgspec.json.encode, self.rows)
        yield from map(msgspec.json.encode, self.failed)


class _Opening(Struct, frozen=True, tag="run"):
    machine: Machine
    effort: Effort
    repeat: int
    started: float


_decoder = msgspec.json.Decoder(_Opening | Row | Failed)


def read_report(path: str | Path) -> Report:
    """A run that was kept as JSON lines. Raises ValueError if the file is not one."""
    opening: _Opening | None = None
    rows: list[Row] = []
    failed: list[Failed] = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            read = _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}:{number}: not a line of the bench's JSON: {error}") from error
        if isinstance(read, _Opening):
            opening = read
        elif isinstance(read, Row):
            rows.append(read)
        else:
            failed.append(read)
    if opening is None:
        raise ValueError(f"{path}: not a run of the bench: its first line is missing")
    return Report(opening.machine, opening.effort, opening.repeat, opening.started, rows, failed)
