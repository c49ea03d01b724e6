"""``Driving``: a pool at work: in turns with its queue, it starts jobs and keeps their results."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from actors.routing.pool.availability import Availability
from actors.routing.pool.choosing import Choosing, JobClassifier
from actors.routing.pool.endings import Outcome, decide
from actors.routing.pool.performing import CANCELLED, Performing
from actors.routing.pool.queue import Claimed, Ended, TaskQueue, unknown_job
from actors.routing.pool.requests import Ends, Requests
from actors.routing.pool.scheduling import next_awakening
from actors.routing.pool.turn import Assignment, Circumstances, Turn, take_turn
from actors.runtime.future import AsyncFuture
from actors.swarm.agents.home import Home
from protocol.errors import Failure, PoolError, StoreError, SystemNotRunning
from protocol.jobs import JOB_ENDS, Execution

T = TypeVar("T")

#: Seconds after which a queue is looked at that others may have changed, after which it is looked whether
#: other processes are gone, and after which it is asked again that has failed.
_POLL, _LOOK, _AGAIN = 0.05, 0.5, 0.25
#: Seconds after which a pool that is left gives up a queue that fails: its jobs are others' then. A turn may
#: take longer that waits for a process that was stopped as it wrote.
_GIVES_UP = 2.0


class Driving:
    """Used on the loop of its system, where it begins at once."""

    def __init__(
        self,
        home: Home,
        queue: TaskQueue,
        availability: Availability,
        performing: Performing,
        classifier: JobClassifier | None,
    ) -> None:
        self.requests = Requests()
        self.ends = Ends()
        self.is_leaving = False
        self._home, self._queue = home, queue
        self._availability, self._performing = availability, performing
        self._choosing = None if classifier is None else Choosing(classifier, availability, self._assign)
        self._thread = ThreadPoolExecutor(1, "polypod-queue") if queue.may_block else None
        self._tasks: dict[int, asyncio.Task[Outcome]] = {}
        #: What saves the work of jobs that nobody does again.
        self._saving: set[asyncio.Task[None]] = set()
        self._joining: list[AsyncFuture[None]] = []
        self._mark: int | None = None
        self._looked_at, self._left_at = 0.0, math.inf
        #: The descriptor of our lock that child processes hold as well.
        self._held: int | None = None
        #: Whether something has changed that the queue does not know of.
        self._must_look = True
        self._wake = asyncio.Event()
        self._wake.set()
        self._turning = home.mailroom.loop.create_task(self._drive())
        self._closing: asyncio.Task[None] | None = None

    @property
    def at_work(self) -> int:
        """How many jobs are being done here now."""
        return len(self._tasks)

    def rouse(self) -> None:
        """Wake the pool: there is something to do."""
        self._wake.set()

    def join(self, future: AsyncFuture[None]) -> None:
        """Resolve it once no job is left."""
        self._joining.append(future)
        self._must_look = True

    # -- turns ---------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """Run turn by turn, until the pool is left and the results of all its jobs are kept."""
        while not (self.is_leaving and not self._tasks and self.requests.batch.is_empty):
            await self._wait_for_work()
            requests, self.requests = self.requests, Requests()
            try:
                now = self._circumstances()
                turn = await self._in_thread(partial(take_turn, self._queue, requests.batch, now))
            except Exception as error:  # noqa: BLE001 - of the store; goes to who asked
                self._take_back(requests, error)
                if not self._tasks and time.monotonic() - self._left_at > _GIVES_UP:
                    break
                await asyncio.sleep(_AGAIN)
            else:
                self._apply(turn, requests)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Where the queue may have to wait for others."""
        if self._thread is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _wait_for_work(self) -> None:
        if not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()
        self._wake.clear()

    def _patience(self) -> float | None:
        """Seconds until something may have happened that nobody reports."""
        now = time.time()
        awakening = next_awakening(self._availability.states(), now)
        waits = [] if awakening is None else [awakening - now]
        if self._queue.may_block:
            waits.append(_POLL)
        return min(waits, default=None)

    def _circumstances(self) -> Circumstances:
        """Raises StoreError."""
        now, choosing = time.time(), self._choosing
        must_look, self._must_look = self._availability.wake(now) or self._must_look, False
        return Circumstances(
            runners={} if self.is_leaving else self._availability.states(),
            classified=None if choosing is None else choosing.done,
            classifying=() if choosing is None else tuple(choosing.tasks),
            waited=self.ends.waiting,
            mark=self._mark,
            now=now,
            looks_for_dead=self._is_time_to_look(),
            must_look=must_look,
            joined=bool(self._joining),
        )

    def _is_time_to_look(self) -> bool:
        """Whether other processes are to be looked after."""
        now = time.monotonic()
        if not self._queue.may_block or now - self._looked_at < _LOOK:
            return False
        self._share_lock()
        self._looked_at = now
        return True

    def _share_lock(self) -> None:
        """Whoever starts our child processes holds the lock too: what we have begun, nobody begins again
        before the last of them is gone.
        """
        descriptor = self._queue.lock_descriptor
        if descriptor is not None and descriptor != self._held:
            if self._held is not None:
                self._home.drop_held(self._held)
            self._home.hold(descriptor)
            self._held = descriptor

    def _take_back(self, requests: Requests, error: Exception) -> None:
        """Undo a turn that the queue has not kept: whoever asked gets that error, and the results of jobs are
        kept later.
        """
        requests.fail(error)
        failed, batch = requests.batch, self.requests.batch
        batch.ends[:0], batch.returns[:0] = failed.ends, failed.returns
        batch.assignments[:0], batch.opened[:0] = failed.assignments, failed.opened
        self._must_look = True
        self.rouse()

    def _apply(self, turn: Turn, requests: Requests) -> None:
        self._mark = turn.mark
        self._must_look = self._must_look or turn.must_look
        if turn.looked:
            self._availability.active = turn.active
        requests.answer(turn, self.ends)
        for each in requests.batch.ends:
            self.ends.resolve(each.number, each.execution)
        for number, execution in turn.ended:
            self.ends.resolve(number, execution)
        for claimed in turn.claimed:
            self._start(claimed)
        for execution in turn.abandoned:
            saving = asyncio.get_running_loop().create_task(self._performing.save(execution))
            self._saving.add(saving)
            saving.add_done_callback(self._saving.discard)
        for number in turn.to_cancel:
            self._cancel(number)
        if self._choosing is not None:
            for number, execution in turn.to_classify:
                self._choosing.begin(number, execution.job)
        if not turn.has_open:
            self._resolve_joined()

    def _resolve_joined(self) -> None:
        joining, self._joining = self._joining, []
        for each in joining:
            each.set(None)

    def _assign(self, assignment: Assignment) -> None:
        self.requests.batch.assignments.append(assignment)
        self.rouse()

    # -- jobs ----------------------------------------------------------------------------------------

    def _start(self, claimed: Claimed) -> None:
        if self._choosing is not None:
            self._choosing.done.discard(claimed.number)
        work = self._performing.perform(claimed)
        task = self._tasks[claimed.number] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(partial(self._finish, claimed))
        if self.is_leaving:
            task.cancel()

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None and not task.cancelling():
            task.cancel()

    def _finish(self, claimed: Claimed, task: asyncio.Task[Outcome]) -> None:
        """Have the queue keep the result of a job."""
        del self._tasks[claimed.number]
        outcome = CANCELLED if task.cancelled() else task.result()  # a task may be cancelled before it begins
        batch, now = self.requests.batch, time.time()
        limited, rests = self._availability.note(claimed.agent, outcome, now)
        if rests:
            batch.opened.append(claimed.agent)
        decided = decide(
            claimed,
            outcome,
            limited=limited,
            leaving=self.is_leaving,
            durable=self._queue.is_durable,
            now=now,
        )
        if isinstance(decided, Ended):
            batch.ends.append(decided)
        else:
            batch.returns.append(decided)
        self.rouse()

    # -- the end -------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End what runs, have the queue keep the results, and close it; idempotent."""
        if self._closing is None:
            self._closing = self._home.mailroom.loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.is_leaving, self._left_at = True, time.monotonic()
        if self._choosing is not None:
            self._choosing.cancel()
        for number in list(self._tasks):
            self._cancel(number)
        self.rouse()
        await asyncio.wait({self._turning, *self._saving})
        await self._resolve_open()
        if self._held is not None:
            self._home.drop_held(self._held)
        await self._in_thread(self._queue.close)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _resolve_open(self) -> None:
        """Give whoever still waits for a job how it stands."""
        waited = list(self.ends.waiting)
        found = await self._in_thread(lambda: [_look_up(self._queue, number) for number in waited])
        for number, stands in zip(waited, found, strict=True):
            if isinstance(stands, Execution) and not self._queue.is_durable:
                self.ends.resolve(number, _given_up(stands))
            else:
                self.ends.resolve(number, stands)
        for joined in self._joining:
            joined.set_exception(left())


def _look_up(queue: TaskQueue, number: int) -> Execution | StoreError | PoolError:
    try:
        found = queue.find(number)
    except StoreError as error:
        return error
    return unknown_job(str(number)) if found is None else found


def _given_up(stands: Execution) -> Execution:
    """A job that ends with its queue."""
    if stands.status in JOB_ENDS:
        return stands
    error = Failure(
        "Cancelled", "its pool was closed, and its queue was only in memory", "use a store with a file"
    )
    return replace(stands, status="cancelled", ended_at=time.time(), error=error)


def left() -> SystemNotRunning:
    """The error of a pool that accepts nothing any more."""
    return SystemNotRunning("the pool was closed", hint="create a new one")
