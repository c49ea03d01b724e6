"""A pod's working directory and a way to call the built-in tools in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.tools.base import ToolContext
from actors.tools.builtin import builtin
from actors.tools.scope import resolved
from actors.tools.toolbox import Toolbox
from protocol.items import ToolCall, ToolResult
from protocol.scope import Scope

Use = Callable[..., ToolResult]


@pytest.fixture
def pwd(tmp_path: Path) -> Path:
    """The pod's own directory, beside which others lie."""
    (tmp_path / "pod").mkdir()
    return tmp_path / "pod"


@pytest.fixture
def use(pwd: Path) -> Use:
    """Call a built-in tool: ``use("read_file", path="a")``; ``scope=`` replaces all of pwd."""

    def call(
        name: str, *, scope: Scope | None = None, output_cap: int = 16_384, **arguments: Any
    ) -> ToolResult:
        ctx = ToolContext(pwd=pwd, scope=resolved(Scope.writable(pwd) if scope is None else scope))
        toolbox = Toolbox(builtin(["files", "search"]), output_cap=output_cap)
        return asyncio.run(toolbox.run(ToolCall("c", name, arguments), ctx))

    return call
