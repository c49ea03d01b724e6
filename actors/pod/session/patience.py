"""``Patience``: waits for a store, with a deadline that may be set while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from actors.runtime.tasks import begin_task
from protocol.errors import StoreError

T = TypeVar("T")


class Patience:
    """Waits for work with a store, until a stop that arrived meanwhile has waited long enough."""

    __slots__ = ("_over", "_timer")

    def __init__(self, end_at: float | None = None) -> None:
        """``end_at`` is when to give up, by the running loop's clock; None for not yet."""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        if end_at is not None:
            self.end_at(end_at)

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises StoreError if it was given up; it is then cancelled and not waited
        for.
        """
        task: asyncio.Task[T] = begin_task(work)
        try:
            if not task.done():
                await asyncio.wait((task, self._over), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if not task.done():
                task.cancel()
                task.add_done_callback(_ignore_outcome)
        raise StoreError(
            "the store did not answer before the pod was stopped", hint="check that it is reachable"
        )

    def end_at(self, when: float) -> None:
        """Set when to give up, by the running loop's clock."""
        self._timer = asyncio.get_running_loop().call_at(when, self._give_up)

    def _give_up(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


def _ignore_outcome(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
