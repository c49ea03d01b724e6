"""Refuses waits that would never end: work of an actor that waits for what comes only once it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context, ContextVar
from typing import Any, Protocol, Self

from msgspec import Struct

from actors.runtime.awaited import Timers, find_hold
from actors.runtime.stacks import ends_with
from actors.runtime.tasks import task_on
from protocol.errors import WouldDeadlock

#: After how many seconds a wait is looked at: nearly all answers that need no turn are there by then.
MOMENT = 0.01
#: One that is part of a circle is looked at again, since what stands beside it may end: each time after so
#: many times as long, and at last each so many seconds.
_LONGER = 5
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
        """Note that its code no longer waits for it."""
        with _lock:
            if self.waits is not None:
                self.waits.discard(wait)

    def all_waits(self) -> list[AnyWait]:
        """Those at this moment; from any thread."""
        with _lock:
            return list(self.waits or ())

    def count_waits(self) -> int:
        """How many there are."""
        return len(self.waits or ())

    def end(self) -> None:
        """The work has ended: nothing waits for it."""
        with _lock:
            self.task = self.waits = None


class Place(Protocol):
    """Something that does one piece of work at a time: what it is asked waits for what is at work."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def at_work(self) -> Work | None:
        """What is at work there, from any thread."""

    def refuse_wait(self, wait: AnyWait, /) -> None:
        """Once everything it was asked before is handled, refuse what ``wait`` still ``find_refusals``. If a
        wait ``is_only_one``, work that has not begun never does, and fails; otherwise only the waiter does.
        From any thread.
        """


class Asked(Protocol):
    """Something that a place was asked, to come in a turn of its own; ``number`` is ``next_number()`` at that
    moment.
    """

    @property
    def place(self) -> Place | None:
        """Where it was asked; None once the answer is there."""

    @property
    def number(self) -> int:
        """Counts what was asked so, anywhere."""

    @property
    def caller(self) -> Context | None:
        """The context variables of whoever asked, where they are known."""

    @property
    def is_shared(self) -> bool:
        """Whether several wait for it."""

    def done(self) -> bool:
        """Whether the answer is there."""


#: The work in whose course the running code is called.
work_here: ContextVar[Work | None] = ContextVar("work_here", default=None)

_lock = threading.RLock()  # reentrant: a signal's handler may wait while this thread holds it


def enter_work(loop: asyncio.AbstractEventLoop) -> Work:
    """Note that the running task of that loop does a piece of work, whose code sees that from now on."""
    work = Work(task_on(loop))
    work_here.set(work)
    return work


class AnyWait:
    """A wait, within ``work``, for an answer that comes in a turn of its own."""

    __slots__ = ("_work", "asked", "is_refused")

    _work: Work | None
    #: Whether it ends when its own time is up.
    timed = False
    #: Whether a cancel of who waits for it does not end it.
    outlasts = False

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        #: Whether its place was asked to refuse it.
        self.is_refused = False

    def ends(self) -> Sequence[Any]:
        """The tasks and futures that end only once the waiter goes on; from any thread."""
        raise NotImplementedError

    def fail(self, error: WouldDeadlock) -> None:
        """Make the waiter raise ``error``; from any thread."""
        raise NotImplementedError

    @property
    def is_only_one(self) -> bool:
        """Whether nobody else is known to want the answer: it was asked in the course of the work, and no
        other waits for it.
        """
        caller = self.asked.caller
        return caller is not None and caller.get(work_here) is self._work and not self.asked.is_shared

    def find_refusals(self) -> list[tuple[AnyWait, WouldDeadlock]]:
        """The waits for this one's place that must be refused with it, and why each would never end; none if
        it may end. From any thread. They are found together, because once one is refused the next may end.
        """
        found: list[tuple[AnyWait, WouldDeadlock]] = []
        place = self.asked.place
        holding = {} if self._work is None else _find_stuck(self._work, self)
        for work, edges in holding.items():
            for edge in edges:
                circle = _find_way(edge, work, holding) if edge.place is place else None
                if circle is not None and _last(circle) is edge:
                    found.append((edge.wait, _refusal([each.place.name for each in circle])))
        return found

    def look(self) -> bool:
        """If this wait is part of a circle, have the wait refused in it whose answer was asked for last.
        Returns whether to look again later.
        """
        work = self._work
        if work is None or work.task is None:
            return False
        holding = _find_stuck(work, self)
        for edge in holding.get(work, ()):
            if edge.wait is self and (circle := _find_way(edge, work, holding)) is not None:
                last = _last(circle)
                if not last.wait.is_refused:
                    last.wait.is_refused = True
                    last.place.refuse_wait(last.wait)
        # Without a circle it takes another wait to close one, which is looked at itself.
        return any(work in _reached(edge.to) for edge in _edges([self]))


