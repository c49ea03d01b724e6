"""``MemoryQueue``: jobs in memory, for as long as their pool lives."""

from __future__ import annotations

import contextlib
import heapq
from collections import defaultdict, deque
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from actors.routing.pool.queue import (
    Claimed,
    Ended,
    NewJob,
    Outlook,
    Returned,
    TaskQueue,
    Window,
    cancelled_waiting,
    queued,
)
from actors.routing.pool.scheduling import Start, Waiting
from protocol.jobs import Execution, JobStatus


class _Row(Struct):
    execution: Execution
    waiting: Waiting
    model: str | None = None
    reason: str | None = None
    deaths: int = 0
    cancel: bool = False


class MemoryQueue(TaskQueue):
    """The plainest queue: its jobs end with the process. Of those that ended the last ``keep`` are known."""

    url = "memory:"

    def __init__(self, keep: int = 10_000) -> None:
        self._rows: dict[int, _Row] = {}
        self._keep_most = keep
        #: How many were ever added, and have ended.
        self._added = self._ended = 0
        #: Of each lane ``(-priority, number)`` in order; one that waits there no more is passed over.
        self._lanes: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._active: defaultdict[str, int] = defaultdict(int)
        self._cancels: list[int] = []
        #: The jobs that are known and have ended, in that order.
        self._ends: deque[int] = deque()

    def transaction(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def add(self, jobs: Sequence[NewJob]) -> list[int]:
        numbers = range(self._added + 1, self._added + 1 + len(jobs))
        self._added += len(jobs)
        for number, new in zip(numbers, jobs, strict=True):
            execution = queued(new, number)
            lane = new.job.agent or ""
            waiting = Waiting(number, new.job.priority, lane, lane != "")
            self._rows[number] = _Row(execution, waiting)
            self._wait(waiting)
        return list(numbers)

    def _wait(self, waiting: Waiting) -> None:
        heapq.heappush(self._lanes[waiting.lane], (-waiting.priority, waiting.number))

    def outlook(self, window: Window) -> Outlook:
        active = {agent: count for agent, count in self._active.items() if count}
        waiting: list[Waiting] = []
        for lane in list(self._lanes):
            heads = list(self._heads(lane, window(lane, active)))
            for each in heads:
                self._wait(each)
            waiting += heads
            if not self._lanes[lane]:
                del self._lanes[lane]
        return Outlook(waiting, active)

    def _heads(self, lane: str, count: int) -> Iterator[Waiting]:
        """Take the first jobs of a lane out of it."""
        heap, last = self._lanes[lane], 0
        while heap and count > 0:
            number = heapq.heappop(heap)[1]
            row = self._rows.get(number)
            if row is None or number == last:
                continue
            if row.execution.status == "queued" and row.waiting.lane == lane:
                yield row.waiting
                last, count = number, count - 1

    def start(self, starts: Sequence[Start], at: float) -> list[Claimed]:
        claimed: list[Claimed] = []
        for each in starts:
            row = self._rows.get(each.number)
            if row is None or (was := row.execution).status != "queued":
                continue
            attempts = was.attempts + 1
            row.execution = replace(was, status="running", agent=each.agent, started_at=at, attempts=attempts)
            self._active[each.agent] += 1
            model = row.model if row.waiting.lane == each.agent else None
            claimed.append(
                Claimed(
                    each.number,
                    was.job,
                    each.agent,
                    model,
                    row.reason,
                    attempts,
                    row.deaths,
                    was.submitted_at,
                    at,
                )
            )
        return claimed

    def _running(self, number: int) -> _Row | None:
        row = self._rows.get(number)
        return row if row is not None and row.execution.status == "running" else None

    def end(self, ends: Sequence[Ended]) -> None:
        for each in ends:
            if (row := self._running(each.number)) is not None:
                self._active[row.execution.agent or ""] -= 1
                self._keep(each.number, row, each.execution)

    def _keep(self, number: int, row: _Row, execution: Execution) -> None:
        row.execution = execution
        self._ended += 1
        self._ends.append(number)
        if len(self._ends) > self._keep_most:
            del self._rows[self._ends.popleft()]

    def give_back(self, returns: Sequence[Returned], at: float) -> None:
        for each in returns:
            if (row := self._running(each.number)) is None:
                continue
            was = row.execution
            self._active[was.agent or ""] -= 1
            row.execution = replace(
                was,
                status="queued",
                agent=was.job.agent,
                started_at=None,
                attempts=was.attempts - each.uncounted,
            )
            row.deaths += bool(each.avoid)
            lane = was.job.agent or ""
            row.waiting = replace(
                row.waiting, lane=lane, pinned=lane != "", avoid=each.avoid or row.waiting.avoid
            )
            cancel, row.cancel = row.cancel, False
            if cancel:
                self.cancel(each.number, at)
            else:
                self._wait(row.waiting)

    def assign(self, number: int, lane: str, model: str | None, reason: str | None) -> None:
        row = self._rows.get(number)
        if row is not None and row.execution.status == "queued":
            row.model, row.reason = model, reason
            pinned = lane != "" and lane == row.execution.job.agent
            row.waiting = replace(row.waiting, lane=lane, pinned=pinned)
            row.execution = replace(row.execution, agent=lane or None)
            self._wait(row.waiting)

    def open_lane(self, lane: str) -> None:
        for number in [number for _, number in self._lanes.get(lane, ())]:
            row = self._rows.get(number)
            if (
                row is not None
                and row.execution.status == "queued"
                and row.waiting.lane == lane
                and not row.waiting.pinned
            ):
                self.assign(number, "", None, None)

    def cancel(self, number: int, at: float) -> JobStatus | None:
        row = self._rows.get(number)
        if row is None:
            return None
        status = row.execution.status
        if status == "queued":
            self._keep(number, row, cancelled_waiting(row.execution, at))
        elif status == "running":
            row.cancel = True
            self._cancels.append(number)
        return status

    def cancels(self) -> list[int]:
        asked, self._cancels = self._cancels, []
        return [number for number in asked if self._running(number) is not None]

    def take_back(self, at: float) -> list[int]:  # noqa: ARG002 - no other process has any
        return []

    def ended_since(
        self, mark: int | None, wanted: Container[int]
    ) -> tuple[int, list[tuple[int, Execution]]]:
        count = 0 if mark is None else min(self._ended - mark, len(self._ends))
        behind = reversed(list(islice(reversed(self._ends), count)))
        return self._ended, [(number, self._rows[number].execution) for number in behind if number in wanted]

    def has_open(self) -> bool:
        return self._ended < self._added

    def find(self, number: int) -> Execution | None:
        row = self._rows.get(number)
        return None if row is None else row.execution

    def list(self, statuses: Iterable[JobStatus], limit: int | None) -> list[Execution]:
        wanted = set(statuses)
        found = (row.execution for row in reversed(self._rows.values()) if row.execution.status in wanted)
        return [
            each for _, each in zip(range(len(self._rows) if limit is None else limit), found, strict=False)
        ]

    def counts(self) -> dict[tuple[JobStatus, str], int]:
        counts: defaultdict[tuple[JobStatus, str], int] = defaultdict(int)
        for row in self._rows.values():
            counts[row.execution.status, row.execution.agent or ""] += 1
        return dict(counts)

    def close(self) -> None:
        pass
