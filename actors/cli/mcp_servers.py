"""``--mcp FILE``: the servers of a file as other clients of the Model Context Protocol have it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from protocol.errors import ManifestError
from protocol.files import read_file
from protocol.manifest import PodManifest
from protocol.mcp import McpServer
from protocol.text import UNDECODABLE

#: What several clients call the same, by our name for it.
_KEYS = {
    "command": ("command",),
    "args": ("args",),
    "env": ("env",),
    "cwd": ("cwd",),
    "url": ("url", "httpUrl", "serverUrl"),
    "headers": ("headers",),
    "allow": ("includeTools", "allowedTools"),
    "deny": ("excludeTools", "disabledTools"),
    "kind": ("type", "transport"),
    "disabled": ("disabled",),
}
#: Bytes that a file has at most.
_LARGEST = 1 << 24
_OURS = {theirs: ours for ours, names in _KEYS.items() for theirs in names}
_OF_LISTS = frozenset({"args", "allow", "deny"})
_OF_TABLES = frozenset({"env", "headers"})


def with_servers(manifest: PodManifest, files: tuple[Path, ...]) -> tuple[PodManifest, list[str]]:
    """``manifest`` with the servers of ``files``, which take the place of those of the same names; and what a
    person should know of them, a line each. Raises UsageError.
    """
    if not files:
        return manifest, []
    notes: list[str] = []
    named = {each.name: each for each in manifest.tools.mcp}
    for file in files:
        for server in _servers_of(file, notes):
            named[server.name] = server
    try:
        checked = PodManifest.of(pwd=manifest.pod.pwd, mcp=list(named.values())).tools.mcp
    except ManifestError as error:
        raise click.UsageError(f"--mcp: {error.message.removeprefix('manifest: ')}") from error
    if checked:
        notes.append(f"MCP servers, not confined: {', '.join(each.name for each in checked)}")
    return manifest.replace(tools=replace(manifest.tools, mcp=checked)), notes


def without_servers(manifest: PodManifest) -> PodManifest:
    """``manifest`` without servers."""
    return manifest.replace(tools=replace(manifest.tools, mcp=())) if manifest.tools.mcp else manifest


def _servers_of(file: Path, notes: list[str]) -> Iterator[McpServer]:
    try:
        data = msgspec.json.decode(read_file(file, _LARGEST, pipes=True).removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise click.UsageError(f"--mcp {file}: cannot be read: {error.strerror}") from error
    except UNDECODABLE as error:
        raise click.UsageError(f"--mcp {file}: invalid JSON: {error}") from error
    servers = data.get("mcpServers") if isinstance(data, dict) else None
    if not isinstance(servers, dict):
        raise click.UsageError(
            f'--mcp {file}: expected {{"mcpServers": {{"NAME": {{"command": …}}}}}}, as other clients use it'
        )
    seen: dict[str, str] = {}
    for name, entry in servers.items():
        server = _server(f"--mcp {file}: mcpServers.{name}", name, entry, notes)
        if server is None:
            continue
        if server.name in seen:
            raise click.UsageError(
                f"--mcp {file}: {seen[server.name]!r} and {name!r} would both be {server.name!r}: rename one"
            )
        seen[server.name] = name
        if server.name != name:
            notes.append(
                f"MCP server {name!r} is called {server.name!r}, since models need such a name for its tools"
            )
        yield server


def _server(at: str, name: str, entry: Any, notes: list[str]) -> McpServer | None:
    if not isinstance(entry, dict):
        raise click.UsageError(f"{at}: expected a table")
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if key in _OURS:
            found[_OURS[key]] = _checked(f"{at}.{key}", _OURS[key], value)
    if others := sorted(entry.keys() - _OURS.keys()):
        notes.append(f"MCP server {name!r}: ignored {', '.join(others)}")
    if found.get("disabled"):
        notes.append(f"MCP server {name!r} is disabled in its file")
        return None
    if found.get("kind") == "sse":
        raise click.UsageError(f"{at}: the older SSE transport is not supported; use streamable HTTP")
    command = (found["command"], *found.get("args", ())) if "command" in found else ()
    headers = found.get("headers", {})
    return McpServer(
        _legal(name),
        command=command,
        url=found.get("url"),
        cwd=found.get("cwd", ""),
        env=found.get("env", {}) if command else {},
        headers_env={header: _variable(f"{at}.headers.{header}", headers[header]) for header in headers},
        allow=tuple(found.get("allow", ())),
        deny=tuple(found.get("deny", ())),
    )


def _checked(at: str, key: str, value: Any) -> Any:
    if key in _OF_LISTS:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        raise click.UsageError(f"{at}: expected a list of strings")
    if key in _OF_TABLES:
        if isinstance(value, dict) and all(isinstance(each, str | int | float) for each in value.values()):
            return {name: each if isinstance(each, str) else str(each) for name, each in value.items()}
        raise click.UsageError(f"{at}: expected a table of strings")
    if key == "disabled":
        return bool(value)
    if not isinstance(value, str):
        raise click.UsageError(f"{at}: expected a string")
    return value


def _variable(at: str, value: str) -> str:
    """A header's value, which has to come from the environment."""
    if "${" in value:
        return value
    raise click.UsageError(
        f"{at}: sessions never store the value of a header: export it, and write ${{NAME}} here, "
        'as in "Bearer ${NAME}"'
    )


def _legal(name: str) -> str:
    """A name that models can have before those of tools."""
    legal = re.sub(r"[-_]{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", name)).strip("-_")
    if not legal[:1].isalpha():
        legal = f"mcp-{legal}".strip("-")
    return legal[:32].rstrip("-_")
