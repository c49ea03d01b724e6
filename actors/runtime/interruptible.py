"""``Interruptible``: work of a pod or a helper agent that is cancelled only where it waits for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from actors.runtime.circles import Work
from actors.runtime.tasks import raise_on, task_on
from protocol.errors import PodError
from protocol.foreign import named_words

T = TypeVar("T")


class Left(BaseException):
    """Ends a coroutine whose work goes on without it; nothing it would still do has any effect."""


class Owner(Protocol):
    """The owner of the work: a pod, or a job beside it."""

    @property
    def grace(self) -> float:
        """How many seconds cancelled work has to end."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the work runs on."""

    def note_overdue(self, text: str) -> None:
        """Record, in words, what did not end in that time."""

    def go_on(self, left: Interruptible) -> None:
        """Continue the work of ``left`` in another task, because its own is stuck in a wait that does not
        end.
        """

    def let_go(self, left: Interruptible) -> None:
        """Stop waiting for ``left``, whose work is over for everyone else; no other task continues it."""


#: The task that is waited for, and what to call it.
_UnderWay = tuple["asyncio.Task[Any]", str]

#: Tasks that nobody waits for; the loop itself does not hold on to its tasks.
_left_behind: set[asyncio.Task[Any]] = set()


class Interruptible(Struct, eq=False):
    """A piece of work that can be interrupted while it waits for a client or a tool, and only then.

    Commits and everything else between two such waits run to their end. ``asked`` says that it was
    interrupted: it waits for nothing any more. ``left`` says that the work goes on without the task that did
    it.
    """

    _owner: Owner
    asked: bool = False
    left: bool = False
    _under_way: _UnderWay | None = None
    #: Resolved at the end of a child's task, or when that is not waited for any longer.
    _child: asyncio.Future[None] | None = None
    _cancels: int = 0
    _overdue: asyncio.TimerHandle | None = None
    #: The same as the code that is called in its course sees it; None until it has begun.
    code: Work | None = None

    @property
    def under_way(self) -> bool:
        """Whether it is in a wait that can be interrupted."""
        return self._under_way is not None

    async def inline(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """The result of ``work``, called ``what``, awaited in this very task, which saves a task. If it does
        not end after a cancel, its task is left behind, and another continues.

        Raises what it raises: CancelledError if it was interrupted, PodError if it raised CancelledError by
        itself.
        """
        if self.asked:
            work.close()
            raise asyncio.CancelledError
        task = task_on(self._owner.loop)
        assert task is not None
        self._under_way = (task, what)
        before, outside = task.cancelling(), False
        try:
            return await work
        except asyncio.CancelledError as error:
            outside = task.cancelling() > before + self._cancels
            if task.cancelling() > before:
                raise
            raise _by_itself(what) from error
        finally:
            # Ours are taken back, and those that the work forgot; not that of who closes the loop.
            while task.cancelling() > before + outside:
                task.uncancel()
            self._under_way = None
            if self._cancels:
                self._forget_cancels()
            if self.left:
                raise Left

    async def apart(self, work: Coroutine[Any, Any, T], what: str, context: Context | None = None) -> T:
        """Wait for ``work`` in a task of its own, in that context or a copy of this one, so that it can be
        interrupted. If it does not end after a cancel it is left behind, and CancelledError raised here.
        """
        if self.asked:
            work.close()
            raise asyncio.CancelledError
        loop = asyncio.get_running_loop()
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        child = asyncio.Task(_with_errors_only(work, what), loop=loop, context=context)
        ended = self._child = Uncancelled(loop=loop)
        child.add_done_callback(lambda _: _resolve(ended))
        self._under_way = (child, what)
        try:
            await to_its_end(ended)
        finally:
            self._under_way = self._child = None
            self._forget_cancels()
            if child.done():
                work.close()  # of a task that was cancelled before its first moment
        if self.left:
            raise Left
        if not child.done():
            raise asyncio.CancelledError
        if not child.cancelled():
            result: T = child.result()
            return result
        if child.cancelling() > 0:
            raise asyncio.CancelledError
        raise _by_itself(what)

    def check(self) -> None:
        """Raise Left if the work is over, or continues without the caller."""
        if self.left:
            raise Left

    def interrupt(self) -> None:
        """Cancel the present wait; the work waits for nothing any more."""
        self.asked = True
        if self._under_way is None:
            return
        task, _ = self._under_way
        self._cancels += 1
        task.cancel()
        if self._overdue is None:
            self._overdue = task.get_loop().call_later(self._owner.grace, self._give_up)

    def leave(self) -> None:
        """End the work for everyone else: whatever its task still does has no effect."""
        self.left = True
        self.interrupt()

    def _give_up(self) -> None:
        """Stop waiting for something that was cancelled and goes on all the same."""
        if self._under_way is None:
            return
        task, what = self._under_way
        if task.done():
            return
        _left_behind.add(task)
        task.add_done_callback(_forget)
        self._owner.note_overdue(
            f"{what} did not end within {self._owner.grace:g} s of being cancelled, and was abandoned"
        )
        if self._child is not None:
            _resolve(self._child)
            return
        over, self.left = self.left, True
        if over:
            self._owner.let_go(self)
        else:
            self._owner.go_on(self)

    def _forget_cancels(self) -> None:
        self._cancels = 0
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def _by_itself(what: str) -> PodError:
    return PodError(f"{what} raised CancelledError, although nobody had cancelled it")


def _forget(left: asyncio.Task[Any]) -> None:
    """Retrieve the outcome of an abandoned task, which concerns nobody."""
    _left_behind.discard(left)
    if not left.cancelled():
        left.exception()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _with_errors_only(work: Coroutine[Any, Any, T], what: str) -> T:
    """The result of ``work``. If it raises something that is not an Exception, an error is raised instead:
    the original would end the loop, or be mistaken for our own.
    """
    task = asyncio.current_task()
    try:
        return await work
    except (Exception, asyncio.CancelledError, Left):
        raise
    except BaseException as error:
        loop = asyncio._get_running_loop()
        if isinstance(error, GeneratorExit) and (loop is None or asyncio.current_task(loop) is not task):
            raise  # the task is thrown away, with its loop
        raise PodError(f"{what} raised {named_words(error)}") from error


class Uncancelled(asyncio.Future[T]):
    """A future that cancelling its waiter does not reach: asyncio then raises the cancel once the future is
    done. For ``to_its_end``.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002
        return False


class DirectWait(Uncancelled[None]):
    """A future that no cancel reaches, for one waiting task.

    The task can go on within the call of ``end``, which saves a turn of the loop for each of the many tasks
    that may wait for the same thing.
    """

    _wake_up: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        if self._wake_up is None and context is not None and not self.done():
            self._wake_up = (callback, context)  # of the task that waits
        else:
            super().add_done_callback(callback, context=context)

    def end(self, error: BaseException | None = None) -> None:
        """End the wait, well or with an error; the waiter continues in a turn of its loop."""
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
            self.exception()  # nobody may wait for it any more
        if self._wake_up is not None:
            callback, context = self._wake_up
            self.get_loop().call_soon(callback, self, context=context)

    def end_at_once(self) -> None:
        """End the wait well, and let the waiter continue now. Only for a loop that is in no task, and in
        nothing that must not be re-entered.
        """
        self.set_result(None)
        if self._wake_up is None:
            return
        callback, context = self._wake_up
        try:
            context.run(callback, self)
        except BaseException as left:  # noqa: BLE001 - what ends the loop, and not who calls this
            raise_on(self.get_loop(), left)


class _NoLoop:
    """The loop of a future that is done, where no loop need be notified."""

    def get_debug(self) -> bool:
        return False


#: What was done by the time it is awaited: a third of the cost of a coroutine that does nothing.
AT_ONCE: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
AT_ONCE.set_result(None)


async def to_its_end(future: Uncancelled[T]) -> T:
    """The result of ``future``, awaited to its end: a cancel meanwhile is raised at the next wait."""
    try:
        return await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return future.result()
