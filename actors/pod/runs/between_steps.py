"""``BetweenSteps``: work that is done between two steps of a run (fork, compact, push), and its replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from actors.pod.runs.history_lock import HistoryLock
from actors.pod.status import Status
from actors.pod.tasks_at_work import TasksAtWork
from actors.runtime.circles import enter_work
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible, Left, Owner
from protocol.errors import PodError

#: What work between two steps gives where its reply is answered by another.
LATER = object()

#: Work between two steps: it gets how far it can be interrupted, and gives what its command is answered.
Between = Callable[[Interruptible], Coroutine[Any, Any, Any]]


class BetweenSteps:
    """Has each piece of work wait for its turn with the history, and answers whoever asked for it."""

    __slots__ = ("_gone", "_history_lock", "_owner", "_tasks", "_waiting")

    def __init__(
        self,
        history_lock: HistoryLock,
        status: Status,
        tasks: TasksAtWork,
        owner: Owner,
    ) -> None:
        """``owner`` owns the work done here, as it owns the runs."""
        self._history_lock = history_lock
        self._gone: Callable[[], PodError] = status.gone
        self._tasks = tasks
        self._owner = owner
        #: Who waits, and for what turn with the history (None: beside the run); None when nobody does.
        self._waiting: dict[AsyncFuture[Any], Interruptible | None] | None = None

    def is_empty(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._waiting

    def do(self, reply: AsyncFuture[Any], work: Between) -> None:
        """Do ``work`` now, or between two steps of the current run, and answer ``reply``."""
        waits, turn = self.line_up(reply)
        self._tasks.start_at_once(self._in_turn(reply, work, waits, turn), reply.caller)

    def do_at_once(self, reply: AsyncFuture[Any], work: Coroutine[Any, Any, Any]) -> None:
        """Do ``work`` beside the current run, and answer ``reply``."""
        self._note(reply, None)
        self._tasks.start_at_once(self._answer(reply, work))

    def line_up(self, reply: AsyncFuture[Any]) -> tuple[Interruptible, asyncio.Future[None] | None]:
        """Begin a piece of work, or have it wait for its turn; the caller answers ``reply``."""
        waits = Interruptible(self._owner)
        self._note(reply, waits)
        return waits, self._history_lock.line_up(waits)

    def forget(self, reply: AsyncFuture[Any]) -> None:
        """Note that ``reply`` is answered by whoever lined up for it."""
        if self._waiting is not None:
            self._waiting.pop(reply, None)

    def withdraw(self, reply: AsyncFuture[Any], error: Exception) -> bool:
        """Fail ``reply`` if its work has not begun, which it then never does. Returns whether that was so."""
        work = None if self._waiting is None else self._waiting.get(reply)
        if work is None or work.code is not None or reply.done():
            return False
        reply.set_exception(error)
        return True

    def take_waiting(self) -> list[AsyncFuture[Any]]:
        """Remove and return all waiting replies; the caller answers them."""
        waiting, self._waiting = self._waiting, None
        return list(waiting or ())

    def _note(self, reply: AsyncFuture[Any], work: Interruptible | None) -> None:
        if self._waiting is None:
            self._waiting = {}
        self._waiting[reply] = work

    async def _in_turn(
        self, reply: AsyncFuture[Any], work: Between, waits: Interruptible, turn: asyncio.Future[None] | None
    ) -> None:
        try:
            if turn is not None:
                try:
                    await self._history_lock.begin_at(turn, waits)
                except asyncio.CancelledError:
                    self._settle(reply, None, self._gone())
                    return
            if reply.done():  # it was withdrawn
                self.forget(reply)
                return
            waits.code = enter_work(self._tasks.loop)
            await self._answer(reply, work(waits))
        finally:
            self._history_lock.leave(waits)
            if waits.code is not None:
                waits.code.end()

    async def _answer(self, reply: AsyncFuture[Any], work: Coroutine[Any, Any, Any]) -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = await work
        except (asyncio.CancelledError, Left):
            error = self._gone()
        except BaseException as raised:  # noqa: BLE001 - goes to who asked, whatever it is
            error = raised
        self._settle(reply, value, error)

    def _settle(self, reply: AsyncFuture[Any], value: Any, error: BaseException | None) -> None:
        self.forget(reply)
        if value is LATER or reply.done():
            return
        if error is None:
            reply.set(value)
        else:
            reply.set_exception(error)
