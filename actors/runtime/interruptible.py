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
        """How many seconds what was cancelled has to end."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the work is done."""

    def note_overdue(self, text: str) -> None:
        """Record, in words, what did not end in that time."""

    def go_on(self, left: Interruptible) -> None:
        """``left`` waits in its task for what does not end: go on with its work in another."""

    def let_go(self, left: Interruptible) -> None:
        """Work that was over for all others is not waited for any more, and no other task goes on with it."""


#: The task that is waited for, and what to call it.
_UnderWay = tuple["asyncio.Task[Any]", str]

#: Tasks that nobody waits for; the loop itself does not hold on to its tasks.
_left_behind: set[asyncio.Task[Any]] = set()


class Interruptible(Struct, eq=False):
    """A piece of work, as far as it can be interrupted: while it waits for a client or a tool.

    Commits and all else between two such waits run to their end. ``asked`` says that it was interrupted:
    it waits for nothing any more. ``left`` says that the work goes on without the task that did it.
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
        """Whether something is waited for that can be interrupted."""
        return self._under_way is not None

    async def inline(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """What ``work``, called ``what``, gives; awaited in this very task, which saves a task. Where it
        does not end though it was cancelled, its task is left, and another goes on.

        Raises what it raises: CancelledError where it was interrupted, PodError where it raised
        CancelledError by itself.
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
        interrupted. Where it does not end it is left, and CancelledError raised here.
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
        """Raise Left where the work goes on without whoever asks, or is over."""
        if self.left:
            raise Left

    def interrupt(self) -> None:
        """Cancel what is waited for; nothing is waited for any more."""
        self.asked = True
        if self._under_way is None:
            return
        task, _ = self._under_way
        self._cancels += 1
        task.cancel()
        if self._overdue is None:
            self._overdue = task.get_loop().call_later(self._owner.grace, self._give_up)

    def leave(self) -> None:
        """The work is over for all others: whatever its task still comes to has no effect."""
        self.left = True
        self.interrupt()

    def _give_up(self) -> None:
        """Wait no longer for what was cancelled and goes on."""
        if self._under_way is None:
            return
        task, what = self._under_way
        if task.done():
            return
        _left_behind.add(task)
        task.add_done_callback(_forget)
        self._owner.note_overdue(
            f"{what} did not end within {self._owner.grace:g} s of being cancelled, and was left to itself"
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
    return PodError(f"{what} raised CancelledError by itself; nobody had cancelled it")


def _forget(left: asyncio.Task[Any]) -> None:
    """Whatever came of it is nobody's."""
    _left_behind.discard(left)
    if not left.cancelled():
        left.exception()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _with_errors_only(work: Coroutine[Any, Any, T], what: str) -> T:
    """What ``work`` gives; what it raises that is no Exception becomes one, since that would end the loop out
    of a task, or be taken for our own.
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
    """A future that a cancel of who waits for it does not reach: asyncio then throws the cancel once the
    future is done. For ``to_its_end``.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002
        return False


class DirectWait(Uncancelled[None]):
    """A future that no cancel reaches, for what one task waits for. The task can go on within the call of
    ``end``, which saves a turn of the loop for each of the many tasks that may wait for one thing.
    """

    _wake_up: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        if self._wake_up is None and context is not None and not self.done():
            self._wake_up = (callback, context)  # of the task that waits
        else:
            super().add_done_callback(callback, context=context)

    def end(self, error: BaseException | None = None) -> None:
        """End the wait, well or with an error; whoever waits goes on in its turn of the loop."""
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
            self.exception()  # nobody may wait for it any more
        if self._wake_up is not None:
            callback, context = self._wake_up
            self.get_loop().call_soon(callback, self, context=context)

    def end_at_once(self) -> None:
        """It is over, well, and who waits goes on now; for a loop that is in no task, and in nothing that
        must not be come back into.
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
    """The loop of a future that is done, and that no loop need be notified of."""

    def get_debug(self) -> bool:
        return False


#: What was done by the time it is awaited: a third of the cost of a coroutine that does nothing.
AT_ONCE: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
AT_ONCE.set_result(None)


async def to_its_end(future: Uncancelled[T]) -> T:
    """What ``future`` gives, awaited to its end: a cancel meanwhile comes at the next wait."""
    try:
        return await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return future.result()
