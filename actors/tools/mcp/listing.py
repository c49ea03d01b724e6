"""What an MCP server lists, pure: made such that one tool that is odd does not cost the others."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from actors.tools.mcp.schemas import SchemaError, usable_schema
from protocol.foreign import shown
from protocol.shared_servers import ListedTool
from protocol.text import encodable

#: The key under which the tool as the server lists it goes through the SDK.
_AS_LISTED = "polypod.as_listed"
#: How many tools a server may have: to make one of each takes its time, in which nothing else goes on.
MOST_TOOLS = 2_000


def simplify_listing(result: dict[str, Any]) -> None:
    """Make the tools of a ``tools/list`` result acceptable to the SDK, which refuses the whole list for one
    that it does not accept. What is not needed is left out (schemas of results among it, since a result that
    does not fit its schema is still worth more than none), and so is what is not a tool. The schema of the
    arguments travels beside, as it was listed.
    """
    tools = result.get("tools")
    if isinstance(tools, list):
        some = islice(filter(_is_tool, tools), MOST_TOOLS + 1)  # one more shows that there are more
        result["tools"] = [_simple(each) for each in some]


def _is_tool(given: Any) -> bool:
    return isinstance(given, dict) and isinstance(given.get("name"), str) and bool(given["name"])


def _simple(given: dict[str, Any]) -> dict[str, Any]:
    schema, hints = given.get("inputSchema"), given.get("annotations")
    description = given.get("description") or given.get("title")
    simple: dict[str, Any] = {
        "name": given["name"],
        "inputSchema": schema if _is_plain(schema) else {"type": "object"},
        "_meta": {_AS_LISTED: schema},
    }
    if isinstance(description, str):
        simple["description"] = description
    if isinstance(hints, dict) and hints.get("readOnlyHint") is True:
        simple["annotations"] = {"readOnlyHint": True}
    return simple


def _is_plain(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        return False
    return all(isinstance(each, dict) for each in properties.values()) and all(
        isinstance(each, str) for each in required
    )


def listed(tools: Iterable[Any]) -> tuple[tuple[ListedTool, ...], list[str]]:
    """The tools of a server from those of the SDK, and in words which are left out. Of two of one name the
    first stands.
    """
    found: dict[str, ListedTool] = {}
    left_out: list[str] = []
    for each in tools:
        if len(found) == MOST_TOOLS:
            left_out.append(f"all beyond the first {MOST_TOOLS:,}")
            break
        meta, hints = each.meta or {}, each.annotations
        try:
            schema, words = usable_schema(meta.get(_AS_LISTED, each.input_schema))
        except SchemaError as why:
            left_out.append(f"{shown(encodable(each.name))}: {why}")
            continue
        if each.name in found:
            left_out.append(f"{shown(encodable(each.name))}: listed twice")
            continue
        read_only = hints is not None and hints.read_only_hint is True
        found[each.name] = ListedTool(each.name, f"{each.description or ''}{words}", schema, read_only)
    return tuple(found.values()), left_out
