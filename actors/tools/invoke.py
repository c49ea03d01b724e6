"""Invokes a tool's function and gets its value: generators drained, a returned failure raised."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import CoroutineType, NoneType
from typing import Any

from msgspec import Struct

from actors.tools.dump import MOST_MEMBERS, collect

#: Nothing is to be done about what is one of these, as most of what tools return.
_PLAIN = frozenset({str, int, float, bool, NoneType, dict, list})


class Unfinished(Struct, frozen=True):
    """What a plain function returned that is to be awaited: on the loop, where its author expects it."""

    value: Awaitable[Any] | AsyncIterator[Any]

    def drop(self) -> None:
        """Say that nobody will await it."""
        if inspect.iscoroutine(self.value):
            self.value.close()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a function is ``async def``, with ``yield`` or without: its work is done on the loop."""
    if isinstance(function, functools.partial):
        return is_async(function.func)
    call = function if inspect.isroutine(function) else type(function).__call__
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (function, call)
    )


def invoke(
    function: Callable[..., Any], arguments: dict[str, Any], returns: Any, *, on_loop: bool = False
) -> Any:
    """Call a plain function, in a thread (or ``on_loop``): gives what it returns, the members of a generator
    as a list, and Unfinished for what is to be awaited, as of ``async def`` behind a plain decorator.

    Raises what the function raises, and an exception that it returns though it says (``returns``,
    its annotation) to return something else.
    """
    value = function(**arguments)
    if type(value) in _PLAIN:
        return value
    if inspect.isawaitable(value):
        return Unfinished(value)
    if isinstance(value, AsyncIterator):
        if on_loop:
            return Unfinished(value)
        value = asyncio.run(_collect_async(value))  # of this thread, which has no loop
    return _finish(value, returns)


async def finish(unfinished: Unfinished, returns: Any) -> Any:
    """What an awaitable gives in the end, or an async generator."""
    value = unfinished.value
    given = await (_collect_async(value) if isinstance(value, AsyncIterator) else value)
    return _finish(given, returns)


async def invoke_async(function: Callable[..., Any], arguments: dict[str, Any], returns: Any) -> Any:
    """As ``invoke``, for a function that ``is_async``, called on the loop."""
    value = function(**arguments)
    if type(value) is CoroutineType or inspect.isawaitable(value):
        value = await value
    if type(value) in _PLAIN:
        return value
    if isinstance(value, AsyncIterator):
        value = await _collect_async(value)
    return _finish(value, returns)


def _finish(value: Any, returns: Any) -> Any:
    if isinstance(value, Exception) and not _may_be_error(returns):
        raise value
    return collect(value) if isinstance(value, Iterator) else value


def _may_be_error(returns: Any) -> bool:
    """Whether an exception is among what a function says to return; it may say nothing."""
    if returns is Any:
        return True
    kinds = (returns, *typing.get_args(returns))
    return any(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


async def _collect_async(members: AsyncIterator[Any]) -> list[Any]:
    taken: list[Any] = []
    async for each in members:
        taken.append(each)
        if len(taken) > MOST_MEMBERS:
            break
    return collect(taken)
