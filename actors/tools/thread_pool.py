"""A bounded pool of daemon threads, for tools that are plain functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

from pykka import ActorDeadError

from actors.runtime.blocking import belong_to, do_for
from actors.runtime.loop import mailroom_here
from actors.runtime.stacks import count_waiting_for_others
from protocol.errors import SystemOfParent, ToolError, ToolTimeout

T = TypeVar("T")

logger = logging.getLogger("polypod.tools")

#: How often it is looked, while work waits, whether all threads wait for others, in seconds.
LOOK_WAIT = 0.25
#: How long work waits for a thread where all are held by work that was given up, in seconds.
STUCK_WAIT = 30.0


class _Job(Generic[T]):
    """A piece of work and the future of who waits for it."""

    __slots__ = ("began", "context", "future", "late", "mailroom", "state", "timer", "work")

    #: What gives it up once its time is up, where that is limited.
    timer: asyncio.TimerHandle

    def __init__(self, work: Callable[[], T], late: Callable[[T], object] | None) -> None:
        self.work = work
        self.late = late
        #: When a thread began with it, by ``time.monotonic``; None while it waits for one.
        self.began: float | None = None
        self.mailroom = mailroom_here()
        self.future: asyncio.Future[T] = self.mailroom.loop.create_future()
        self.context = contextvars.copy_context()
        #: ``dropped``: given up before it began; ``lost``: given up while a thread was at it, which counts no
        #: more; ``stuck``: the same, but too many are lost, so that it keeps its place.
        self.state: Literal["queued", "running", "done", "dropped", "lost", "stuck"] = "queued"

    @property
    def ended_in_time(self) -> asyncio.Future[T]:
        """What its timer ends (``awaited``)."""
        return self.future

    def do(self) -> None:
        """Do the work, in the calling thread, and send the outcome to who waits."""
        self.began = time.monotonic()
        try:
            result = self.context.run(do_for, self.future, self.work)
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits, whatever it is
            self._post(self._fail, error)
        else:
            self._post(self._succeed, result)

    def _post(self, settle: Callable[[Any], None], outcome: Any) -> None:
        # By mail, since what several threads have done by then wakes the loop only once.
        try:
            self.mailroom.post(settle, outcome)
        except SystemOfParent:  # the work forked the process, and this is the child
            return
        except ActorDeadError:  # the loop is closed
            if self.late is not None:
                logger.warning("a tool ended after its event loop had closed: %s", outcome)

    def _succeed(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)
        elif self.late is not None:
            self.late(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class ToolThreads:
    """At most ``limit`` threads, started as they are needed, shared by any number of event loops.

    Not the standard pool, for three reasons. Its threads keep the process from ending while a tool
    hangs; these are daemons. A hanging tool would hold its thread's place for good; here a thread
    whose work was given up no longer counts (until ``limit`` are lost), and neither does one that waits in
    a polypod future for others, who may need a thread themselves. Where work waits, none begins, and all
    threads wait for other threads or in event loops of their own, as their stacks show, another comes now
    and then: what they wait for may be that work. And the standard pool wakes a
    thread for each piece of work, and the loop for each result. Here one thread is woken at a time, the
    one that worked last, and it wakes the next if more work waits when it begins: a burst of brief work
    is done by one or two threads, and work that blocks still has a thread each.

    Where given-up work holds the place of every thread, further work waits ``stuck_wait`` seconds for one of
    them to end, and is then refused with ToolError.
    """

    def __init__(
        self,
        limit: int = 32,
        *,
        name: str = "polypod-tool",
        stuck_wait: float = STUCK_WAIT,
        look_wait: float = LOOK_WAIT,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit: expected at least 1, got {limit}")
        self.limit = limit
        self._stuck_wait = stuck_wait
        self._look_wait = look_wait
        self._name = name
        self._closed = False
        self.begin()
        _pools.add(self)

    def begin(self) -> None:
        """Be without threads and work: at the start, and in a forked child, which has none of its
        parent's.
        """
        self._lock = threading.Lock()
        self._jobs: deque[_Job[Any]] = deque()
        #: Where each idle thread waits; it is woken by a release.
        self._idle: list[threading.Lock] = []
        #: Whether a thread was woken or started that has not yet looked for work.
        self._coming = False
        self._threads = 0
        self._lost = 0
        #: Threads whose work was given up and that keep their place all the same.
        self._stuck = 0
        #: How often a thread has come to a piece of work.
        self._begun = 0
        #: Threads that wait for others in a polypod future.
        self._blocked = 0
        #: Of the rest those that wait for others and are not counted for that.
        self._waiting = 0
        #: The work of each thread that is at work, by its identifier.
        self._doing: dict[int, _Job[Any]] = {}
        #: The loops on which it is looked at what threads wait for.
        self._looking: set[asyncio.AbstractEventLoop] = set()

    def __repr__(self) -> str:
        return f"<ToolThreads {self._threads} of {self.limit}, {self._lost} lost, {len(self._jobs)} waiting>"

    async def call(
        self,
        work: Callable[[], T],
        *,
        seconds: float | None = None,
        late: Callable[[T], object] | None = None,
    ) -> T:
        """What ``work`` returns or raises, called in a thread with the caller's context variables.

        Raises ToolTimeout once it has been at work for ``seconds``; the time until a thread is free does
        not count. A thread cannot be stopped from outside: after a time-out or a cancel the work goes on
        where it had begun, and ``late`` is called, on the loop, with what it returns in the end. Raises
        ToolError where no thread comes to it, since all are held by work that was given up.
        """
        job = _Job(work, late)
        self._put(job)
        if self._stuck >= self.limit:
            self._watch(job)
        if seconds is not None:
            job.timer = job.mailroom.loop.call_later(seconds, self._expire, job, seconds)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        finally:
            if seconds is not None:
                job.timer.cancel()

    def close(self) -> None:
        """Take no more work; each thread leaves when what is queued is done. Waits for none."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def _put(self, job: _Job[Any]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the tool threads are closed")
            self._jobs.append(job)
            self._wake_one()
            self._look_soon(job.mailroom.loop)
            if self._threads == self._lost:  # nobody is there who would come to it
                self._jobs.remove(job)
                raise RuntimeError(
                    "no thread can be started for a tool: the operating system's limit is reached"
                )

    @property
    def _working(self) -> int:
        """The threads that count: those that are idle or at work."""
        return self._threads - self._lost - self._blocked - self._waiting

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        may_have_to_wait = self._working >= self.limit or len(self._jobs) > 1
        if may_have_to_wait and loop not in self._looking:
            self._looking = {loop, *(each for each in self._looking if not each.is_closed())}
            loop.call_later(self._look_wait, self._look, loop, self._begun)

    def _look(self, loop: asyncio.AbstractEventLoop, begun: int) -> None:
        """Have one more thread work where work waits, none has begun since ``begun`` pieces had, and all that
        are at work wait for others, who may wait for a thread of this pool.
        """
        with self._lock:
            if not self._jobs:
                self._waiting = 0
                self._looking.discard(loop)
                return
            running = [thread for thread, job in self._doing.items() if job.state == "running"]
            waiting = count_waiting_for_others(running)
            none_works = begun == self._begun and waiting + self._blocked >= len(running)
            self._waiting = min(waiting, self._waiting + none_works)
            self._wake_one()
            loop.call_later(self._look_wait, self._look, loop, self._begun)

    def _wake_one(self) -> None:
        """Have one more thread look for work, unless one is about to, or no more are allowed."""
        if self._coming:
            return
        if self._idle:
            self._idle.pop().release()
            self._coming = True
        elif self._working < self.limit:
            name = f"{self._name}-{self._threads + 1}"
            with contextlib.suppress(RuntimeError):  # the system has none left: those there are go on
                threading.Thread(target=self._serve, name=name, daemon=True).start()
                self._threads += 1
                self._coming = True

    def _expire(self, job: _Job[Any], seconds: float) -> None:
        """Give up work that has taken too long, from its beginning on; look again later where it has not."""
        now = time.monotonic()
        left = (now if job.began is None else job.began) + seconds - now
        if left > 0:
            job.timer = job.mailroom.loop.call_later(left, self._expire, job, seconds)
            return
        self._give_up(job)
        if not job.future.done():
            words = f"not done after {seconds:g} s; it may still be running in its thread"
            job.future.set_exception(ToolTimeout(words))

    def block(self) -> None:
        """Note that the calling thread, one of the pool's, begins to wait for others."""
        with self._lock:
            self._blocked += 1
            if self._jobs:
                self._wake_one()

    def unblock(self) -> None:
        """Note that the calling thread goes on; for a while more threads than ``limit`` may be at work."""
        with self._lock:
            self._blocked -= 1

    def _give_up(self, job: _Job[Any]) -> None:
        """Wait for ``job`` no longer."""
        with self._lock:
            if job.state == "queued":
                job.state = "dropped"
                self._jobs.remove(job)
            elif job.state == "running" and self._lost < self.limit:
                job.state = "lost"
                self._lost += 1
                if self._jobs:
                    self._wake_one()
            elif job.state == "running":
                job.state = "stuck"
                self._stuck += 1
                if self._stuck == self.limit:
                    for waiting in self._jobs:
                        with contextlib.suppress(ActorDeadError, SystemOfParent):  # its loop is closed
                            waiting.mailroom.post(self._watch, waiting)

    def _watch(self, job: _Job[Any]) -> None:
        """Refuse ``job`` in a while, if no thread comes to any work until then. Called on its loop."""
        job.mailroom.loop.call_later(self._stuck_wait, self._refuse_stuck, job, self._begun)

    def _refuse_stuck(self, job: _Job[Any], begun: int) -> None:
        with self._lock:
            if job.state != "queued" or self._stuck < self.limit:
                return
            moved = self._begun != begun
            if not moved:
                job.state = "dropped"
                self._jobs.remove(job)
            stuck = self._stuck + self._lost
        if moved:
            self._watch(job)
        elif not job.future.done():
            job.future.set_exception(
                ToolError(
                    f"not started: no thread was free for {self._stuck_wait:g} s, since {stuck} "
                    "abandoned calls are still running",
                    hint="make tools check ctx.cancel and limit their own waits, or raise tool_threads",
                )
            )

    def _serve(self) -> None:
        belong_to(self)
        lock = self._lock
        wake_up = threading.Lock()
        wake_up.acquire()
        job: _Job[Any] | None = None  # an idle thread must not keep the last result alive
        while True:
            with self._lock:
                if job is None:
                    self._coming = False
                elif self._finish(job):
                    return
                job = self._take()
                if job is None and self._closed:
                    self._threads -= 1
                    return
                if job is None:
                    self._idle.append(wake_up)
            if job is None:
                wake_up.acquire()
            else:
                job.do()
                if self._lock is not lock:  # the work forked, and the child's pool knows no such thread
                    return

    def _finish(self, job: _Job[Any]) -> bool:
        """Count that ``job`` is done; returns whether its thread leaves, since another has its place."""
        del self._doing[threading.get_ident()]
        self._waiting = min(self._waiting, len(self._doing))
        if job.state == "lost":
            self._lost -= 1
        elif job.state == "stuck":
            self._stuck -= 1
        job.state = "done"  # who waits for it may give it up yet
        if self._working > self.limit:
            self._threads -= 1
            return True
        return False

    def _take(self) -> _Job[Any] | None:
        """Take the work that is next, and have another thread come for what is behind it."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        job.state = "running"
        self._doing[threading.get_ident()] = job
        self._begun += 1
        if self._jobs:
            self._wake_one()
        return job


_pools: weakref.WeakSet[ToolThreads] = weakref.WeakSet()


@functools.cache
def shared_threads() -> ToolThreads:
    """The threads of all in this process that bring none of their own."""
    return ToolThreads()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
