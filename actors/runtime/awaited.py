"""Whether a task waits for what another task or a thread does, as far as asyncio and the threads show it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import pykka

from actors.runtime.stacks import ends_with, ends_with_loop, threads_that_wait


def is_awaited(asked: Iterable[Any], by: asyncio.Task[Any]) -> bool:
    """Whether ``by`` waits for one of the tasks and futures ``asked``; from any thread.

    Only what is certain counts, since who is taken for one that waits may be refused: asyncio's ways, anyio's
    and our own, where they wait for all they were given. What users' callbacks do is not known, and what is
    shielded, or awaited beside others of which one is enough, goes on without who waits. So does a thread
    that is waited for until a time is up.
    """
    way = _find_way(asked, by)
    return way is not None and not (_is_by_threads(way) and _is_timed(way))


def is_timed(asked: Iterable[Any], by: asyncio.Task[Any]) -> bool:
    """Whether ``by``, which waits for one of ``asked``, may do so only until its own time is up; from any
    thread. All timers of the loops are looked at.
    """
    way = _find_way(asked, by)
    return way is None or _is_timed(way)


#: A task or future, and the one before it on the way.
_Way = tuple[Any, "_Way | None"]


def _find_way(asked: Iterable[Any], by: asyncio.Task[Any]) -> _Way | None:
    """The way from one of ``asked`` to ``by``, which waits for it; None where it does not."""
    seen: dict[int, Any] = {}
    found: list[_Way] = [(each, None) for each in asked]
    while found:
        way = found.pop()
        each, _ = way
        if each is by:
            return way
        if id(each) not in seen:
            seen[id(each)] = each
            # What is private to asyncio may be otherwise in another version, or change on its loop meanwhile.
            with contextlib.suppress(Exception):
                found += [(further, way) for further in _waiting_for(each)]
    return None


def _waiting_for(each: Any) -> Iterator[Any]:
    """The tasks and futures that end only once ``each`` has."""
    if isinstance(each, concurrent.futures.Future):
        for frame in threads_that_wait(each):
            yield from ends_with(frame)
        callbacks = list(each._done_callbacks)  # type: ignore[attr-defined]
    elif isinstance(each, asyncio.Future):
        callbacks = [callback for callback, *_ in each._callbacks or ()]
    elif isinstance(each, pykka.Future):
        callbacks = list(getattr(each, "_callbacks", None) or ())
    else:
        return
    for callback in callbacks:
        if callback is _END_OF_RUN:
            yield from ends_with_loop(each.get_loop())
        elif (further := _resolved_by(callback)) is not None:
            yield further


# -- what a callback resolves ------------------------------------------------------------------------


def _resolved_by(callback: Any) -> Any:
    """The task or future that goes on by a callback, and not before; None where that is not certain.

    Of an object of users nothing is asked: it may be a proxy that raises.
    """
    kind: Any = type(callback)
    if kind is BuiltinFunctionType:
        return callback.__self__ if callback.__name__ == "task_wakeup" else None
    if kind is functools.partial:
        return callback.args[0] if callback.func is _RELEASE else None
    if kind is MethodType:
        return _resolved_by_method(callback)
    return _resolved_by_function(callback) if kind is FunctionType else None


def _resolved_by_method(callback: MethodType) -> Any:
    if type(callback.__func__) is not FunctionType:
        return None
    if callback.__func__.__module__ == "actors.runtime.future":
        return getattr(callback.__self__, "future", None)
    resolved = _BY_METHOD.get(callback.__func__)
    return None if resolved is None else resolved(callback.__self__)


def _resolved_by_function(callback: FunctionType) -> Any:
    if not callback.__closure__:
        return None
    if callback.__module__.startswith("actors."):
        return next(filter(_is_future, _cells(callback).values()), None)
    within = _BY_CLOSURE.get((callback.__module__, callback.__qualname__))
    return None if within is None else within(_cells(callback))


def _cells(function: FunctionType) -> dict[str, Any]:
    """The variables of the functions around it that it uses and that have a value."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it has none yet
            continue
    return found


