"""``HistoryLock``: a fair lock on a pod's history, for runs, compactions, forks and pushed items."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from actors.runtime.interruptible import Interruptible, Uncancelled, to_its_end


class Owner(Protocol):
    """Whose history it is."""

    def begin_waiting(self) -> None:
        """Begin what waits elsewhere: nothing is at work any more, and nothing waits for the lock."""


class HistoryLock:
    """Lets one piece of work at a time use a pod's history: a run, a compaction, a fork, a pushed item.

    A run holds it from beginning to end, and lets those that wait pass between two of its steps.
    """

    __slots__ = ("_last", "_owner", "holder", "waiting")

    def __init__(self, owner: Owner) -> None:
        #: None once its history has come to its end: then nothing waits to begin.
        self._owner: Owner | None = owner
        #: What is at work; None when nothing is.
        self.holder: Interruptible | None = None
        self._last: tuple[Interruptible, asyncio.Future[None]] | None = None
        #: Those that wait: the work, its turn, and whether it has begun and lets others pass.
        self.waiting: deque[tuple[Interruptible, asyncio.Future[None], bool]] | None = None

    def is_free(self) -> bool:
        """Whether nothing is at work, and nothing waits."""
        return self.holder is None and not self.waiting

    def take(self, work: Interruptible) -> None:
        """Begin ``work``, which holds the lock already or finds it free."""
        assert self.holder is None or self.holder is work
        self.holder = work

    def line_up_last(self, work: Interruptible) -> asyncio.Future[None] | None:
        """As ``line_up``, for work that comes once everything else has ended, and not between two steps."""
        if self.holder is None:
            self.holder = work
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last = (work, turn)
        return turn

    def line_up(self, work: Interruptible) -> asyncio.Future[None] | None:
        """Begin ``work`` at once (None), or have it wait behind what came before: returns its turn, for
        ``begin_at``.
        """
        if self.holder is None:
            self.holder = work
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait(work, turn, begun=False)
        return turn

    async def begin_at(self, turn: asyncio.Future[None], work: Interruptible) -> None:
        """Wait for the turn of ``work``. Raises CancelledError if it never comes."""
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(work)
            raise

    async def let_pass(self, work: Interruptible) -> None:
        """Between two steps of ``work``, let those that wait go before the next."""
        if not self.waiting:
            return
        turn: Uncancelled[None] = Uncancelled(loop=asyncio.get_running_loop())
        self._wait(work, turn, begun=True)
        self.leave(work)
        await to_its_end(turn)

    def _wait(self, work: Interruptible, turn: asyncio.Future[None], *, begun: bool) -> None:
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append((work, turn, begun))

    def leave(self, work: Interruptible) -> None:
        """End ``work``, or have it let others pass; does nothing if it no longer holds the lock."""
        if self.holder is not work:
            return
        self.holder = None
        while self.waiting:
            next_, turn, _ = self.waiting.popleft()
            if not turn.done():
                self.holder = next_
                turn.set_result(None)
                return
        self.waiting = None
        if self._last is None:
            if self._owner is not None:
                self._owner.begin_waiting()
            return
        (last, turn), self._last = self._last, None
        if not turn.done():
            self.holder = last
            turn.set_result(None)

    def hand_over(self, work: Interruptible, to: Interruptible) -> None:
        """Have ``work`` continue as ``to``, in another task."""
        if self.holder is work:
            self.holder = to

    def close(self) -> None:
        """Begin nothing more: the owner's history has ended."""
        self.holder = self._owner = None

    def refuse_waiting(self) -> None:
        """Cancel what has not begun."""
        for _, turn, begun in self.waiting or ():
            if not begun:
                turn.cancel()
