"""Refuses waits that would never end: work of an actor that waits for what comes only once it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from typing import Any, NamedTuple, Protocol, Self

from msgspec import Struct

from actors.runtime.awaited import is_awaited, is_timed
from actors.runtime.stacks import ends_with
from actors.runtime.tasks import task_on
from protocol.errors import WouldDeadlock

#: After how many seconds a wait is looked at: nearly all answers that need no turn are there by then.
MOMENT = 0.01
#: How often it is looked at again, in seconds: what waits may come to be waited for.
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
    waits: set[AnyWait] | None = None

    def begin_wait(self, wait: AnyWait) -> None:
        """Note that its code waits for a turn."""
        with _lock:
            if self.waits is None:
                self.waits = set()
            self.waits.add(wait)

    def end_wait(self, wait: AnyWait) -> None:
        """Note that it does no more."""
        with _lock:
            if self.waits is not None:
                self.waits.discard(wait)

    def all_waits(self) -> list[AnyWait]:
        """Those at this moment; from any thread."""
        with _lock:
            return list(self.waits or ())

    def end(self) -> None:
        """The work has ended: nothing waits for it."""
        with _lock:
            self.task = self.waits = None


class Place(Protocol):
    """Who does one piece of work at a time: what it is asked waits for what is at work."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def at_work(self) -> Work | None:
        """What is at work there, from any thread."""

    def refuse_wait(self, wait: AnyWait, /) -> None:
        """Once all it was asked before is handled, refuse ``wait`` where it still ``find_refusal``s: what was
        ``asked_here`` and has not begun never does, and fails; else only who waits does. From any thread.
        """


class Asked(Protocol):
    """What was asked of a place, to come in a turn of its own; ``number`` is ``next_number()`` of then."""

    @property
    def place(self) -> Place | None:
        """Where that is; None once it is there."""

    @property
    def number(self) -> int:
        """Counts what was asked so, anywhere."""

    @property
    def caller(self) -> Context | None:
        """The context variables of who asked, where they are known."""

    def done(self) -> bool:
        """Whether it is there."""


#: The work in whose course the running code is called.
work_here: ContextVar[Work | None] = ContextVar("work_here", default=None)

_lock = threading.RLock()  # reentrant: a signal's handler may wait while this thread holds it


def enter_work(loop: asyncio.AbstractEventLoop) -> Work:
    """Note that the running task of that loop does a piece of work, whose code sees that from now on."""
    work = Work(task_on(loop))
    work_here.set(work)
    return work


class AnyWait:
    """A wait, within ``work``, for what comes in a turn of its own."""

    __slots__ = ("_work", "asked", "is_refused")

    _work: Work | None

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        #: Whether its place was asked to refuse it.
        self.is_refused = False

    def ends(self) -> Sequence[Any]:
        """The tasks and futures that end only once who waits goes on; from any thread."""
        raise NotImplementedError

    def is_awaited(self, by: asyncio.Task[Any]) -> bool:
        """Whether the task ``by`` waits for this wait; from any thread."""
        return is_awaited(self.ends(), by)

    def is_timed(self, by: asyncio.Task[Any]) -> bool:
        """Whether it, or that the task ``by`` waits for it, may end when a time is up; from any thread."""
        return is_timed(self.ends(), by)

    def fail(self, error: WouldDeadlock) -> None:
        """Have who waits raise ``error``; from any thread."""
        raise NotImplementedError

    @property
    def asked_here(self) -> bool:
        """Whether it was asked in the course of the work, as far as is known: else others wait for it too."""
        caller = self.asked.caller
        return caller is None or caller.get(work_here) is self._work

    def find_refusal(self) -> WouldDeadlock | None:
        """Why this wait would never end; None where it may. From any thread."""
        if self.asked.done() or self._work is None or self not in self._work.all_waits():
            return None
        circle = _find_circle(self._work, self)
        return None if circle is None else _refusal([edge.place for edge in circle])

    def look(self) -> bool:
        """Where this wait is part of a circle, have the one of it refused for what was asked last. Returns
        whether to look again later.
        """
        work = self._work
        by = None if work is None else work.task
        if work is None or by is None:
            return False
        if (circle := _find_circle(work, self)) is None:
            return not self.is_awaited(by)
        last = max((edge.wait for edge in circle), key=lambda wait: wait.asked.number)
        place = last.asked.place
        if place is not None and not last.is_refused:
            last.is_refused = True
            place.refuse_wait(last)
        return True


