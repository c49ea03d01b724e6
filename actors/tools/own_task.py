"""Runs an async tool in a task of its own: whatever it raises or cancels ends nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from actors.runtime.tasks import begin_task, is_being_cancelled, wait_for_one
from protocol.errors import ToolTimeout

#: How long a tool whose time is up is waited for, in seconds, so that one that stops at once is said to
#: have stopped.
_MOMENT = 0.05


class Outcome(Struct, frozen=True):
    """What came of a tool: its value, or what it raised. ``interrupted`` says that its task was cancelled,
    by itself or from outside, so that nobody knows how far it came.
    """

    value: Any = None
    error: BaseException | None = None
    interrupted: bool = False


_INTERRUPTED = Outcome(interrupted=True)


async def run_alone(
    work: Callable[[], Awaitable[Any]], seconds: float | None, late: Callable[[Outcome], object]
) -> Outcome:
    """Carry ``work`` out, for at most ``seconds``; of exceptions only a cancel of the caller leaves.

    Raises ToolTimeout at the deadline, however long the tool takes to stop. A cancel of the caller is
    handed on, and waits for the tool. ``late`` is called with what came of a tool that ended after its
    time-out, or after a cancel.
    """
    alone = _Alone(work)
    if alone.task.done():
        return alone.outcome
    try:
        if seconds is None:
            await alone.task
        else:
            await _within(alone, seconds, late)
    except asyncio.CancelledError:
        if is_being_cancelled():
            alone.task.cancel()
            await _wait_for_end(alone.task)
    if is_being_cancelled():
        late(alone.outcome)
        raise asyncio.CancelledError
    return alone.outcome


class _Alone:
    """A tool's task, and what came of it."""

    __slots__ = ("outcome", "task")

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        #: Kept beside the task, which may be cancelled before its first moment, or in its last.
        self.outcome = _INTERRUPTED
        self.task = begin_task(self._carry_out(work))

    async def _carry_out(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.outcome = Outcome(await work())
        except asyncio.CancelledError as error:
            self.outcome = Outcome(error=error, interrupted=is_being_cancelled())
        except BaseException as error:  # noqa: BLE001 - SystemExit too is a tool's own affair
            self.outcome = Outcome(error=error)


async def _within(alone: _Alone, seconds: float, late: Callable[[Outcome], object]) -> None:
    task = alone.task
    await wait_for_one([task], seconds)
    if task.done():
        return
    task.cancel()
    await asyncio.wait({task}, timeout=_MOMENT)
    if task.done():
        raise ToolTimeout(f"not done after {seconds:g} s, so it was stopped")
    task.add_done_callback(lambda _: late(alone.outcome))
    raise ToolTimeout(f"not done after {seconds:g} s; it was asked to stop, but may still be running")


async def _wait_for_end(task: asyncio.Task[None]) -> None:
    """Wait for a task's end, however often the waiting is cancelled."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