def _is_future(value: Any) -> bool:
    kind = type(value)
    return issubclass(kind, asyncio.Future | pykka.Future | concurrent.futures.Future)


def _of_wait(cells: dict[str, Any]) -> Any:
    waits_for_all = cells.get("return_when") == asyncio.ALL_COMPLETED or cells.get("counter") == 1
    return cells.get("waiter") if waits_for_all and cells.get("timeout_handle") is None else None


def _of_as_completed(cells: dict[str, Any]) -> Any:
    return _next_getter(cells.get("done"), cells.get("todo"), cells.get("timeout_handle"))


def _next_getter(done: Any, todo: Any, timer: Any) -> Any:
    """Who waits for the next one that is done, where only one is left."""
    return done._getters[0] if timer is None and todo and len(todo) == 1 and done._getters else None


#: What the functions within functions of libraries resolve, by module and name.
_BY_CLOSURE: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
    ("asyncio.tasks", "gather.<locals>._done_callback"): lambda cells: cells.get("outer"),
    ("asyncio.tasks", "_wait.<locals>._on_completion"): _of_wait,
    ("asyncio.tasks", "as_completed.<locals>._on_completion"): _of_as_completed,
    ("asyncio.futures", "_chain_future.<locals>._call_set_state"): lambda cells: cells.get("destination"),
    ("anyio._backends._asyncio", "TaskGroup._spawn.<locals>.task_done"): (
        lambda cells: getattr(cells.get("self"), "_on_completed_fut", None)
    ),
}


def _of_iterator(each: Any) -> Any:
    return _next_getter(each._done, each._todo, each._timeout_handle)


#: The same for methods, by the function. Who is still within a group's body does not wait for its tasks yet.
_BY_METHOD: dict[Any, Callable[[Any], Any]] = {
    asyncio.TaskGroup._on_task_done: lambda group: group._on_completed_fut,
}
if (_ITERATOR := getattr(asyncio.tasks, "_AsCompletedIterator", None)) is not None:  # from Python 3.13 on
    _BY_METHOD[_ITERATOR._handle_completion] = _of_iterator

#: How ``wait_for`` of Python 3.11 is woken.
_RELEASE: Any = getattr(asyncio.tasks, "_release_waiter", None)
#: What ends the ``run_until_complete`` of a task, and so an ``asyncio.run``.
_END_OF_RUN: Any = getattr(asyncio.base_events, "_run_until_complete_cb", None)


# -- whose time is limited ---------------------------------------------------------------------------


def _is_by_threads(way: _Way) -> bool:
    at: _Way | None = way
    while at is not None:
        each, at = at
        if isinstance(each, concurrent.futures.Future):
            return True
    return False


def _is_timed(way: _Way) -> bool:
    """Whether a task on the way is cancelled or woken by a timer, or may be, since that cannot be seen."""
    try:
        return _has_timer(way)
    except Exception:  # noqa: BLE001 - a timer that is cancelled meanwhile
        return True


def _has_timer(way: _Way) -> bool:
    loops: dict[int, set[int]] = {}
    at: _Way | None = way
    while at is not None:
        each, at = at
        if isinstance(each, asyncio.Future):
            loop = each.get_loop()
            if id(loop) not in loops:
                loops[id(loop)] = set(map(id, _timed_on(loop)))
            if id(each) in loops[id(loop)]:
                return True
    return False


def _timed_on(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """What timers of that loop cancel or wake; other loops than asyncio's own show none."""
    for timer in list(getattr(loop, "_scheduled", ())):
        callback = timer._callback  # None once it is cancelled
        if callback is _RELEASE and callback is not None:
            yield timer._args[0]
        elif type(callback) in {MethodType, BuiltinFunctionType}:
            yield _limited(callback.__self__)


def _limited(owner: Any) -> Any:
    """Whose time a timer limits that calls a method of ``owner``."""
    kind = type(owner)
    if kind is asyncio.Timeout:
        return owner._task
    return getattr(owner, "_host_task", None) if kind.__module__ == "anyio._backends._asyncio" else owner
