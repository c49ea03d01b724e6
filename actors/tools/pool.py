"""A bounded pool of daemon threads, for tools that are plain functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from protocol.errors import ToolTimeout

T = TypeVar("T")


class _Job(Generic[T]):
    """A piece of work and the future of who waits for it."""

    __slots__ = ("context", "future", "loop", "state", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.context = contextvars.copy_context()
        #: ``dropped``: given up before it began; ``lost``: given up while a thread was at it.
        self.state: Literal["queued", "running", "done", "dropped", "lost"] = "queued"

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Tell the waiter, from any thread; one that has gone, or whose loop has, is passed over."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class ToolThreads:
    """At most ``limit`` threads, started as they are needed, shared by any number of event loops.

    Not the standard pool, for three reasons. Its threads keep the process from ending while a tool
    hangs; these are daemons. A hanging tool would hold its thread's place for good; here a thread
    whose work was given up no longer counts (until ``limit`` are lost). And a hop there and back
    takes twice the CPU: 57 us against 26 us on one core.
    """

    def __init__(self, limit: int = 32, *, name: str = "polypod-tool") -> None:
        if limit < 1:
            raise ValueError(f"limit: expected at least 1, got {limit}")
        self.limit = limit
        self._name = name
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._lost = 0
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<ToolThreads {self._threads} of {self.limit}, {self._lost} lost, {self._jobs.qsize()} waiting>"
        )

    async def call(self, work: Callable[[], T], *, seconds: float | None = None) -> T:
        """What ``work`` returns or raises, called in a thread with the caller's context variables.

        Raises ToolTimeout after ``seconds``. A thread cannot be stopped from outside: after
        a time-out or a cancel the work goes on where it had begun, and what it returns is dropped.
        """
        job = _Job(work)
        self._put(job)
        timer = None if seconds is None else job.loop.call_later(seconds, self._expire, job, seconds)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Take no more work; each thread leaves when what is queued is done. Waits for none."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._threads):
                    self._jobs.put(None)

    def _put(self, job: _Job[Any]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the tool threads are closed")
            self._jobs.put(job)
            if self._idle:
                self._idle -= 1  # the job is as good as taken: the next one sees who is left
            else:
                self._start_one()

    def _start_one(self) -> None:
        if self._threads - self._lost < self.limit:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _expire(self, job: _Job[Any], seconds: float) -> None:
        begun = self._give_up(job)
        what = "may still be at work in its thread" if begun else "found no free thread and was not started"
        if not job.future.done():
            job.future.set_exception(ToolTimeout(f"not done after {seconds:g} s; it {what}"))

    def _give_up(self, job: _Job[Any]) -> bool:
        """Wait for ``job`` no longer; whether it had begun."""
        with self._lock:
            if job.state == "queued":
                job.state = "dropped"
            elif job.state == "running" and self._lost < self.limit:
                job.state = "lost"
                self._lost += 1
                if not self._closed and not self._jobs.empty():
                    self._start_one()
            return job.state != "dropped"

    def _serve(self) -> None:
        stays = True
        while stays and (job := self._jobs.get()) is not None:
            if self._claimed(job):
                _do(job)
            stays = self._ended(job)
            del job  # an idle thread must not keep the last result alive

    def _claimed(self, job: _Job[Any]) -> bool:
        with self._lock:
            if job.state == "queued":
                job.state = "running"
        return job.state == "running"

    def _ended(self, job: _Job[Any]) -> bool:
        """Whether the thread that did ``job`` stays: not where another has taken its place."""
        with self._lock:
            if job.state == "lost":
                self._lost -= 1
                if self._threads - self._lost > self.limit:
                    self._threads -= 1
                    return False
            job.state = "done"
            if self._jobs.empty():
                self._idle += 1
        return True


def _do(job: _Job[Any]) -> None:
    try:
        result = job.context.run(job.work)
    except BaseException as error:  # noqa: BLE001 - it belongs to who waits, whatever it is
        job.settle(None, error)
    else:
        job.settle(result, None)
