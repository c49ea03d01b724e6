"""Refuses waits that would never end: work of an actor that waits for what comes only once it has ended."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType, FunctionType
from typing import Any, NamedTuple, Protocol, Self

import pykka
from msgspec import Struct

from actors.runtime.blocking import given_up_here
from actors.runtime.tasks import task_on
from protocol.errors import WouldDeadlock

#: How long an answer that needs no turn may take, in seconds: a wait is not looked at before.
MOMENT = 0.01
#: How often it is looked whether a task that waits has come to be waited for, and how long another wait of a
#: circle, that is to be refused first, may take to be so on a busy machine; in seconds.
_LOOK_AGAIN = 1.0


#: The number of what is asked next.
next_number = itertools.count().__next__


class Work(Struct, eq=False, gc=False):  # untracked, so that it costs a run no collection
    """A piece of work of one actor, as code within it sees it. It knows nothing of the actor, which contexts
    that outlive the work must not keep alive.
    """

    #: The task that does the work; None once it has ended.
    task: asyncio.Task[Any] | None
    #: The waits of its code for what comes in a turn of its own; None until there is one.
    waits: set[Wait | ThreadWait] | None = None

    def begin_wait(self, wait: Wait | ThreadWait) -> None:
        """Note that its code waits for a turn."""
        with _lock:
            if self.waits is None:
                self.waits = set()
            self.waits.add(wait)

    def end_wait(self, wait: Wait | ThreadWait) -> None:
        """Note that it does no more."""
        with _lock:
            assert self.waits is not None
            self.waits.remove(wait)

    def end(self) -> None:
        """The work has ended: nothing waits for it."""
        self.task = None


class Place(Protocol):
    """Who does one piece of work at a time: what it is asked waits for what is at work."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def at_work(self) -> Work | None:
        """What is at work there, from any thread."""

    def withdraw(self, asked: Any, error: WouldDeadlock, /) -> None:
        """Nobody can wait for ``asked``: what has not begun of it never does, and fails; from any thread."""


class Asked(Protocol):
    """What was asked of a place, to come in a turn of its own; ``number`` is ``next_number()`` of then."""

    @property
    def place(self) -> Place | None:
        """Where that is; None once it is there."""

    @property
    def number(self) -> int:
        """Counts what was asked so, anywhere."""


#: The work in whose course the running code is called.
work_here: ContextVar[Work | None] = ContextVar("work_here", default=None)

_lock = threading.Lock()


def enter_work(loop: asyncio.AbstractEventLoop) -> Work:
    """Note that the running task of that loop does a piece of work, whose code sees that from now on."""
    work = Work(task_on(loop))
    work_here.set(work)
    return work


class Wait:
    """A wait of the running task, within ``work``, for what comes in a turn of its own: while this is
    entered, ``refuse`` is called on the loop if it comes to be known that the wait can never end. Of several
    in a circle the one for what was asked last is refused.
    """

    __slots__ = ("_doubted", "_refuse", "_task", "_thread", "_timer", "_work", "asked")

    def __init__(self, work: Work, asked: Asked, refuse: Callable[[WouldDeadlock], object]) -> None:
        self._work, self.asked, self._refuse = work, asked, refuse
        self._task = asyncio.current_task()
        by, loop = work.task, asyncio.get_running_loop()
        #: Says of a loop of the tool's own whether the work waits for its thread.
        self._thread = _thread_here(work) if by is not None and by.get_loop() is not loop else None
        self._doubted = False
        work.begin_wait(self)
        self._timer = loop.call_later(MOMENT, self._look)

    def is_waited_for(self) -> bool:
        """Whether the work waits for this wait, as far as that can be seen: its code may wait beside it, as
        what a tool left behind does.
        """
        by = self._work.task
        if self._task is None or by is None or by.done():
            return False
        if self._thread is not None and self._thread(by):
            return True  # which waits for what its loop does
        return _is_awaited(self._task, by)

    def _look(self) -> None:
        circle = _find_circle(self._work, self)
        if circle is not None and (self._doubted or circle.last == self.asked.number):
            self._refuse(_refusal(circle))
            return
        self._doubted = circle is not None  # what was asked later is about to be refused
        may_come_to_be = self._work.task is not None and not self.is_waited_for()
        if self._doubted or may_come_to_be:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._work.end_wait(self)


