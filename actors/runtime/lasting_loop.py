"""``LastingLoop``: an event loop that outlives the program's main thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: How long tasks that are left at the end have to stop, in seconds.
_GRACE = 1.0


class LastingLoop(asyncio.SelectorEventLoop):
    """A loop that can still call functions in threads once the main thread has ended, for a thread that lives
    longer or for ``atexit``: Python's executors refuse from then on.
    """

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As asyncio's; after that end, by a thread for this call alone."""
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError as error:
            if executor is not None or not is_of_exit(error):
                raise
        future: Future[T] = Future()
        work = partial(settle, future, partial(func, *args))
        try:
            threading.Thread(target=work, name="polypod-last", daemon=True).start()
        except RuntimeError:  # at the very end no thread is started any more
            work()
        return asyncio.wrap_future(future, loop=self)

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As asyncio's; after that end it has no threads any more."""
        try:
            await super().shutdown_default_executor(*args)
        except RuntimeError as error:
            if not is_of_exit(error):
                raise


def run_on_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on an event loop of its own, as ``asyncio.run`` does, but do not wait for what an
    abandoned tool may hold for ever: threads of the loop, and tasks that ignore their cancel.
    """
    return asyncio.run(_let_go_of_the_rest(work))


async def _let_go_of_the_rest(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    finally:
        await _let_go_of_tasks()
        # the loop is closed with other threads than those that it has now
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "asyncio"))


async def _let_go_of_tasks() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    left = (await asyncio.wait(rest, timeout=_GRACE))[1] if rest else ()
    for task in left:  # as if they had ended, so that nobody waits for them or reports that they have not
        asyncio._unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def is_of_exit(error: RuntimeError) -> bool:
    """Whether an executor takes nothing more since the program ends."""
    return "interpreter shutdown" in str(error)


def settle(future: Future[T], work: Callable[[], T]) -> None:
    """Do the work of ``future``, unless that is cancelled, and resolve it, whatever the work raises; that it
    ends only then is seen on the thread's stack (``stacks``).
    """
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - who awaits it gets it
        future.set_exception(error)
    finally:
        del future  # an error has this frame, and is in the future
