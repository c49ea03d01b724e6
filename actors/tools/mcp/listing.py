"""What an MCP server lists, pure: made such that one tool that is odd does not cost the others."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.tools.mcp.schemas import SchemaError, usable_schema
from protocol.foreign import shown
from protocol.mcp import McpServer
from protocol.shared_servers import ListedTool
from protocol.text import encodable

#: The key under which the tool as the server lists it goes through the SDK.
_AS_LISTED = "polypod.as_listed"
#: How many tools of a server a pod may have, and how many of a list are looked at: to make one of each takes
#: its time, in which nothing else goes on.
MOST_TOOLS, MOST_LISTED = 2_000, 10_000
#: How many that are left out are named.
_NAMED = 20


class Listing(Struct, frozen=True):
    """The tools of a server, with schemas that may be of any kind; ``more``: whether it has some beyond
    those.
    """

    tools: tuple[ListedTool, ...]
    more: bool


def simplify_listing(result: dict[str, Any]) -> None:
    """Make the tools of a ``tools/list`` result acceptable to the SDK, which refuses the whole list for one
    that it does not accept. What is not needed is left out (schemas of results among it, since a result that
    does not fit its schema is still worth more than none), and so is what is not a tool. The schema of the
    arguments travels beside, as it was listed.
    """
    tools = result.get("tools")
    if isinstance(tools, list):
        some = islice(filter(_is_tool, tools), MOST_LISTED + 1)  # one more shows that there are more
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


def listing_of(tools: list[Any], *, more: bool) -> Listing:
    """What a server lists, from the tools of the SDK; ``more``: whether there are some beyond those."""
    listed = tuple(map(_as_listed, tools[:MOST_LISTED]))
    return Listing(listed, more or len(listed) < len(tools))


def _as_listed(tool: Any) -> ListedTool:
    hints = tool.annotations
    return ListedTool(
        tool.name,
        tool.description or "",
        (tool.meta or {}).get(_AS_LISTED, tool.input_schema),
        hints is not None and hints.read_only_hint is True,
    )


def is_admitted(tool: str, server: McpServer) -> bool:
    """Whether a pod may have a tool of that name, by what it is to have of the server."""
    if any(fnmatchcase(tool, pattern) for pattern in server.deny):
        return False
    return not server.allow or any(fnmatchcase(tool, pattern) for pattern in server.allow)


def usable_tools(listing: Listing, admits: Callable[[str], bool]) -> tuple[tuple[ListedTool, ...], list[str]]:
    """The tools of a server that are admitted by name, with schemas that all providers take, and in words
    which of those are left out. Of two of one name the first stands.
    """
    found: dict[str, ListedTool] = {}
    left_out: list[str] = []
    beyond = [f"all beyond the first {len(listing.tools):,} that it lists"] if listing.more else []
    for each in listing.tools:
        if not admits(each.name):
            continue
        if len(found) == MOST_TOOLS:
            beyond = [f"all beyond the first {MOST_TOOLS:,}"]
            break
        try:
            schema, words = usable_schema(each.schema)
        except SchemaError as why:
            left_out.append(f"{shown(encodable(each.name))}: {why}")
            continue
        if each.name in found:
            left_out.append(f"{shown(encodable(each.name))}: listed twice")
            continue
        found[each.name] = replace(each, description=f"{each.description}{words}", schema=schema)
    if len(left_out) > _NAMED:
        left_out[_NAMED:] = [f"and {len(left_out) - _NAMED:,} more"]
    return tuple(found.values()), left_out + beyond
