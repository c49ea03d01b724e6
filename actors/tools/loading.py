"""Loading: a user's own tools and sources of tools, by the names of their files or modules."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from actors.tools.base import Tool
from actors.tools.source import has_methods_of_source, is_source
from protocol.errors import PolypodError, ToolDefinitionError

_EXPECTED = "expected FILE.py or MODULE, with :NAME to load only that name, as in mytools.py:word_count"


def load_tools(names: Iterable[str], folder: Path | None = None) -> tuple[Any, ...]:
    """Import the tools of each ``FILE.py`` or ``MODULE`` (all that were made with ``@tool``), or with
    ``:NAME`` behind it the function, Tool, ToolSource, or list of them that it calls so.

    Modules of ``folder`` (by default the working directory) are found too. Raises ToolDefinitionError, which
    says what is missing.
    """
    names = tuple(names)
    if not all(name.partition(":")[0].endswith(".py") for name in names):
        _look_in(folder or Path.cwd())
    return tuple(tool for name in names for tool in _named(name))


def _named(name: str) -> list[Any]:
    place, _, attribute = name.partition(":")
    if not place or (":" in name and not attribute):
        raise _refused(name, _EXPECTED)
    module = _import(name, place)
    if not attribute:
        return _all_tools(name, module)
    found = getattr(module, attribute, None)
    if found is None:
        raise _refused(name, f"{place} has no {attribute!r}")
    tools = list(found) if isinstance(found, list | tuple) else [found]
    if not tools or not all(isinstance(each, Tool) or callable(each) or is_source(each) for each in tools):
        raise _refused(name, "expected a function, a tool, a tool source, or a list of them")
    for each in tools:
        if isinstance(each, type) and has_methods_of_source(each):
            raise _refused(
                name, f"{each.__name__} is a class: create an instance in the module, and name that"
            )
    return tools


def _all_tools(name: str, module: ModuleType) -> list[Any]:
    """What a module's author has made a tool; what is merely a function there may be no tool at all."""
    found = list({id(each): each for each in vars(module).values() if isinstance(each, Tool)}.values())
    if not found:
        raise _refused(
            name,
            "it has no tools: put @tool on a function (from polypod import tool), or name a "
            f"function or a tool source: {name}:NAME",
        )
    return found


def _import(name: str, place: str) -> ModuleType:
    """The module of a file, or of that name. Whatever it throws while it is imported is reported in words."""
    path = Path(os.path.expanduser(place)).resolve() if place.endswith(".py") else None  # noqa: PTH111 - raises nothing
    if path is not None and not path.is_file():
        raise _refused(name, f"there is no file {place}")
    if path is None and not all(part.isidentifier() for part in place.split(".")):
        raise _refused(name, _EXPECTED)
    try:
        return import_module(place) if path is None else _of_file(path)
    except (Exception, SystemExit) as error:
        raise _refused(name, f"{place} cannot be imported: {_why(error, path)}") from error


def _of_file(path: Path) -> ModuleType:
    """A file as a module; what lies beside it can be imported by it."""
    known = sys.modules.get(str(path))
    if known is not None:
        return known
    spec = spec_from_file_location(str(path), path)
    assert spec is not None
    assert spec.loader is not None
    # Under its path, since a file may be called like a module of Python's own.
    module = sys.modules[str(path)] = module_from_spec(spec)
    _look_in(path.parent)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[str(path)]
        raise
    return module


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _why(error: BaseException, path: Path | None) -> str:
    """What a module's import failed by, and at which line of its file where that is known."""
    words = str(error) if isinstance(error, PolypodError) else f"{type(error).__name__}: {error}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f"{words} (line {lines[-1]})" if lines else words


def _refused(name: str, why: str) -> ToolDefinitionError:
    return ToolDefinitionError(f"{name}: {why}")
