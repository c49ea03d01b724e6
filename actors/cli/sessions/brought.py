"""What an imported session brings along, which holds once somebody continues it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import msgspec

from protocol.agents import spec_of
from protocol.entries import SessionOpened
from protocol.manifest import PodManifest


def brought_by(opened: SessionOpened) -> Iterator[str]:
    """What a session would start and may touch, by its first entry, a line each."""
    if (spec := spec_of(opened.manifest)) is not None:
        runner = spec.runner if isinstance(spec.runner, str) else shlex.join(spec.runner)
        yield f"agent {spec.id}, runner {runner}, in {spec.cwd}"
        return
    try:
        manifest = msgspec.json.decode(opened.manifest, type=PodManifest).without_secrets()
    except msgspec.DecodeError:  # of a newer version: nothing of it is continued here
        return
    for server in manifest.tools.mcp:
        yield f"MCP server {server.name}: {server.url or shlex.join(server.words)}"
    for module in manifest.tools.modules:
        yield f"tools of {module}"
    for rule in manifest.scope.allow:
        yield f"{rule.permission} {rule.target}"
