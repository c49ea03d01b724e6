"""``Requests``: gathers what is asked of a queue for its next turn, and who waits for the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from msgspec import Struct, field

from actors.routing.pool.queue import NewJob, TaskQueue, queued, unknown_job
from actors.routing.pool.turn import Batch, Turn
from actors.runtime.future import AsyncFuture
from protocol.jobs import JOB_ENDS, Execution


class Requests(Struct):
    """The requests of one turn. The futures stand in the order of what they wait for."""

    batch: Batch = field(default_factory=Batch)
    _added: list[AsyncFuture[Execution] | None] = field(default_factory=list)
    #: Who waits until jobs are kept: the first of them, and how many they are.
    _kept: list[tuple[int, int, AsyncFuture[list[Execution]]]] = field(default_factory=list)
    _cancelled: list[AsyncFuture[bool]] = field(default_factory=list)
    _asked: list[AsyncFuture[Any]] = field(default_factory=list)

    def add(self, job: NewJob, future: AsyncFuture[Execution]) -> None:
        """Queue a job; the future is for its end."""
        self.batch.adds.append(job)
        self._added.append(future)

    def add_all(self, jobs: list[NewJob], future: AsyncFuture[list[Execution]]) -> None:
        """Queue jobs; the future is for their being kept."""
        self._kept.append((len(self._added), len(jobs), future))
        self.batch.adds += jobs
        self._added += [None] * len(jobs)

    def cancel(self, number: int, future: AsyncFuture[bool]) -> None:
        """Cancel a job."""
        self.batch.cancels.append(number)
        self._cancelled.append(future)

    def ask(self, ask: Callable[[TaskQueue], Any], future: AsyncFuture[Any]) -> None:
        """Ask the queue something."""
        self.batch.asks.append(ask)
        self._asked.append(future)

    def fail(self, error: Exception) -> None:
        """Answer all by ``error``: nothing came of the turn."""
        kept = [future for *_, future in self._kept]
        for future in (*self._added, *kept, *self._cancelled, *self._asked):
            if isinstance(future, AsyncFuture):
                future.set_exception(error)

    def answer(self, turn: Turn, ends: Ends) -> None:
        """Answer by what came of the turn; who waits for an end does so from now on."""
        for number, end in zip(turn.numbers, self._added, strict=True):
            if end is not None:
                ends.wait_for(number, end)
        for first, count, kept in self._kept:
            added = zip(self.batch.adds[first:], turn.numbers[first : first + count], strict=False)
            kept.set([queued(new, number) for new, number in added])
        for number, status, asked in zip(self.batch.cancels, turn.cancelled, self._cancelled, strict=True):
            if status is None:
                asked.set_exception(unknown_job(str(number)))
            else:
                asked.set(status not in JOB_ENDS)
        for answer, future in zip(turn.answers, self._asked, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set(answer)


class Ends:
    """Who waits for the end of which job."""

    def __init__(self) -> None:
        self.waiting: defaultdict[int, list[AsyncFuture[Execution]]] = defaultdict(list)

    def wait_for(self, number: int, future: AsyncFuture[Execution]) -> None:
        """Have a future resolved once the job ends."""
        self.waiting[number].append(future)

    def drop(self, number: int, future: AsyncFuture[Execution]) -> None:
        """Forget a future that waits no more."""
        others = [each for each in self.waiting.pop(number, ()) if each is not future]
        if others:
            self.waiting[number] = others

    def resolve(self, number: int, execution: Execution | Exception) -> None:
        """Resolve all who wait for a job that has ended, or that stands so."""
        for future in self.waiting.pop(number, ()):
            if isinstance(execution, Exception):
                future.set_exception(execution)
            else:
                future.set(execution)
