"""Tools whose schema somebody else has, a server or a database: their function gets all arguments in one dict."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolArgumentsInvalid, ToolDefinitionError
from protocol.items import ToolCall, ToolResult
from protocol.scope import Scope

SCHEMA = {"type": "object", "properties": {"page-size": {"type": "integer"}}, "required": ["page-size"]}


def run(tool: Tool, arguments: dict[str, Any]) -> ToolResult:
    ctx = ToolContext(pwd=Path("/"), scope=Scope(), pod="p")
    return asyncio.run(Toolbox([tool]).run(ToolCall("c1", tool.name, arguments), ctx))


def test_the_schema_is_shown_as_it_is_and_the_arguments_come_as_they_were_sent() -> None:
    @tool(input_schema=SCHEMA, name="pages")
    def listed(arguments: dict[str, Any]) -> str:
        """List the pages."""
        return repr(arguments)

    assert (listed.name, listed.description, listed.spec.input_schema) == ("pages", "List the pages.", SCHEMA)
    assert run(listed, {"page-size": 3, "other": [None]}).text == "{'page-size': 3, 'other': [None]}"


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_the_function_may_have_a_context_and_refuse_what_does_not_fit(*, is_async: bool) -> None:
    def plain(ctx: ToolContext, given: dict[str, Any]) -> str:
        if "page-size" not in given:
            raise ToolArgumentsInvalid("page-size is missing")
        return f"{ctx.pod} {given['page-size']}"

    async def on_loop(given: dict[str, Any], ctx: ToolContext) -> str:
        return plain(ctx, given)

    made = Tool(on_loop if is_async else plain, name="pages", input_schema=SCHEMA)
    assert run(made, {"page-size": 3}).text == "p 3"
    refused = run(made, {})
    assert refused.is_error
    assert refused.text == "invalid arguments for pages: page-size is missing"


def test_what_the_function_does_with_the_arguments_changes_no_history() -> None:
    @tool(input_schema={"type": "object"})
    def empty(arguments: dict[str, Any]) -> int:
        arguments["list"].clear()
        return len(arguments.pop("list"))

    sent = {"list": [1, 2]}
    assert run(empty, sent).text == "0"
    assert sent == {"list": [1, 2]}


def test_a_schema_that_is_changed_later_changes_no_tool() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    made = Tool(lambda arguments: arguments, name="any", input_schema=schema)
    schema["properties"]["late"] = {}
    assert made.input_schema == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "schema", [{}, {"type": "string"}, [], "object", {"type": "object", "default": object()}]
)
def test_what_is_no_schema_of_an_object_is_refused(schema: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="input_schema"):
        Tool(lambda arguments: arguments, name="any", input_schema=schema)


@pytest.mark.parametrize("function", [lambda: 1, lambda one, other: 1, lambda ctx: 1, lambda **given: 1])
def test_a_function_of_another_kind_is_refused(function: Any) -> None:
    with pytest.raises(ToolDefinitionError):
        Tool(function, name="any", input_schema=SCHEMA)
