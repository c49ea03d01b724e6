"""``in_thread``: brief work of our own in a thread, whatever the threads of the program wait for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from actors.runtime.lasting_loop import is_of_exit

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 32


async def in_thread(work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """What ``work`` gives, as by ``asyncio.to_thread``, but in none of the loop's own threads: those are few,
    and tools that wait in them for other pods may hold all that those pods would need.
    """
    return await begin_in_thread(work, *args, **named)


def begin_in_thread(work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> asyncio.Future[T]:
    """Begin ``work`` in a thread, with the context variables of the caller: a future of what it gives."""
    call = functools.partial(copy_context().run, work, *args, **named)
    try:
        return asyncio.wrap_future(_threads().submit(call))
    except RuntimeError as error:
        if not is_of_exit(error):
            raise
        return asyncio.get_running_loop().run_in_executor(None, call)  # a loop may have a way then


async def wait_to_the_end(brief: asyncio.Future[T]) -> T:
    """What brief work gives; a cancel meanwhile is raised once it is done, so that none goes on unseen."""
    try:
        return await asyncio.shield(brief)
    except asyncio.CancelledError:
        while not brief.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({brief})
        raise


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="polypod-brief")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