class Wait(AnyWait):
    """A wait of the running task, within ``work``, for an answer that comes in a turn of its own: while it is
    entered, ``fail`` is called on the loop if it turns out that the wait can never end.
    """

    __slots__ = ("_fail", "_loop", "_next_look", "_task", "_timer")

    def __init__(self, work: Work, asked: Asked, fail: Callable[[WouldDeadlock], object]) -> None:
        super().__init__(asked)
        self._work, self._fail = work, fail
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        work.begin_wait(self)
        self._next_look = MOMENT
        self._timer = self._loop.call_later(MOMENT, self._look)

    def ends(self) -> Sequence[Any]:
        waits_for = getattr(self._task, "_fut_waiter", None)
        return () if waits_for is None or waits_for.done() else (self._task,)  # it is about to go on

    def fail(self, error: WouldDeadlock) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._fail, error)

    def _look(self) -> None:
        if self.look():
            self._next_look = _later(self._next_look)
            self._timer = self._loop.call_later(self._next_look, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        assert self._work is not None
        self._work.end_wait(self)


class ThreadWait(AnyWait):
    """A wait of the calling thread for an answer that comes in a turn of its own; ``fail`` is called, on any
    thread, if it turns out that it can never end.

    The thread itself has to ``look``, after ``next_look`` seconds each time. ``timed`` says that it waits
    only for a limited time.
    """

    __slots__ = ("_ends", "_fail", "_place", "next_look", "timed")

    outlasts = True

    def __init__(self, asked: Asked, fail: Callable[[WouldDeadlock], object], *, timed: bool = False) -> None:
        super().__init__(asked)
        self._place, self._fail, self.timed = asked.place, fail, timed
        self._work = None if self._place is None else work_here.get()
        #: The tasks and futures that end only once the thread goes on; None until they are looked for.
        self._ends: list[Any] | None = None
        #: None for no need to look.
        self.next_look: float | None = None if self._place is None else MOMENT

    def ends(self) -> Sequence[Any]:
        return self._ends or ()

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
        self.next_look = _later(self.next_look or MOMENT) if again else None
        return again

    def _enter_found(self, place: Place) -> None:
        """Find the work in whose course the thread waits, where no context says so, as in an executor's: the
        work of ``place``, if that waits for the thread.
        """
        work = place.at_work
        by = None if work is None else work.task
        if work is not None and by is not None and find_hold(self.ends(), by, by_any=True) is not None:
            self._work = work
            work.begin_wait(self)


def _later(seconds: float) -> float:
    return min(seconds * _LONGER, _LOOK_AGAIN)


def _refusal(names: list[str]) -> WouldDeadlock:
    first, *others = names
    words = f"pod {first!r} would wait for itself: it can continue only after this call has ended"
    if others:
        words = (
            f"pod {first!r} waits for {', which waits for '.join(map(repr, others))}, which "
            "waits for this call"
        )
    return WouldDeadlock(
        words, hint="ask another pod, or send a message with notify() or steer() without waiting for it"
    )


class _Edge(Struct, frozen=True):
    """A wait, the place that it waits for, and what is at work there."""

    wait: AnyWait
    place: Place
    to: Work


def _edges(waits: Iterable[AnyWait]) -> Iterator[_Edge]:
    for wait in waits:
        if (place := wait.asked.place) is not None and (to := place.at_work) is not None:
            yield _Edge(wait, place, to)


def _find_stuck(work: Work, wait: AnyWait) -> dict[Work, list[_Edge]]:
    """``work`` and those it waits for if they can certainly never go on, each with the waits that hold it up,
    ``wait`` among those of ``work``; none if that may end.
    """
    for first in _edges([wait]):
        if first.to is work and first in (edges := _holding(work, {work}, None)):
            return {work: edges}
        stuck = _in_circles(_reached(first.to))
        timers = Timers()
        # In the end those are left that are held up by others that are left. Who waits for most is looked at
        # first: that may go on by any of them.
        while work in stuck:
            holding: dict[Work, list[_Edge]] = {}
            for each in sorted(stuck, key=Work.count_waits, reverse=True):
                holding[each] = _holding(each, stuck, timers)
                if not holding[each]:
                    stuck = _in_circles(stuck - {each})
                    break
            else:
                return holding if first in holding[work] else {}
    return {}


def _reached(work: Work) -> set[Work]:
    """``work`` and all that its code waits for, as far as waits lead."""
    reached, found = {work}, [work]
    while found:
        for edge in _edges(found.pop().all_waits()):
            if edge.to not in reached:
                reached.add(edge.to)
                found.append(edge.to)
    return reached


def _in_circles(works: set[Work]) -> set[Work]:
    """Those of ``works`` whose code waits for others of them."""
    while True:
        left = {each for each in works if any(edge.to in works for edge in _edges(each.all_waits()))}
        if left == works:
            return left
        works = left


def _holding(work: Work, stuck: set[Work], timers: Timers | None) -> list[_Edge]:
    """The waits that hold ``work`` up if everything that is ``stuck`` never ends; none if it may go on.

    With ``timers``, a limited time lets it go on. With None, for a work that waits for itself, that counts
    only if the waiter still gets the answer after its time is up; otherwise it never does.
    """
    by = work.task
    edges = [
        edge for edge in _edges(work.all_waits()) if edge.to in stuck and not (timers and edge.wait.timed)
    ]
    if by is None or by.done() or not edges:
        return []
    if (hold := find_hold([end for edge in edges for end in edge.wait.ends()], by)) is None:
        return []
    nodes = set(map(id, hold.nodes))
    edges = [edge for edge in edges if not nodes.isdisjoint(map(id, edge.wait.ends()))]
    if timers is None and (hold.outlasts or any(edge.wait.outlasts for edge in edges)):
        timers = Timers(of_users=True)
    return [] if timers is not None and timers.may_end(hold.nodes) else edges


def _find_way(first: _Edge, to: Work, holding: dict[Work, list[_Edge]]) -> list[_Edge] | None:
    """The shortest way, by waits that hold, from ``first``, a wait of ``to``, back to it; None if there is
    none.
    """
    ways, seen = [[first]], set()
    for way in ways:
        at = way[-1].to
        if at is to:
            return way
        if at not in seen:
            seen.add(at)
            ways += [[*way, edge] for edge in holding[at]]
    return None


def _last(circle: list[_Edge]) -> _Edge:
    """The wait whose answer was asked for last."""
    return max(circle, key=lambda edge: edge.wait.asked.number)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
