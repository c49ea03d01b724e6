"""Finds what can never go on while other tasks and futures do not end, as asyncio and threads show it."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import pykka
from msgspec import Struct

from actors.runtime.stacks import ends_with, ends_with_loop, threads_that_wait


class Hold(Struct, frozen=True):
    """Why a task is held up: by all of ``nodes``, the tasks and futures between what never ends and the task
    itself.

    A node that ``outlasts`` others goes on if whoever waits for it is cancelled, and so does what is behind
    it.
    """

    nodes: list[Any]
    outlasts: bool


def find_hold(asked: Iterable[Any], by: asyncio.Task[Any], *, by_any: bool = False) -> Hold | None:
    """What holds ``by`` up for ever if none of the tasks and futures ``asked`` ever ends; None if it may go
    on all the same. From any thread.

    With ``by_any`` it is enough that it waits for one of several. Only what is certain counts, since a wait
    that is found may be refused: the ways of asyncio, anyio and polypod. What users' callbacks do is unknown,
    and what is shielded goes on without its waiter. A task that waits for several, and goes on with one of
    them or by an error of one, is held up by all together.
    """
    held: dict[int, Any] = {}
    waiting: dict[int, _Waiting] = {}
    found = list(asked)
    while found:
        each = found.pop()
        if id(each) in held:
            continue
        held[id(each)] = each
        # What is private to asyncio may be otherwise in another version, or change on its loop meanwhile.
        with contextlib.suppress(Exception):
            for goes_on in _waiting_for(each):
                of = waiting.setdefault(id(goes_on.what), _Waiting(goes_on.what, []))
                of.members.append((each, goes_on.outlasts))
                if by_any or len(of.members) >= goes_on.after:
                    found.append(goes_on.what)
    return _way_back(by, waiting) if id(by) in held else None


class _Waiting(Struct, frozen=True):
    """A task or future, and what it was found to wait for, each with whether that outlasts it."""

    what: Any
    members: list[tuple[Any, bool]]


def _way_back(by: asyncio.Task[Any], waiting: dict[int, _Waiting]) -> Hold:
    nodes, outlasts = {id(by): by}, False
    found = [id(by)]
    while found:
        at = waiting.get(found.pop())
        for each, each_outlasts in () if at is None else at.members:
            outlasts = outlasts or each_outlasts
            if id(each) not in nodes:
                nodes[id(each)] = each
                found.append(id(each))
    return Hold(list(nodes.values()), outlasts)


class _GoesOn(Struct, frozen=True):
    """What goes on once something has ended, but only ``after`` that many have; ``outlasts`` says that
    cancelling the waiter does not reach what it waits for.
    """

    what: Any
    after: int = 1
    outlasts: bool = False


def _waiting_for(each: Any) -> Iterator[_GoesOn]:
    """What waits for the end of ``each``."""
    if isinstance(each, concurrent.futures.Future):
        for frame in threads_that_wait(each):
            for end in ends_with(frame):
                yield _GoesOn(end, outlasts=True)
        callbacks = list(each._done_callbacks)  # type: ignore[attr-defined]
    elif isinstance(each, asyncio.Future):
        callbacks = [callback for callback, *_ in each._callbacks or ()]
    elif isinstance(each, pykka.Future):
        callbacks = list(getattr(each, "_callbacks", None) or ())
    else:
        return
    for callback in callbacks:
        if callback is _END_OF_RUN:
            for end in ends_with_loop(each.get_loop()):
                yield _GoesOn(end)
        elif (goes_on := _resolved_by(callback)) is not None and goes_on.what is not None:
            yield goes_on


# -- what a callback resolves ------------------------------------------------------------------------


def _resolved_by(callback: Any) -> _GoesOn | None:
    """What a callback lets go on, and nothing else does; None if that is not certain. Objects of users are
    not asked anything: one may be a proxy that raises.
    """
    kind: Any = type(callback)
    if kind is BuiltinFunctionType:
        return _GoesOn(callback.__self__) if callback.__name__ == "task_wakeup" else None
    if kind is functools.partial:
        return _GoesOn(callback.args[0]) if callback.func is _RELEASE else None
    if kind is MethodType and type(callback.__func__) is FunctionType:
        method = callback.__func__
        of_method = _BY_METHOD.get((method.__module__, method.__qualname__))
        return None if of_method is None else of_method(callback.__self__)
    if kind is FunctionType:
        within = _BY_CLOSURE.get((callback.__module__, callback.__qualname__))
        return None if within is None else within(_cells(callback))
    return None


def _cells(function: FunctionType) -> dict[str, Any]:
    """The closure variables that it uses and that have a value."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it has none yet
            continue
    return found


def _of_gather(cells: dict[str, Any]) -> _GoesOn:
    left = cells["nfuts"] - cells["nfinished"]
    return _GoesOn(cells["outer"], 1 if cells["return_exceptions"] else left)


def _of_wait(cells: dict[str, Any]) -> _GoesOn:
    every = cells["return_when"] == asyncio.ALL_COMPLETED
    return _GoesOn(cells["waiter"], 1 if every else cells["counter"], outlasts=True)


def _of_group(group: Any) -> _GoesOn:
    """A task of the group that fails ends the others. Code within the group's body does not wait for them
    yet.
    """
    return _GoesOn(group._on_completed_fut, len(group._tasks))


