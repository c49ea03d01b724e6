"""A pykka future that can be awaited from any event loop or got from any thread."""

from __future__ import annotations

import asyncio
import functools
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

import pykka

from protocol.errors import WouldDeadlock

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")
J = TypeVar("J")

OptExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

#: Guards the step from pending to done of every future; it is held for a few instructions.
_lock = threading.Lock()


class AsyncFuture(pykka.Future[T], Awaitable[T]):
    """A value that is there now or later.

    ``await future`` works in any event loop, ``future.get(timeout=…)`` (seconds) on any thread but the
    one whose loop has to bring the value: there it raises WouldDeadlock instead of hanging. An awaiter
    that goes away (cancelled task, closed loop) is forgotten and never cancels the work.

    What is not set yet stands as class attributes, so that a new future costs one small object.
    """

    _done: bool = False
    _value: Any = None
    _error: BaseException | None = None
    _callbacks: list[Callable[[], None]] | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _get_hook: Callable[[float | None], T] | None = None
    _sources: Sequence[pykka.Future[Any]] | None = None
    _combine: Callable[[list[Any]], T]
    _recover: Callable[[BaseException], T] | None = None

    def __init__(self) -> None:  # all state has its first value in the class
        pass

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error is not None else "done"
        return f"<AsyncFuture {state}>"

    @classmethod
    def resolved(cls, value: T) -> AsyncFuture[T]:
        """A future whose value is there already."""
        future = cls()
        future._value = value
        future._done = True
        return future

    @classmethod
    def failed(cls, error: BaseException) -> AsyncFuture[T]:
        """A future that raises ``error``."""
        future = cls()
        future._error = error
        future._done = True
        return future

    @classmethod
    def derived(
        cls,
        sources: Sequence[pykka.Future[Any]],
        combine: Callable[[list[Any]], T],
        recover: Callable[[BaseException], T] | None = None,
    ) -> AsyncFuture[T]:
        """A future made of others: ``combine`` gets their values when somebody asks for it;
        ``recover`` may turn the error of a source into a value, or raise.
        """
        future = cls()
        future._sources = sources
        future._combine = combine
        future._recover = recover
        return future

    def done(self) -> bool:
        """Whether the value (or error) is there."""
        if self._sources is not None and not self._done:
            return all(s.done() if isinstance(s, AsyncFuture) else False for s in self._sources)
        return self._done

    def set(self, value: T | None = None) -> None:
        """Set the value. Raises queue.Full if the future has one."""
        self._settle(value, None)

    def set_exception(self, exc_info: OptExcInfo | BaseException | None = None) -> None:
        """Set the error: an exception, an ``exc_info`` triple, or the one being handled."""
        if not isinstance(exc_info, BaseException):
            kind, error, traceback = exc_info if exc_info is not None else sys.exc_info()
            if error is None:
                error = (kind or RuntimeError)()
            exc_info = error.with_traceback(traceback) if traceback is not None else error
        self._settle(None, exc_info)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        with _lock:
            if self._done or self._get_hook is not None or self._sources is not None:
                raise queue.Full
            self._value = value
            self._error = error
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            for callback in callbacks:
                callback()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the value is there: on the thread that sets it, or now."""
        with _lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        callback()

    def get(self, *, timeout: float | None = None) -> T:
        """The value, waited for at most ``timeout`` seconds.

        Raises pykka.Timeout, WouldDeadlock, or the error that the future holds.
        """
        if not self._done:
            running = asyncio._get_running_loop()
            if running is not None and self._blocked_by(running):
                raise WouldDeadlock(
                    "get() would block the event loop that has to bring the value",
                    hint="await the future instead",
                )
            if self._sources is not None:
                return self._combined_on_thread(timeout)
            if self._get_hook is not None:
                self._keep(self._get_hook(timeout))
            else:
                self._block(timeout)
        return self._outcome()

    def _blocked_by(self, running: asyncio.AbstractEventLoop) -> bool:
        """Whether waiting on the thread of ``running`` could never end."""
        if self._sources is not None:
            return any(
                isinstance(s, AsyncFuture) and not s.done() and s._blocked_by(running) for s in self._sources
            )
        return self._loop is None or self._loop is running

    def _block(self, timeout: float | None) -> None:
        gate = threading.Lock()
        gate.acquire()
        self.when_done(gate.release)
        if not gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise pykka.Timeout(f"{timeout} seconds")

    def _combined_on_thread(self, timeout: float | None) -> T:
        deadline = None if timeout is None else time.monotonic() + timeout
        assert self._sources is not None
        try:
            values = [s.get(timeout=_remaining(deadline)) for s in self._sources]
        except pykka.Timeout:
            raise
        except Exception as error:
            if self._recover is None:
                raise
            return self._keep(self._recover(error))
        return self._keep(self._combine(values))

    def _keep(self, value: T) -> T:
        """Remember what a hook gave, so that it is asked once."""
        self._value = value
        self._done = True
        return value

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            if self._sources is not None:
                return (yield from self._combined_in_loop())
            if self._get_hook is not None:
                loop = asyncio.get_running_loop()
                value = yield from loop.run_in_executor(None, self._get_hook, None).__await__()
                return self._keep(value)
            waiter = _Waiter(asyncio.get_running_loop())
            self.when_done(waiter.wake)
            yield from waiter.future
        return self._outcome()

    __iter__ = __await__

    def _combined_in_loop(self) -> Generator[Any, None, T]:
        assert self._sources is not None
        values = []
        try:
            for source in self._sources:
                values.append((yield from _awaited(source)))
        except Exception as error:
            if self._recover is None:
                raise
            return self._keep(self._recover(error))
        return self._keep(self._combine(values))

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have ``func(timeout)`` bring the value when it is asked for. Raises queue.Full if it is there."""
        with _lock:
            if self._done:
                raise queue.Full
            self._get_hook = func

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


class _Waiter:
    """One task of some loop that waits for a future; forgotten where task or loop are gone."""

    __slots__ = ("future", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.thread = threading.get_ident()

    def wake(self) -> None:
        if threading.get_ident() == self.thread:
            self._resolve()
            return
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _awaited(future: pykka.Future[Any]) -> Generator[Any, None, Any]:
    """Wait for any pykka future without blocking the loop; one that can only be got is got on a thread."""
    if isinstance(future, AsyncFuture):
        return (yield from future.__await__())
    loop = asyncio.get_running_loop()
    return (yield from loop.run_in_executor(None, future.get).__await__())
