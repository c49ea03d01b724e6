"""``AsyncFuture``: a pykka future that can be awaited in any event loop, or got on any thread."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextvars import Context
from types import TracebackType
from typing import Any, TypeVar

import pykka

from actors.runtime.arguments import wait_of
from actors.runtime.blocking import blocked
from actors.runtime.circles import Place, ThreadWait, Wait, work_here
from actors.runtime.loop import at_work, comes_soon, deliver_now, of_parent
from actors.runtime.tasks import task_on
from protocol.errors import SystemOfParent, WouldDeadlock

logger = logging.getLogger("pykka")

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")
J = TypeVar("J")

OptExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

#: Guards the step from pending to done of every future; it is held for a few instructions.
_lock = threading.RLock()  # reentrant: a signal's handler may be called while this thread holds it
#: How often, in seconds, a thread that waits looks whether the loop it waits for still lives.
_HEARTBEAT = 1.0


class AsyncFuture(pykka.Future[T], Awaitable[T]):
    """A value that is there now or later.

    ``await future`` works in any event loop, ``future.get(timeout=…)`` (seconds) on any thread but the
    one whose loop has to bring the value: there it raises WouldDeadlock instead of hanging. An awaiter
    that goes away (cancelled task, closed loop) is forgotten and never cancels the work, unless
    ``on_abandon`` says what becomes of it then.

    What most futures come to have has a slot; the rest stands in the class until it is set: a dict of its own
    is a quarter of a kilobyte for each, and every question has one.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_loop", "_value", "caller", "number", "place")

    #: Of what comes in a turn of its ``place``: its number among such.
    number: int

    _traceback: TracebackType | None = None
    _get_hook: Callable[[float | None], T] | None = None
    #: Whether it is worked out when somebody asks for it: until then nobody knows of an error.
    is_lazy: bool = False
    #: Called where a task that awaits the value is cancelled; None where the work goes on whoever waits.
    on_abandon: Callable[[], object] | None = None

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] | None = None
        #: The loop that brings the value; None where any thread may.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Of a reply: the context variables of who asked, where they matter to the work.
        self.caller: Context | None = None
        #: Of a reply that is still to come: whose turn it comes with; None for none.
        self.place: Place | None = None

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error is not None else "done"
        return f"<AsyncFuture {state}>"

    @classmethod
    def resolved(cls, value: T) -> AsyncFuture[T]:
        """A future whose value is there already."""
        future: AsyncFuture[T] = AsyncFuture()
        future._value = value
        future._done = True
        return future

    @classmethod
    def failed(cls, error: BaseException) -> AsyncFuture[T]:
        """A future that raises ``error``."""
        future: AsyncFuture[T] = AsyncFuture()
        future._error = error
        future._traceback = error.__traceback__
        future._done = True
        return future

    @classmethod
    def derived(
        cls,
        sources: Sequence[pykka.Future[Any]],
        combine: Callable[[list[Any]], T],
        recover: Callable[[BaseException], T] | None = None,
    ) -> AsyncFuture[T]:
        """A future made from others: ``combine`` gets their values when the result is asked for; ``recover``
        may turn the error of a source into a value, or raise.
        """
        return _Derived(sources, combine, recover)

    def done(self) -> bool:
        """Whether the value (or error) is there."""
        return self._done

    @property
    def is_shared(self) -> bool:
        """Whether several wait for it."""
        return len(self._callbacks or ()) > 1

    def exception(self) -> BaseException | None:
        """The error of a future that is done; None where it has a value."""
        return self._error

    # -- the giver's side ------------------------------------------------------------------------

    def set(self, value: T | None = None) -> None:
        """Set the value. Raises queue.Full if the future has one."""
        self._settle(value)

    def set_exception(self, exc_info: OptExcInfo | BaseException | None = None) -> None:
        """Set the error: an exception, an ``exc_info`` triple, or the one being handled.

        Raises queue.Full if the future has a value or an error.
        """
        if not isinstance(exc_info, BaseException):
            kind, error, traceback = exc_info if exc_info is not None else sys.exc_info()
            if error is None:
                error = (kind or RuntimeError)()
            exc_info = error.with_traceback(traceback) if traceback is not None else error
        self._settle(None, exc_info)

    def _settle(self, value: Any, error: BaseException | None = None) -> None:
        with _lock:
            if self._done or self._get_hook is not None:
                raise queue.Full
            self._value = value
            if error is not None:
                self._error = error
                self._traceback = error.__traceback__
            self._done = True
            if self.place is not None:
                self.place = None  # who keeps a result does not keep the actor
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            _call_all(callbacks)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have ``func(timeout)`` provide the value when it is asked for. Raises queue.Full if it is there."""
        with _lock:
            if self._done:
                raise queue.Full
            self._get_hook = func
            self.is_lazy = True

    def _keep(self, value: T) -> None:
        """Keep what a hook returned; if two threads asked at once, the first result stands."""
        with _lock:
            if self._done:
                return
            self._value = value
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        _call_all(callbacks)

    # -- the taker's side ------------------------------------------------------------------------

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the value is there: on the thread that sets it, or now. What it
        raises is logged.
        """
        if self._get_hook is not None and not self._done:
            on_own_thread(self.get).when_done(callback)
            return
        with _lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        _call_all([callback])

    def _forget(self, callback: Callable[[], object]) -> bool:
        """Whoever gave ``callback`` waits no more. Returns whether it is not called any more."""
        with _lock:
            if self._callbacks is None or callback not in self._callbacks:
                return False
            self._callbacks.remove(callback)
            return True

    def get(self, *, timeout: float | None = None) -> T:
        """The value, waited for at most ``timeout`` seconds.

        Raises pykka.Timeout, WouldDeadlock, pykka.ActorDeadError if the loop that has to bring the
        value is closed, or the error that the future holds.
        """
        if not self._done:
            self._refuse_deadlock()
        return self._got(timeout)

    def _got(self, timeout: float | None) -> T:
        if not self._done:
            self._wait(timeout)
        return self._outcome()

    def _refuse_deadlock(self) -> None:
        running = asyncio._get_running_loop()
        if running is not None and self._blocked_by(running):
            raise WouldDeadlock(
                "get() would block the event loop that must produce the value",
                hint="await the future instead",
            )

    def _blocked_by(self, running: asyncio.AbstractEventLoop) -> bool:
        """Whether waiting on the thread of ``running`` could never end."""
        if self._done or self._get_hook is not None:
            return False
        return self._loop is None or self._loop is running

    def _wait(self, timeout: float | None) -> None:
        """Block until the value is there. Raises as ``get`` does."""
        if self._get_hook is not None:
            self._keep(self._get_hook(timeout))
        elif not comes_soon(self.done):
            self._sleep(timeout)

    def _sleep(self, timeout: float | None) -> None:
        self._check_alive()
        wake_up = threading.Lock()
        wake_up.acquire()
        self.when_done(wake_up.release)
        deadline = _deadline(timeout)
        refused: list[WouldDeadlock] = []

        def fail(error: WouldDeadlock) -> None:
            if self._forget(wake_up.release):
                refused.append(error)
                wake_up.release()

        try:
            with blocked(), ThreadWait(self, fail, timed=deadline is not None) as wait:
                while not wake_up.acquire(timeout=min(wait.next_look or _HEARTBEAT, _left(deadline))):
                    if self._done:
                        break
                    self._check_alive()
                    wait.look()
                    if _left(deadline) <= 0:
                        raise pykka.Timeout(f"{timeout} seconds")
        finally:
            if not self._done:
                self._forget(wake_up.release)
        if refused and not self._done:
            raise refused[0]

    def _check_alive(self) -> None:
        if of_parent(self._loop) and not self._done:
            raise SystemOfParent
        if self._loop is not None and self._loop.is_closed() and not self._done:
            raise pykka.ActorDeadError("the event loop that must produce the value is closed")

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # else it would grow with each raise
        return self._value  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            if self._get_hook is not None:
                return (yield from on_own_thread(self.get).__await__())
            loop = asyncio._get_running_loop()
            if self._loop is loop and loop is not None:
                others_had_turn = deliver_now(loop)
                if self._done:
                    if not others_had_turn:
                        yield
                    return self._outcome()
            else:
                self._check_alive()
                loop = asyncio.get_running_loop()
            waiter = _Waiter(loop)
            self.when_done(waiter.wake)
            try:
                if self.place is None or (work := work_here.get()) is None or work.task is None:
                    yield from waiter.future
                else:
                    with Wait(work, self, waiter.fail):
                        yield from waiter.future
            except asyncio.CancelledError:
                self._note_abandoned()
                raise
            finally:
                if not self._done:
                    self._forget(waiter.wake)
        return self._outcome()

    __iter__ = __await__

    def _note_abandoned(self) -> None:
        if self.on_abandon is not None and not self.done():
            _call_all([self.on_abandon])

    # -- made of others --------------------------------------------------------------------------

    def map(self, func: Callable[[T], M]) -> AsyncFuture[M]:
        """A future of ``func(value)``."""
        return AsyncFuture.derived([self], lambda values: func(values[0]))

    def filter(self: AsyncFuture[Iterable[J]], func: Callable[[J], bool]) -> AsyncFuture[Iterable[J]]:
        """A future of the list of the value's elements for which ``func`` is true."""
        return AsyncFuture.derived([self], lambda values: list(filter(func, values[0])))

    def join(self: AsyncFuture[Any], *futures: pykka.Future[Any]) -> AsyncFuture[Iterable[Any]]:
        """A future of the list of all values."""
        return AsyncFuture.derived([self, *futures], lambda values: values)

    def reduce(self: AsyncFuture[Iterable[J]], func: Callable[[R, J], R], *args: R) -> AsyncFuture[R]:
        """A future of the value's elements folded by ``func``."""
        return AsyncFuture.derived([self], lambda values: functools.reduce(func, values[0], *args))