class Wait(AnyWait):
    """A wait of the running task, within ``work``, for what comes in a turn of its own: while this is
    entered, ``fail`` is called on the loop if it comes to be known that the wait can never end.
    """

    __slots__ = ("_fail", "_loop", "_task", "_timer")

    def __init__(self, work: Work, asked: Asked, fail: Callable[[WouldDeadlock], object]) -> None:
        super().__init__(asked)
        self._work, self._fail = work, fail
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        work.begin_wait(self)
        self._timer = self._loop.call_later(MOMENT, self._look)

    def ends(self) -> Sequence[Any]:
        return () if self._task is None else (self._task,)

    def fail(self, error: WouldDeadlock) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._fail, error)

    def _look(self) -> None:
        if self.look():
            self._timer = self._loop.call_later(_LOOK_AGAIN, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        assert self._work is not None
        self._work.end_wait(self)


class ThreadWait(AnyWait):
    """A wait of the calling thread for what comes in a turn of its own; ``fail`` is called, on any thread, if
    it comes to be known that it can never end. The thread has to ``look`` itself, after ``next_look`` seconds
    each time. ``timed`` says that it waits for so long only.
    """

    __slots__ = ("_ends", "_fail", "_is_found", "_place", "_timed", "next_look")

    def __init__(self, asked: Asked, fail: Callable[[WouldDeadlock], object], *, timed: bool = False) -> None:
        super().__init__(asked)
        self._place, self._fail, self._timed = asked.place, fail, timed
        self._work = None if self._place is None else work_here.get()
        #: Whether no context says that the thread is in the course of the work.
        self._is_found = False
        #: The tasks and futures that end only once the thread goes on; None until they are looked for.
        self._ends: list[Any] | None = None
        #: None for no need to look.
        self.next_look: float | None = None if self._place is None else MOMENT

    def ends(self) -> Sequence[Any]:
        return self._ends or ()

    def is_timed(self, by: asyncio.Task[Any]) -> bool:
        return self._timed or super().is_timed(by)

    @property
    def asked_here(self) -> bool:
        return self._is_found or super().asked_here

    def fail(self, error: WouldDeadlock) -> None:
        self._fail(error)

    def __enter__(self) -> Self:
        if self._work is not None:
            self._ends = ends_with(sys._getframe(1))
            self._work.begin_wait(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._work is not None:
            self._work.end_wait(self)

    def look(self) -> bool:
        if self._place is None:
            return False
        if self._ends is None:
            self._ends = ends_with(sys._getframe(1))
        if self._ends and self._work is None:
            self._enter_found(self._place)
        # Where nothing ends with the thread, nobody is known to wait for it.
        again = bool(self._ends) and (self._work is None or super().look())
        self.next_look = _LOOK_AGAIN if again else None
        return again

    def _enter_found(self, place: Place) -> None:
        """Find the work in whose course the thread waits, where no context says so, as in an executor's: the
        work of ``place``, if that waits for the thread.
        """
        work = place.at_work
        by = None if work is None else work.task
        if work is not None and by is not None and self.is_awaited(by):
            self._work, self._is_found = work, True
            work.begin_wait(self)


def _refusal(names: list[str]) -> WouldDeadlock:
    first, *others = names
    words = f"pod {first!r} would wait for itself: its turn comes only once this has ended"
    if others:
        words = (
            f"pod {first!r} waits for {', which waits for '.join(map(repr, others))}, which waits for this"
        )
    return WouldDeadlock(
        words, hint="ask another pod, or send words by notify() or steer() and do not wait for that"
    )


class _Edge(NamedTuple):
    """A wait, the task of its work, and the name of its place."""

    wait: AnyWait
    by: asyncio.Task[Any]
    place: str


def _find_circle(work: Work, wait: AnyWait) -> list[_Edge] | None:
    """The waits on the way from a wait of ``work`` to that work, which is at work at the last place; None
    without one, or where one of several waits ends when its time is up: then the others get their turn.
    """
    seen: set[Work] = set()
    ways: list[tuple[AnyWait, Work, list[_Edge]]] = [(wait, work, [])]
    while ways:
        next_, of, way = ways.pop()
        if (place := next_.asked.place) is None or (other := place.at_work) is None or other in seen:
            continue
        # Whether it is awaited comes late, since that is dear: nearly all who are waited for wait for nobody.
        if (other is not work and not other.waits) or (by := of.task) is None or by.done():
            continue
        if not next_.is_awaited(by):
            continue
        way = [*way, _Edge(next_, by, place.name)]
        if other is not work:
            seen.add(other)
            ways.extend((further, other, way) for further in other.all_waits())
        elif len(way) == 1 or not any(edge.wait.is_timed(edge.by) for edge in way):
            return way
    return None


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
