"""Loads the tools that ``--tools`` names, and records in the manifest where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from msgspec.structs import replace

from actors.tools.base import Tool
from actors.tools.loading import load_tools
from actors.tools.source import is_source, name_of
from protocol.errors import ToolDefinitionError
from protocol.manifest import PodManifest, module_path


def load_named_tools(names: Iterable[str]) -> tuple[Any, ...]:
    """Import the tools of each ``FILE.py|MODULE[:NAME]``. Raises UsageError, which says what is missing."""
    try:
        return load_tools(names)
    except ToolDefinitionError as error:
        raise click.UsageError(f"--tools {error.message}") from error


def tools_line(tools: Iterable[Any]) -> list[str]:
    """The line that says which tools were found; none where there are none."""
    names = [_name(each) for each in tools]
    return [f"your tools: {', '.join(names)}"] if names else []


def _name(each: Any) -> str:
    if isinstance(each, Tool):
        return each.name
    return f"those of {name_of(each)}" if is_source(each) else getattr(each, "__name__", "?")


def with_tools(manifest: PodManifest, names: tuple[str, ...]) -> tuple[PodManifest, list[str]]:
    """A new pod's manifest with the tools of ``names`` too, and the line that names all of them. The
    session remembers them, by where they are. Raises UsageError.
    """
    load_named_tools(names)
    return _having(manifest, (*manifest.tools.modules, *names))


def with_tools_again(
    manifest: PodManifest, names: tuple[str, ...], *, without: bool
) -> tuple[PodManifest, list[str]]:
    """The manifest of a session that goes on: with the tools of ``names`` where any are given, none where
    it goes on ``without``, else with those that it was opened with. Raises UsageError where these cannot
    be had any more.
    """
    if names and without:
        raise click.UsageError("--tools and --no-tools exclude each other")
    if names or without:
        load_named_tools(names)
        return _having(manifest, names)
    try:
        return _having(manifest, manifest.tools.modules)
    except ToolDefinitionError as error:
        raise click.UsageError(
            f"the session's own tools cannot be loaded: {error.message}; name others with "
            "--tools, or continue without them with --no-tools"
        ) from error


def _having(manifest: PodManifest, names: tuple[str, ...]) -> tuple[PodManifest, list[str]]:
    modules = tuple(dict.fromkeys(module_path(name) for name in names))
    line = tools_line(load_tools(modules))
    return manifest.replace(tools=replace(manifest.tools, modules=modules)), line