class _Derived(AsyncFuture[T]):
    """A future of other futures; like pykka's hooks it is worked out by whoever asks for it first."""

    is_lazy = True

    def __init__(
        self,
        sources: Sequence[pykka.Future[Any]],
        combine: Callable[[list[Any]], T],
        recover: Callable[[BaseException], T] | None,
    ) -> None:
        super().__init__()
        self._sources = sources
        self._combine = combine
        self._recover = recover

    def done(self) -> bool:
        """Whether the value can be had without waiting; of pykka's own futures that is not known."""
        return self._done or all(isinstance(s, AsyncFuture) and s.done() for s in self._sources)

    def _settle(self, _value: Any, _error: BaseException | None = None) -> None:
        raise queue.Full

    def set_get_hook(self, _func: Callable[[float | None], T]) -> None:
        raise queue.Full

    def when_done(self, callback: Callable[[], object]) -> None:
        self._wait_for_rest(iter(self._sources), callback)

    def _wait_for_rest(self, rest: Iterator[pykka.Future[Any]], callback: Callable[[], object]) -> None:
        for each in rest:
            source = _awaitable(each)
            if not source.done():
                source.when_done(lambda: self._wait_for_rest(rest, callback))
                return
        _call_all([callback])

    def _blocked_by(self, running: asyncio.AbstractEventLoop) -> bool:
        return any(isinstance(s, AsyncFuture) and s._blocked_by(running) for s in self._sources)

    def _wait(self, timeout: float | None) -> None:
        deadline = _deadline(timeout)
        try:
            values = [
                source.get(timeout=None if deadline is None else _left(deadline)) for source in self._sources
            ]
        except pykka.Timeout:
            raise
        except Exception as error:  # noqa: BLE001 - recovered from, or raised again
            self._keep(self._recovered(error))
        else:
            self._keep(self._combine(values))

    def __await__(self) -> Generator[Any, None, T]:
        if self._done:
            return self._outcome()
        values = []
        try:
            for source in self._sources:
                values.append((yield from _awaitable(source).__await__()))  # noqa: PERF401
        except asyncio.CancelledError:
            self._note_abandoned()
            raise
        except Exception as error:  # noqa: BLE001 - recovered from, or raised again
            self._keep(self._recovered(error))
        else:
            if not self._done:  # or somebody else has worked it out meanwhile
                self._keep(self._combine(values))
        return self._outcome()

    __iter__ = __await__

    def _recovered(self, error: Exception) -> T:
        if self._recover is None:
            raise error
        return self._recover(error)


