"""Requests in the form of Anthropic's messages, pure: a Request in, the bytes of its body out.

The vendor caches what requests begin with: first the tools, then the system prompt, then the messages. Four
places may be marked as ends of what is worth keeping, and these are: the last tool, the system prompt, the
end of the history, and where the history ended one request ago. The last two need no memory: a request ended
where the model's last answer begins. Marks are not part of what is cached, and all else only grows.

A typed answer (``output_schema``) is asked for as the arguments of one more tool, since that is what these
servers hold a model to: it must call this or another tool, until it has called this one, whose arguments
become the text of the answer. Models that refuse to be forced are only asked to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from actors.llm.anthropic.dialect import Dialect
from actors.llm.anthropic.history import EncodedHistory
from actors.llm.base import Request
from actors.llm.http.requests import kept_history
from actors.llm.legal import legal_name
from protocol.tools import ToolSpec

#: How long an answer may get where nobody says, in tokens; this API does not go without a limit. The vendor's
#: newer models think without being asked, which counts as part of the answer; older ones do not, and may have
#: no room for so many.
MAX_TOKENS = 8192
VENDOR_MAX_TOKENS = 32_000

Lifetime = Literal["5m", "1h"]

_KEPT = "anthropic.history"
_KEPT_TOOLS = "anthropic.tools"
_ANSWER_TOOL = "final_answer"
_ANSWER_WORDS = "Give your final answer by calling this tool once, when nothing else is left to do."

_encode = msgspec.json.Encoder().encode


class Caching(Struct, frozen=True):
    """How long the vendor keeps a request's beginning: ``prefix`` is tools and system prompt, ``history``
    the messages. An hour costs more to write; what is kept longer has to come first.
    """

    prefix: Lifetime = "5m"
    history: Lifetime = "5m"

    def prefix_mark(self) -> dict[str, str]:
        """The mark of tools and system prompt, which live at least as long as what follows them."""
        return _mark("1h" if "1h" in (self.prefix, self.history) else "5m")

    def history_mark(self) -> dict[str, str]:
        """The mark of places in the history."""
        return _mark(self.history)


def _mark(lifetime: Lifetime) -> dict[str, str]:
    return {"type": "ephemeral"} if lifetime == "5m" else {"type": "ephemeral", "ttl": lifetime}


def body_of(
    request: Request,
    model: str,
    dialect: Dialect = Dialect(),  # noqa: B008 - frozen
    *,
    caching: Caching | None = Caching(),  # noqa: B008
    streaming: bool = True,
    extra: dict[str, Any] | None = None,
    origin: str | None = None,
) -> bytes:
    """The body of a request. ``extra`` are fields that it has besides, ``origin`` is the kind of server that
    it goes to (see AssistantItem).
    """
    marks = caching if dialect.caching else None
    options: dict[str, Any] = {**(extra or {}), "model": model}
    usual = VENDOR_MAX_TOKENS if dialect.long_answers else MAX_TOKENS
    options["max_tokens"] = _longest(request, options, usual)
    if not dialect.thinking_option:
        options.pop("thinking", None)
    options["stream"] = streaming
    if request.temperature is not None and dialect.temperature:
        options["temperature"] = request.temperature
    if request.output_schema is not None:
        chosen = options.get("tool_choice")
        if chosen is None or chosen == {"type": "none"}:
            options["tool_choice"] = {"type": "any" if dialect.forced_answer else "auto"}
    elif request.forced_tool is not None and dialect.forced_answer:
        options["tool_choice"] = {"type": "tool", "name": legal_name(request.forced_tool)}
    head = b"".join(
        (_encode(options)[:-1], _tools(request, marks), _system(request, marks), b',"messages":[')
    )
    history = _history(request, dialect, origin)
    history.advance(request.items, len(request.items))
    return history.between(head, b"]}", _encode(marks.history_mark()) if marks else None)


def _longest(request: Request, options: dict[str, Any], usual: int) -> int:
    """The most tokens of an answer, which include what the model thinks. Unless the request says how many, it
    is the ``usual`` number, or with a thinking budget that and ``MAX_TOKENS``. In a short request that is not
    a run's (a summary, say) and has no room for the budget, the model does not think.
    """
    thinking = options.get("thinking")
    budget: int = thinking.get("budget_tokens", 0) if isinstance(thinking, dict) else 0
    if request.max_tokens is None:
        return MAX_TOKENS + budget if budget else usual
    if budget >= request.max_tokens and request.settings is None:
        options["thinking"] = {"type": "disabled"}
    return request.max_tokens


def encode_some(request: Request, dialect: Dialect, origin: str | None, most: int) -> bool:
    """Encode ``most`` items that are new in the history; whether there are more."""
    return _history(request, dialect, origin).advance(request.items, most)


def answer_tool_of(request: Request) -> str | None:
    """The name of the tool by which a typed answer is given; None where none was asked for."""
    if request.output_schema is None:
        return None
    name = _ANSWER_TOOL
    while any(legal_name(tool.name) == name for tool in request.tools):
        name += "_"
    return name


def _history(request: Request, dialect: Dialect, origin: str | None) -> EncodedHistory:
    return kept_history(request, _KEPT, EncodedHistory, dialect, origin)


def _tools(request: Request, marks: Caching | None) -> bytes:
    """The tools, encoded once as long as they stay the same."""
    if not request.tools and request.output_schema is None:
        return b""
    asked = (request.tools, request.output_schema, marks)
    kept: tuple[Any, bytes] | None = request.scratch.get(_KEPT_TOOLS)
    if kept is None or kept[0] != asked:
        tools = [_tool(tool) for tool in _all_tools(request)]
        if marks is not None:
            tools[-1]["cache_control"] = marks.prefix_mark()
        kept = request.scratch[_KEPT_TOOLS] = (asked, b',"tools":' + _encode(tools))
    return kept[1]


def _all_tools(request: Request) -> Sequence[ToolSpec]:
    name = answer_tool_of(request)
    if name is None:
        return request.tools
    schema = {"type": "object", **(request.output_schema or {})}
    return (*request.tools, ToolSpec(name, _ANSWER_WORDS, schema))


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"name": legal_name(tool.name), "description": tool.description, "input_schema": tool.input_schema}


def _system(request: Request, marks: Caching | None) -> bytes:
    if not (request.system and request.system.strip()):
        return b""
    block: dict[str, Any] = {"type": "text", "text": request.system}
    if marks is not None:
        block["cache_control"] = marks.prefix_mark()
    return b',"system":' + _encode([block])
