"""Validates what ``@tool`` is given: the function, its name, its options."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from actors.runtime.arguments import is_time
from actors.tools.schema import unbound
from protocol.errors import ToolDefinitionError
from protocol.foreign import shown
from protocol.tools import Concurrency


def checked_name(function: Any, name: Any) -> str:
    """The name of the tool that ``function`` becomes. Raises ToolDefinitionError."""
    if not callable(function):
        what = "a classmethod" if isinstance(function, classmethod) else shown(function)
        raise ToolDefinitionError(f"{what} cannot be a tool", hint="use a function or a bound method")
    if name is None:
        name = getattr(unbound(function), "__name__", "")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ToolDefinitionError(
            f"tool {shown(name)}: a name must be 1 to 64 letters, digits, '_' or '-'", hint="pass name=…"
        )
    return name


def docstring_of(function: Any) -> str | None:
    """The docstring of a function, or of the class of an object that can be called."""
    function = unbound(function)
    return inspect.getdoc(function) if inspect.isroutine(function) else function.__doc__


def check_options(name: str, concurrency: Any, timeout: Any, description: Any, blocking: Any) -> None:
    """Raise ToolDefinitionError for options that no tool can have."""
    if concurrency not in get_args(Concurrency):
        known = ", ".join(repr(each) for each in get_args(Concurrency))
        raise ToolDefinitionError(
            f"tool {name}: concurrency: expected one of {known}, got {shown(concurrency)}"
        )
    if timeout is not None and not (is_time(timeout) and timeout > 0):
        raise ToolDefinitionError(
            f"tool {name}: timeout: expected more than 0 seconds, got {shown(timeout)}",
            hint="None means no timeout",
        )
    if description is not None and not isinstance(description, str):
        raise ToolDefinitionError(f"tool {name}: description: expected a string, got {shown(description)}")
    if not isinstance(blocking, bool):
        raise ToolDefinitionError(f"tool {name}: blocking: expected True or False, got {shown(blocking)}")
    if timeout is not None and not blocking:
        raise ToolDefinitionError(
            f"tool {name}: timeout={timeout:g} does not work with blocking=False: nothing can "
            "interrupt a function that the event loop itself calls",
            hint="remove one of them, or make the function async",
        )