class _Waiter:
    """One task of some loop that waits for a future; forgotten once the task or the loop is gone."""

    __slots__ = ("future", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.thread = threading.get_ident()

    def wake(self) -> None:
        try:
            loop = self.loop
            if threading.get_ident() == self.thread and (task_on(loop) is not None or at_work(loop)):
                self._resolve()
            else:
                loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def fail(self, error: Exception) -> None:
        """Have who waits raise ``error``; on its loop."""
        if not self.future.done():
            self.future.set_exception(error)

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def _call_all(callbacks: list[Callable[[], object]] | None) -> None:
    """Call the callbacks of a future: their errors are not those of the actor that sets the value."""
    for callback in callbacks or ():
        try:
            callback()
        except Exception:
            logger.exception("Unhandled exception in a callback of a future:")


def _deadline(timeout: float | None) -> float | None:
    """When a wait of that many seconds is over; None for never. Raises InvalidInput."""
    seconds = wait_of("timeout", timeout)
    return None if seconds is None else time.monotonic() + seconds


def _left(deadline: float | None) -> float:
    return math.inf if deadline is None else max(0.0, deadline - time.monotonic())


def _awaitable(future: pykka.Future[Any]) -> AsyncFuture[Any]:
    """Any pykka future as one of ours; one that can only be got is got on a thread."""
    return future if isinstance(future, AsyncFuture) else on_own_thread(future.get)


def on_own_thread(work: Callable[[], T]) -> AsyncFuture[T]:
    """The result of ``work``, done on a daemon thread: it may block for ever, and on a thread of the loop's
    own pool it would then keep the loop from ending.
    """
    future: AsyncFuture[T] = AsyncFuture()

    def run() -> None:
        try:
            future.set(work())
        except BaseException as error:  # noqa: BLE001 - goes to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="polypod-wait", daemon=True).start()
    return future


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
