"""Loading: a user's own tools, by the names of their modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from actors.tools.base import Tool


def tools_named(names: Iterable[str]) -> tuple[Any, ...]:
    """The tools that ``module:name`` names, each a function, a Tool, or a list of them.

    Modules of the working directory are found too. Raises UsageError, which says what is missing.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return tuple(tool for name in names for tool in _named(name))


def _named(name: str) -> Iterable[Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise click.UsageError(f"--tools {name}: expected MODULE:NAME, as in mytools:word_count")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise click.UsageError(
            f"--tools {name}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise click.UsageError(f"--tools {name}: {module_name} has no {attribute!r}")
    tools = list(found) if isinstance(found, list | tuple) else [found]
    if not all(isinstance(tool, Tool) or callable(tool) for tool in tools):
        raise click.UsageError(f"--tools {name}: expected a function, a tool, or a list of them")
    return tools
