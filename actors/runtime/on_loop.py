"""Has work done on the event loop of a mail room, from any thread, and brings its outcome back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom

T = TypeVar("T")


def call_on(mailroom: Mailroom, work: Callable[[], T]) -> T:
    """What ``work`` gives, done on that loop; waits where the caller is elsewhere."""
    if mailroom.here():
        return work()
    future: AsyncFuture[T] = future_of(mailroom)
    mailroom.post(lambda _: settle(future, work))
    return future.get()


def ask_on(
    mailroom: Mailroom, ask: Callable[[], Coroutine[Any, Any, T]], context: Context | None = None
) -> AsyncFuture[T]:
    """A future of what ``ask`` comes to on that loop, with the context variables of ``context``."""
    future: AsyncFuture[T] = future_of(mailroom)

    async def answer() -> None:
        try:
            future.set(await ask())
        except Exception as error:  # noqa: BLE001 - goes to who asked
            future.set_exception(error)

    def start(_: object) -> None:
        task = mailroom.loop.create_task(answer(), context=context)
        task.add_done_callback(lambda _: future)  # so it can be seen who waits for the task
        future.when_done(lambda: task)  # the loop itself does not hold on to its tasks

    mailroom.post(start)
    return future


def future_of(mailroom: Mailroom) -> AsyncFuture[Any]:
    """A future that is resolved on that loop: other threads may wait for it, and a wait there is refused."""
    future: AsyncFuture[Any] = AsyncFuture()
    future._loop = mailroom.loop
    return future


def settle(future: AsyncFuture[T], work: Callable[[], T]) -> None:
    """Resolve a future with what ``work`` gives or raises."""
    try:
        future.set(work())
    except Exception as error:  # noqa: BLE001 - goes to who waits
        future.set_exception(error)
