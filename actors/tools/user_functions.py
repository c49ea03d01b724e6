"""Calls functions of users that are not tools: ``async def`` ones on the loop, plain ones in a thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.tools.invoke import is_async
from actors.tools.own_task import Outcome, run_alone
from protocol.foreign import named_words

if TYPE_CHECKING:
    from actors.tools.thread_pool import ToolThreads


async def call_function(function: Callable[[], Any], threads: ToolThreads, seconds: float | None) -> Any:
    """What a function of no arguments gives within so many seconds (None: any number). Raises an Exception
    for whatever it raises, and ToolTimeout.
    """
    if not is_async(function):
        outcome = await threads.call(functools.partial(_in_thread, function), seconds=seconds, late=_ignore)
        if not inspect.isawaitable(outcome.value):
            return _value(outcome)
        function = functools.partial(_the_same, outcome.value)
    return _value(await run_alone(function, seconds, _ignore))


def _in_thread(function: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(function())
    except BaseException as error:  # noqa: BLE001 - a CancelledError of the function's own included
        return Outcome(error=error)


def _value(outcome: Outcome) -> Any:
    error = outcome.error
    if outcome.interrupted or (error is not None and not isinstance(error, Exception)):
        raise RuntimeError("it ended itself" if error is None else named_words(error)) from error
    if error is not None:
        raise error
    return outcome.value


def _the_same(value: Any) -> Any:
    return value


def _ignore(outcome: Outcome) -> None:
    """The end of a function that nobody waits for."""
    if inspect.iscoroutine(outcome.value):
        outcome.value.close()
