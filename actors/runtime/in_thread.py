"""``in_thread``: brief internal work in a thread, whatever the program's own threads wait for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from actors.runtime.lasting_loop import is_of_exit, settle

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 32


async def in_thread(work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """The result of ``work``, as by ``asyncio.to_thread``, but in none of the loop's own threads: those are
    few, and tools that wait in them for other pods may occupy all that those pods would need.
    """
    return await begin_in_thread(work, *args, **named)


def begin_in_thread(work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> asyncio.Future[T]:
    """Begin ``work`` in a thread, with the caller's context variables; returns a future of its result. If no
    thread can be started, the calling one does it at once.
    """
    given: Future[T] = Future()
    do = functools.partial(settle, given, functools.partial(copy_context().run, work, *args, **named))
    call = functools.partial(_call_once, [do])
    try:
        _submit(call)
    except RuntimeError:
        call()
    return asyncio.wrap_future(given)


def _submit(call: Callable[[], None]) -> None:
    """Have a thread call; raises RuntimeError where none can be started, though one may come to it yet."""
    try:
        _threads().submit(call)
    except RuntimeError as error:
        if not is_of_exit(error):
            raise
        asyncio.get_running_loop().run_in_executor(None, call)  # a loop may have a way then


def _call_once(calls: list[Callable[[], None]]) -> None:
    """Call the one in the list, unless another thread has."""
    with contextlib.suppress(IndexError):
        calls.pop()()


async def wait_to_the_end(brief: asyncio.Future[T]) -> T:
    """The result of brief work; a cancel meanwhile is raised once it is done, so that no work goes on
    unnoticed.
    """
    try:
        return await asyncio.shield(brief)
    except asyncio.CancelledError:
        while not brief.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({brief})
        raise


def end_threads() -> None:
    """Wait for the work in progress, and end all threads; later work gets new ones."""
    _threads().shutdown()
    _threads.cache_clear()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="polypod-brief")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
