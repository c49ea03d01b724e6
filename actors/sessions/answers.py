"""Waits for a store's answers, whether they are available at once or must be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from actors.runtime.future import AsyncFuture
from actors.runtime.tasks import is_being_cancelled
from protocol.errors import SessionError, StoreError, WouldDeadlock
from protocol.foreign import named_words

if TYPE_CHECKING:
    from actors.sessions.store import SessionStore

T = TypeVar("T")
U = TypeVar("U")

#: A value, or an awaitable of it.
Answer: TypeAlias = T | Awaitable[T]
#: The answer of ``create`` and ``append``: None if all is durable, or a future that resolves once it is.
Kept: TypeAlias = AsyncFuture[None] | Future[None] | Awaitable[None] | None

#: What a store's driver may raise from a call that awaits nothing, so nobody has cancelled the caller.
OF_DRIVERS = (Exception, asyncio.CancelledError, GeneratorExit)

#: Releases of sessions under way.
_releasing: set[asyncio.Task[None]] = set()


@overload
async def settled(answer: Awaitable[T]) -> T: ...
@overload
async def settled(answer: Answer[T]) -> T: ...
async def settled(answer: Answer[T]) -> T:
    """The store's answer, awaited on its loop if necessary; one that is available costs no turn of the loop.
    Raises StoreError if the store was cancelled by itself, and not by the caller.
    """
    if not isinstance(answer, Awaitable):
        return answer
    try:
        return await answer
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise store_failure(error) from error


def store_failure(error: BaseException) -> SessionError:
    """A store's failure as a SessionError; any other error becomes a StoreError."""
    if isinstance(error, SessionError):
        return error
    refused = StoreError(f"the store failed: {named_words(error)}")
    refused.__cause__ = error
    return refused


def then(answer: Answer[T], use: Callable[[T], U]) -> Answer[U]:
    """The result of ``use`` for an answer, at once if the answer is available."""
    return _then(answer, use) if isinstance(answer, Awaitable) else use(answer)


async def _then(answer: Awaitable[T], use: Callable[[T], U]) -> U:
    return use(await answer)


@overload
def wait(answer: Awaitable[T]) -> T: ...
@overload
def wait(answer: Answer[T]) -> T: ...
def wait(answer: Answer[T]) -> T:
    """The store's answer, for callers that block. If it must be awaited, that is done on a loop in a thread
    that all such calls share.

    Raises WouldDeadlock on that thread.
    """
    if not isinstance(answer, Awaitable):
        return answer
    from actors.runtime.loop import process_loop  # noqa: PLC0415 - paid for by who has such a store

    mailroom, waiting = process_loop().mailroom, settled(answer)
    if mailroom.here():
        waiting.close()
        raise WouldDeadlock(
            "this thread's event loop serves the store, so it cannot block until the store answers"
        )
    result: T = asyncio.run_coroutine_threadsafe(waiting, mailroom.loop).result()
    return result


def wait_durable(store: SessionStore, kept: Kept) -> None:
    """Block until what was given to the store is durable. Raises what it failed with."""
    if isinstance(kept, AsyncFuture | Future):
        store.flush()  # on a loop nobody else would, during this wait
        kept.get() if isinstance(kept, AsyncFuture) else kept.result()
    elif kept is not None:
        wait(kept)


def durable(kept: Future[None] | Awaitable[None]) -> asyncio.Future[None]:
    """A commit as a future of the running loop. A failure is a SessionError, which nobody has to retrieve."""
    pending = asyncio.wrap_future(kept) if isinstance(kept, Future) else asyncio.ensure_future(_durable(kept))
    pending.add_done_callback(_ignore_failure)
    return pending


def _ignore_failure(pending: asyncio.Future[None]) -> None:
    if not pending.cancelled():
        pending.exception()


async def _durable(kept: Awaitable[None]) -> None:
    try:
        await settled(kept)
    except Exception as error:  # noqa: BLE001 - raised by a driver
        raise store_failure(error) from error.__cause__


def discard_answer(ask: Callable[[], Answer[None]]) -> None:
    """Call a store whose loop is closed, and discard an answer that would have to be awaited."""
    try:
        answer = ask()
    except Exception:  # noqa: BLE001 - a store may need its loop
        return
    if isinstance(answer, Coroutine):
        answer.close()


def release_session(store: SessionStore, session_id: str) -> asyncio.Task[None] | None:
    """Release the claim on a session. Returns a task if the store has to be awaited; nobody need
    wait for it.
    """
    try:
        released = store.release(session_id)
    except OF_DRIVERS:  # as below
        return None
    if released is None or not isinstance(released, Awaitable):  # the second check is slow
        return None
    task = asyncio.get_running_loop().create_task(_release_late(released))
    _releasing.add(task)
    task.add_done_callback(_releasing.discard)
    return task


async def _release_late(answer: Awaitable[None]) -> None:
    try:
        await answer
    except Exception:  # noqa: BLE001 - a store that cannot do it lets the claim expire
        return


async def release_and_wait(store: SessionStore, session_id: str, seconds: float) -> None:
    """Release the claim on a session, and wait at most ``seconds`` until others can have it."""
    task = release_session(store, session_id)
    if task is not None:
        await asyncio.wait((task,), timeout=seconds)


async def wait_for_releases(seconds: float) -> None:
    """Wait at most ``seconds`` for the releases under way on the running loop."""
    loop = asyncio.get_running_loop()
    if tasks := [task for task in _releasing if task.get_loop() is loop]:
        await asyncio.wait(tasks, timeout=seconds)
