"""Who waits for what a thread does, and what a thread waits for, as the threads' stacks show it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from types import FrameType
from typing import Any

from actors.runtime.tasks import task_on

#: What ends once a thread comes back from a function, by that function's name: its module, and where in its
#: frame that is.
_ENDS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "_WorkItem.run": ("concurrent.futures.thread", lambda names: names["self"].future),
    "WorkerThread.run": ("anyio._backends._asyncio", lambda names: names.get("future")),
    "settle": ("actors.runtime.lasting_loop", lambda names: names.get("future")),
    "do_for": ("actors.runtime.blocking", lambda names: names["future"]),
    "BaseEventLoop.run_forever": ("asyncio.base_events", lambda names: task_on(names["self"])),
}
_RUN_FOREVER = "BaseEventLoop.run_forever"


def ends_with(frame: FrameType | None) -> list[Any]:
    """The tasks and futures that end only once the thread of ``frame`` comes back to who has called that;
    also for other threads.
    """
    found = []
    while frame is not None:
        module, end_of = _ENDS.get(frame.f_code.co_qualname, ("", None))
        if end_of is not None and frame.f_globals.get("__name__") == module:
            with contextlib.suppress(LookupError, AttributeError):  # it is just about to come back
                found.append(end_of(frame.f_locals))
        frame = frame.f_back
    return [each for each in found if each is not None]


def ends_with_loop(loop: asyncio.AbstractEventLoop) -> list[Any]:
    """The tasks and futures that end only once what runs ``loop`` comes back from that; from any thread."""
    frame = sys._current_frames().get(getattr(loop, "_thread_id", None) or 0)
    while frame is not None:
        if frame.f_code.co_qualname == _RUN_FOREVER and frame.f_locals.get("self") is loop:
            return ends_with(frame.f_back)
        frame = frame.f_back
    return []


#: Where a thread waits for another, by the module and name of the function that it is in.
_WAITS = {
    ("threading", "Condition.wait"),
    ("threading", "Thread.join"),
    ("threading", "Thread._wait_for_tstate_lock"),
}


def count_waiting_for_others(threads: Collection[int]) -> int:
    """How many of these threads, by their identifiers, wait for others, or in event loops of their own."""
    # No name for all frames: this one is among them, and so all would live until garbage is collected.
    return sum(
        _waits_for_others(frame) for thread, frame in sys._current_frames().items() if thread in threads
    )


def _waits_for_others(frame: FrameType) -> bool:
    if (frame.f_globals.get("__name__"), frame.f_code.co_qualname) in _WAITS:
        return True
    behind = frame.f_back
    return behind is not None and behind.f_code is asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]


def threads_that_wait(future: Future[Any]) -> list[FrameType]:
    """Where the threads are that wait in ``future.result()``, or the like, for however long that takes."""
    condition = future._condition
    if not condition._waiters:  # type: ignore[attr-defined]
        return []
    # No name for each frame, as above.
    return [frame for frame in sys._current_frames().values() if _waits_in(condition, frame)]


def _waits_in(condition: threading.Condition, frame: FrameType) -> bool:
    if frame.f_code.co_qualname != "Condition.wait":
        return False
    names = frame.f_locals
    return names.get("self") is condition and names.get("timeout") is None
