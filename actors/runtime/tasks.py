"""asyncio tasks that start eagerly on every Python, and whether the running one is being cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from typing import Any

# ``asyncio.current_task`` is written in C from Python 3.12 on; before, it is two calls around this look.
_on_3_11: Any = vars(asyncio.tasks).get("_current_tasks")
#: The task that the loop given is in the middle of; None where it is in none.
task_on: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None] = (
    asyncio.current_task if sys.version_info >= (3, 12) else _on_3_11.get
)
#: How a loop's thread leaves a task and comes back to it.
leave_task, enter_task = asyncio.tasks._leave_task, asyncio.tasks._enter_task
#: Tasks that do the work of actors: no message is handled in the middle of their steps, since it may cancel
#: one, which has to wait for something by then.
of_actors: set[asyncio.Task[Any]] = set()
#: Loops on which a task takes its first step within ``begin_task``, perhaps in the middle of another's: no
#: message is handled there either.
beginning: set[asyncio.AbstractEventLoop] = set()


def is_being_cancelled() -> bool:
    """Whether the running task was asked to end; if not, a CancelledError in it is another's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_on(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    """Raise an error in a callback of the loop's next turn, so that the loop reports it."""
    loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


async def wait_for_one(tasks: Collection[asyncio.Task[Any]], seconds: float | None = None) -> None:
    """Wait until one of ``tasks`` has ended, at most so many seconds. Unlike ``asyncio.wait``, it counts as a
    wait for each of them where it is looked for who waits for whom (``awaited``): for who goes on waiting for
    the others, or ends them.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(*_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if seconds is None else loop.call_later(seconds, wake)
    for task in tasks:
        task.add_done_callback(wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        for task in tasks:
            task.remove_done_callback(wake)


def begin_task(
    work: Coroutine[Any, Any, Any],
    loop: asyncio.AbstractEventLoop | None = None,
    context: Context | None = None,
    name: str | None = None,
) -> asyncio.Task[Any]:
    """A task that carries out ``work`` up to its first wait before this returns, where the loop can do that.

    It saves two turns of the loop where the work never waits: one to begin, one to notice its end. Called
    on the loop.
    """
    loop = loop or asyncio.get_running_loop()
    outer = task_on(loop)
    if outer is None:
        return _begin(work, loop, context, name)
    outermost = loop not in beginning
    beginning.add(loop)
    leave_task(loop, outer)
    try:
        return _begin(work, loop, context, name)
    finally:
        enter_task(loop, outer)
        if outermost:
            beginning.discard(loop)


if sys.version_info >= (3, 12):

    def _begin(
        work: Coroutine[Any, Any, Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        name: str | None,
    ) -> asyncio.Task[Any]:
        """Begin a task that its loop has on no list."""
        return asyncio.Task(work, loop=loop, name=name, context=context, eager_start=True)

else:

    def _begin(
        work: Coroutine[Any, Any, Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        name: str | None,
    ) -> asyncio.Task[Any]:
        """Do for Python 3.11 what its successors do: the step that the loop has on its list is taken off it
        and done now. Other loops than asyncio's own have no such list, and begin the task in their turn; so
        do they where another thread has put something behind it.
        """
        task = asyncio.Task(work, loop=loop, name=name, context=context)
        ready = getattr(loop, "_ready", None)
        if ready:
            handle = ready[-1]
            step = handle._callback
            # Between the look and the removal nothing is called, so that no other thread comes between them.
            if getattr(step, "__self__", None) is task and ready[-1] is handle:
                del ready[-1]
                handle._context.run(step)
        return task
