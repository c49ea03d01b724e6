"""The contract of queues of jobs, and what all of them say alike."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from actors.routing.pool.scheduling import Start, Waiting
from protocol.errors import Failure, UnknownJob
from protocol.foreign import shown
from protocol.jobs import Execution, Job, JobStatus

#: How many jobs of a lane have to be looked at, by the lane and by how many jobs each runner has.
Window = Callable[[str, Mapping[str, int]], int]
#: How often a job may be at work when its process dies, before it is given up as the likely cause.
MOST_DEATHS = 10
_SLUG = 24
#: Digits that the number of a job has at most: SQLite has none that are longer.
_DIGITS = 18
_OTHER = re.compile(r"[^a-z0-9]+")


class NewJob(Struct, frozen=True):
    """A job to be queued: it waits in the lane of the agent that it asks for, or in that for any (``""``)."""

    job: Job
    at: float


class Outlook(Struct, frozen=True):
    """The jobs that may start next, and how many each runner has, over all processes."""

    waiting: list[Waiting]
    active: dict[str, int]


class Claimed(Struct, frozen=True):
    """A job that this process has to do now."""

    number: int
    job: Job
    agent: str
    model: str | None
    reason: str | None
    attempts: int
    deaths: int
    submitted_at: float
    started_at: float

    @property
    def id(self) -> str:
        """As its execution has it."""
        return job_id(self.job, self.number)

    def execution(self) -> Execution:
        """How it stands while it is at work."""
        return Execution(
            id=self.id,
            job=self.job,
            agent=self.agent,
            model=self.model or self.job.model,
            reason=self.reason,
            status="running",
            attempts=self.attempts,
            submitted_at=self.submitted_at,
            started_at=self.started_at,
        )


class Ended(Struct, frozen=True):
    """A job of this process has ended so."""

    number: int
    execution: Execution


class Returned(Struct, frozen=True):
    """A job of this process waits again, as it did when it was queued. ``avoid`` is a runner that died over
    it; ``uncounted`` is what was begun of it where that is to count for no attempt.
    """

    number: int
    avoid: str = ""
    uncounted: bool = False


class Everything(Container[int]):
    """All numbers."""

    def __contains__(self, _: object) -> bool:
        return True


class TaskQueue(abc.ABC):
    """Where the jobs of pools are kept; one object of it for each pool.

    All methods are called on one thread at a time, which may wait for a disk where ``may_block``. What
    changes anything is done in a ``transaction``, and is as durable as the queue is once that is left. A job
    is done **at least once and never twice at once**: ``start`` gives it to one process, and it waits again,
    by ``take_back``, only once that and its last child are gone.
    """

    #: Whether methods may wait for a disk or for other processes.
    may_block = False
    #: Whether jobs outlive the process.
    is_durable = False
    #: What it is called in messages.
    url: str
    #: Where the files of its executions are, None where it has no place for any.
    folder: Path | None = None

    @abc.abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """All that is done in it is kept, or nothing. Raises StoreError."""

    @abc.abstractmethod
    def add(self, jobs: Sequence[NewJob]) -> list[int]:
        """Queue jobs: their numbers, in order of submission over all processes."""

    @abc.abstractmethod
    def outlook(self, window: Window) -> Outlook:
        """The next jobs of each lane, as many as ``window`` says. It costs the same however many wait."""

    @abc.abstractmethod
    def start(self, starts: Sequence[Start], at: float) -> list[Claimed]:
        """Give those of the jobs to this process that still wait."""

    @abc.abstractmethod
    def end(self, ends: Sequence[Ended]) -> None:
        """Keep how jobs of this process ended; one that is not this process's any more is passed over."""

    @abc.abstractmethod
    def give_back(self, returns: Sequence[Returned], at: float) -> None:
        """Have jobs of this process wait again; one that was to be cancelled has ended with that."""

    @abc.abstractmethod
    def assign(self, number: int, lane: str, model: str | None, reason: str | None) -> None:
        """Put a job that waits into the lane that it was classified for; "" is none: the pool chooses."""

    @abc.abstractmethod
    def open_lane(self, lane: str) -> None:
        """Have jobs that wait in a lane, and did not ask for it, wait for any."""

    @abc.abstractmethod
    def cancel(self, number: int, at: float) -> JobStatus | None:
        """Cancel a job: how it stood. One that waits has ended with that; of one that runs its process is
        notified, by ``cancels``. None where there is none of that number.
        """

    @abc.abstractmethod
    def cancels(self) -> list[int]:
        """The jobs of this process that are to be cancelled."""

    def has_dead(self) -> bool:
        """Whether ``take_back`` would find any."""
        return False

    @abc.abstractmethod
    def take_back(self, at: float) -> list[int]:
        """Have the jobs of processes that are gone wait again, or end them as lost: their numbers."""

    @abc.abstractmethod
    def ended_since(
        self, mark: int | None, wanted: Container[int]
    ) -> tuple[int, list[tuple[int, Execution]]]:
        """The ``wanted`` jobs that ended behind ``mark``, and the present mark; where ``mark`` is None, just
        that.
        """

    def ended_before(self, at: float) -> list[Execution]:  # noqa: ARG002 - see forget
        """The jobs that ended before that, the first to end first. It may be called within a transaction."""
        return []

    def forget(self, ended: Iterable[Execution]) -> None:
        """Jobs that have ended are known no more. A queue that keeps but some of those need not know it."""

    @abc.abstractmethod
    def has_open(self) -> bool:
        """Whether any job waits or is at work."""

    @abc.abstractmethod
    def find(self, number: int) -> Execution | None:
        """How a job stands."""

    @abc.abstractmethod
    def list(self, statuses: Iterable[JobStatus], limit: int | None) -> list[Execution]:
        """Jobs of these statuses, the last submitted first, at most ``limit``; without what they ended with
        but for how.
        """

    @abc.abstractmethod
    def counts(self) -> dict[tuple[JobStatus, str], int]:
        """How many jobs there are, by status and agent."""

    def has_changed(self) -> bool:
        """Whether another process may have changed anything since this was asked last."""
        return False

    @property
    def lock_descriptor(self) -> int | None:
        """The descriptor of the lock by which others know that this process lives; None where none is. Raises
        StoreError.
        """
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it; idempotent."""


def job_id(job: Job, number: int) -> str:
    """The id of a job: what it is called, and its number, which no other of its queue has."""
    return f"{_slug_of(job.name)}-{number}"


def _slug_of(name: str) -> str:
    if name.isascii() and name.isalnum() and name.islower():
        return name[:_SLUG]
    return _OTHER.sub("-", name.lower()).strip("-")[:_SLUG].strip("-") or "job"


def number_of(job: object) -> int:
    """The number that an id ends with, or is. Raises UnknownJob."""
    digits = job.rpartition("-")[2] if isinstance(job, str) else ""
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS):
        raise unknown_job(job)
    return int(digits)


def unknown_job(job: object) -> UnknownJob:
    """The error that says that there is no such job."""
    return UnknownJob(f"no job {shown(job)}", hint="list the jobs with polypod pool ls")


def queued(new: NewJob, number: int) -> Execution:
    """How a job stands that has just been queued."""
    job = new.job
    return Execution(
        id=job_id(job, number),
        job=job,
        agent=job.agent,
        model=job.model,
        status="queued",
        submitted_at=new.at,
    )


def lost(execution: Execution, at: float) -> Execution:
    """How a job ends that nobody knows the end of."""
    error = Failure("JobLost", "the process that worked on it died", "submit it again")
    return _ended(execution, "lost", at, error)


def cancelled_waiting(execution: Execution, at: float) -> Execution:
    """How a job ends that was cancelled before it was begun."""
    return _ended(execution, "cancelled", at, Failure("Cancelled", "it was cancelled before it started"))


def _ended(execution: Execution, status: JobStatus, at: float, error: Failure) -> Execution:
    return replace(execution, status=status, ended_at=at, error=error)