class ThreadWait:
    """A wait of the calling thread for what comes in a turn of its own. The thread has to ``look`` itself now
    and then; ``within`` says whether it is in the course of any work.
    """

    __slots__ = ("_doubted", "_place", "_thread", "_work", "asked", "within")

    def __init__(self, asked: Asked) -> None:
        self.asked, self._place, self._work = asked, asked.place, work_here.get()
        known = self._work is not None or given_up_here() is None  # else nobody knows for whom it works
        self._thread = _thread_here(self._work) if known and self._place is not None else None
        self.within = self._place is not None and (self._work is not None or self._thread is not None)
        self._doubted = False

    def is_waited_for(self) -> bool:
        """Whether the work waits for the thread, as far as that can be seen: its time may be up meanwhile."""
        by = None if self._work is None else self._work.task
        return by is not None and (self._thread is None or self._thread(by))

    def __enter__(self) -> Self:
        if self.within and self._work is not None:
            self._work.begin_wait(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.within and self._work is not None:
            self._work.end_wait(self)

    def _enter_found(self, place: Place) -> Work | None:
        """The work of ``place``, if that waits for the thread, which waits in its course from now on: that of
        an executor has no context that would say so.
        """
        work = place.at_work
        if work is None or work.task is None or self._thread is None or not self._thread(work.task):
            return None
        self._work = work
        work.begin_wait(self)
        return work

    def look(self, *, surely: bool = False) -> float | None:
        """In how many seconds to look again; None for no need to. Raises WouldDeadlock where the wait would
        never end; ``surely`` also where something that was asked later may be refused in its place.
        """
        if not self.within or self._place is None:
            return None
        work = self._work or self._enter_found(self._place)
        if work is None:
            return _LOOK_AGAIN
        circle = _find_circle(work, self)
        if circle is not None and (surely or self._doubted or circle.last == self.asked.number):
            refused = _refusal(circle)
            self._place.withdraw(self.asked, refused)
            raise refused
        self._doubted = circle is not None
        may_come_to_be = work.task is not None and not self.is_waited_for()
        return _LOOK_AGAIN if self._doubted or may_come_to_be else None


class _Circle(NamedTuple):
    """The names on the way from a wait back to its work, and the number of what was asked last."""

    names: tuple[str, ...]
    last: int


def _refusal(circle: _Circle) -> WouldDeadlock:
    first, *others = circle.names
    words = f"pod {first!r} would wait for itself: its turn comes only once this has ended"
    if others:
        words = (
            f"pod {first!r} waits for {', which waits for '.join(map(repr, others))}, which waits for this"
        )
    return WouldDeadlock(
        words, hint="ask another pod, or send words by notify() or steer() and do not wait for that"
    )


def _find_circle(work: Work, wait: Wait | ThreadWait) -> _Circle | None:
    """The way from a wait of ``work`` to that work, which is at work at the last place; None without one."""
    seen: set[Work] = set()
    with _lock:
        ways = [(_Circle((), 0), wait)]
        while ways:
            way, next_ = ways.pop()
            if (place := next_.asked.place) is None or (other := place.at_work) is None or other in seen:
                continue
            # Asked last, since it is dear: nearly all who are waited for wait for nobody.
            if (other is not work and not other.waits) or not next_.is_waited_for():
                continue
            way = _Circle((*way.names, place.name), max(way.last, next_.asked.number))
            if other is work:
                return way
            seen.add(other)
            ways.extend((way, further) for further in other.waits or ())
    return None


# -- which task waits for which ----------------------------------------------------------------------


def _thread_here(work: Work | None) -> Callable[[asyncio.Task[Any]], bool] | None:
    """What says whether a task waits for what the calling thread does, which is in the course of ``work`` as
    far as its context knows; None where nobody would know.
    """
    if (given_up := given_up_here()) is not None:
        return lambda _: not given_up()
    job, in_course = _job_here(), work is not None
    return None if job is None else lambda by: _is_awaited(job, by, in_course=in_course)


def _job_here() -> concurrent.futures.Future[Any] | None:
    """The future of what the calling thread does for an executor, as for ``asyncio.to_thread``; else None.
    The thread itself knows it from its stack alone.
    """
    if (threads := sys.modules.get("concurrent.futures.thread")) is None:
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not threads._WorkItem.run.__code__:
        frame = frame.f_back
    return None if frame is None else getattr(frame.f_locals.get("self"), "future", None)


def _is_awaited(
    asked: asyncio.Task[Any] | concurrent.futures.Future[Any],
    by: asyncio.Task[Any],
    *,
    in_course: bool = True,
) -> bool:
    """Whether ``by`` waits for what was ``asked``, as far as that can be seen: from another loop or a thread
    by the future of a ``run_coroutine_threadsafe``. ``in_course`` says that it was asked in the course of
    the work of ``by``: then a thread that blocks on it is taken for one of that work. Elsewhere it may be
    any, as the one that has given work to an executor.
    """
    seen: set[Any] = set()
    found: list[Any] = [asked]
    while found:
        each = found.pop()
        if each is by:
            return True
        if each not in seen:
            seen.add(each)
            is_of_threads = isinstance(each, concurrent.futures.Future)
            if is_of_threads and in_course and each._condition._waiters:
                return True
            for callback in getattr(each, "_done_callbacks" if is_of_threads else "_callbacks", None) or ():
                with contextlib.suppress(Exception):  # a user's object, or a variable that is not there yet
                    found += _futures_in(callback[0] if isinstance(callback, tuple) else callback)
    return False


def _futures_in(callback: Any) -> Iterator[Any]:
    """The tasks and futures that go on by a callback: of who waits for several, as a gather or a task group,
    what waits for all of them.
    """
    if isinstance(callback, functools.partial):
        held = [callback.func, *callback.args]
    elif isinstance(callback, FunctionType):
        held = [cell.cell_contents for cell in callback.__closure__ or ()]
    else:
        held = [getattr(callback, "__self__", None)]
    for each in held:
        if _is_future(each):
            yield each
        else:
            yield from filter(_is_future, _members(each))


def _members(of: Any) -> Iterator[Any]:
    for value in [*getattr(of, "__dict__", {}).values(), *_in_slots(of)]:
        if isinstance(value, asyncio.Queue):  # of an as_completed, from Python 3.13 on
            yield from _members(value)
        else:
            yield from tuple(value) if isinstance(value, deque) else (value,)  # another thread may change it


def _in_slots(of: Any) -> list[Any]:
    return [getattr(of, name, None) for name in getattr(type(of), "__slots__", ())]


def _is_future(value: Any) -> bool:
    return isinstance(value, asyncio.Future | pykka.Future | concurrent.futures.Future)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