def _next_getter(done: Any, todo: Any) -> _GoesOn | None:
    """Who waits for the next one that is done."""
    return _GoesOn(done._getters[0], len(todo), outlasts=True) if done._getters else None


#: What the functions within functions resolve, by module and name.
_BY_CLOSURE: dict[tuple[str, str], Callable[[dict[str, Any]], _GoesOn | None]] = {
    ("asyncio.tasks", "gather.<locals>._done_callback"): _of_gather,
    ("asyncio.tasks", "_wait.<locals>._on_completion"): _of_wait,
    ("asyncio.tasks", "as_completed.<locals>._on_completion"): (
        lambda cells: _next_getter(cells["done"], cells["todo"])
    ),
    ("asyncio.futures", "_chain_future.<locals>._call_set_state"): (
        lambda cells: _GoesOn(cells["destination"])
    ),
    ("anyio._backends._asyncio", "TaskGroup._spawn.<locals>.task_done"): (
        lambda cells: _of_group(cells["self"])
    ),
    ("actors.runtime.interruptible", "Interruptible.apart.<locals>.<lambda>"): (
        lambda cells: _GoesOn(cells["ended"])
    ),
    ("actors.runtime.on_loop", "ask_on.<locals>.start.<locals>.<lambda>"): (
        lambda cells: _GoesOn(cells.get("future"))
    ),
    ("actors.runtime.tasks", "wait_for_one.<locals>.wake"): lambda cells: _GoesOn(cells["waiter"]),
}
#: The same for methods.
_BY_METHOD: dict[tuple[str, str], Callable[[Any], _GoesOn | None]] = {
    ("asyncio.taskgroups", "TaskGroup._on_task_done"): _of_group,
    ("asyncio.tasks", "_AsCompletedIterator._handle_completion"): (  # from Python 3.13 on
        lambda each: _next_getter(each._done, each._todo)
    ),
    ("actors.runtime.future", "_Waiter.wake"): lambda waiter: _GoesOn(waiter.future),
}
#: How ``wait_for`` of Python 3.11 is woken.
_RELEASE: Any = getattr(asyncio.tasks, "_release_waiter", None)
#: What ends the ``run_until_complete`` of a task, and so an ``asyncio.run``.
_END_OF_RUN: Any = getattr(asyncio.base_events, "_run_until_complete_cb", None)


# -- whose time is limited ---------------------------------------------------------------------------


class Timers:
    """What timers may cancel or resolve; the timers of a loop are looked at once. ``of_users`` leaves out
    polypod's own, such as a tool's time-out.
    """

    def __init__(self, *, of_users: bool = False) -> None:
        self._of_users = of_users
        #: By the loop; None where that cannot be seen.
        self._ended: dict[asyncio.AbstractEventLoop, set[int] | None] = {}

    def may_end(self, nodes: Iterable[Any]) -> bool:
        """Whether one of these tasks and futures may end so; from any thread."""
        for each in nodes:
            if isinstance(each, asyncio.Future):
                ended = self._ended_on(each.get_loop())
                if ended is None or id(each) in ended:
                    return True
        return False

    def _ended_on(self, loop: asyncio.AbstractEventLoop) -> set[int] | None:
        if loop not in self._ended:
            try:
                found = (_ended_by(handle, of_users=self._of_users) for handle in _handles(loop))
                self._ended[loop] = {id(each) for ended in found for each in ended}
            except Exception:  # noqa: BLE001 - another's loop, or a timer that is cancelled meanwhile
                self._ended[loop] = None
        return self._ended[loop]


def _handles(loop: Any) -> list[Any]:
    """The timers of that loop, and what it is about to call, such as a timer whose time is up. Raises
    AttributeError for loops other than asyncio's own.
    """
    return [*list(loop._scheduled), *list(loop._ready)]


def _ended_by(handle: Any, *, of_users: bool) -> Iterator[Any]:
    """What that call may end: for polypod's own calls that is known, for others it is everything that they
    can reach directly.
    """
    callback, args = handle._callback, handle._args or ()
    kind = type(callback)
    if kind not in {MethodType, FunctionType} or not (callback.__module__ or "").startswith("actors."):
        for each in (callback, *args):
            yield from _mentioned(each, 2)
    elif not of_users:
        yield from _cells(callback).values() if kind is FunctionType else ()
        for each in args:
            yield getattr(each, "ended_in_time", None)


#: What is looked into where an object has it.
_CONTAINERS = frozenset({dict, list, set, tuple, collections.deque})


def _mentioned(value: Any, depth: int) -> Iterator[Any]:
    """``value``, what it refers to, and what is in its containers; no code of users is called."""
    yield value
    kind = type(value)
    if depth == 0:
        yield from gc.get_referents(value) if kind in _CONTAINERS else ()
        return
    if kind is FunctionType:
        known = value.__globals__
        inner = [*_cells(value).values(), *(value.__defaults__ or ())]
        inner += [known[name] for name in value.__code__.co_names if name in known]
    elif kind in {MethodType, BuiltinFunctionType}:
        inner = [value.__self__]
    elif kind is functools.partial:
        inner = [value.func, *value.args, *value.keywords.values()]
    elif issubclass(kind, asyncio.AbstractEventLoop):  # it knows all timers
        inner = []
    else:
        inner = gc.get_referents(value)
        inner += [each for its in inner if type(its) is dict for each in its.values()]  # its attributes
    for each in inner:
        yield from _mentioned(each, depth - 1)
