"""Encodes a Request as the body of a request to OpenAI's Responses; pure.

The server keeps nothing (``store`` is off): the history is the session's, and is sent with each request. The
inputs come last, so that bodies of one history share their beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from actors.llm.base import Request
from actors.llm.http.requests import encoded_tools, kept_history
from actors.llm.legal import NOTICE_MARK, legal_name
from actors.llm.output import instruction_for
from actors.llm.responses.dialect import Dialect
from actors.llm.responses.history import EncodedInput
from actors.llm.responses.settings import choice_of
from protocol.tools import ToolSpec

_KEPT = "responses.input"
_KEPT_TOOLS = "responses.tools"
_ENCRYPTED = "reasoning.encrypted_content"

_encode = msgspec.json.Encoder().encode


def body_of(
    request: Request,
    model: str,
    dialect: Dialect = Dialect(),  # noqa: B008 - frozen
    *,
    streaming: bool = True,
    origin: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of a request. ``origin`` is the kind of server that it goes to (see AssistantItem), ``fields``
    are those of settings.
    """
    options: dict[str, Any] = {"model": model} if model else {}
    options |= {"stream": streaming, "store": False}
    if dialect.encrypted:
        options["include"] = [_ENCRYPTED]
    if request.system:
        options["instructions"] = request.system
    if request.max_tokens is not None:
        options["max_output_tokens"] = request.max_tokens
    if request.temperature is not None and dialect.temperature:
        options["temperature"] = request.temperature
    schema = request.output_schema
    if schema is not None and dialect.asks_for_form(request):
        options["text"] = {"format": _format(schema)}
    options.update(fields or {})
    if request.forced_tool is not None and dialect.tool_choice:
        single = len(request.tools) == 1
        options["tool_choice"] = "required" if single else choice_of(request.forced_tool)
    closing = None
    if schema is not None and not dialect.asks_for_form(request):
        closing = NOTICE_MARK + instruction_for(schema or {"type": "object"}, tools=bool(request.tools))
    inputs = _history(request, dialect, origin).inputs(request.items, closing)
    tools = encoded_tools(request, _KEPT_TOOLS, _tool)
    return b"".join((_encode(options)[:-1], tools, b',"input":[', *inputs, b"]}"))


def encode_some(request: Request, dialect: Dialect, origin: str | None, most: int) -> bool:
    """Encode up to ``most`` new items of the history. Returns whether there are more."""
    return _history(request, dialect, origin).advance(request.items, most)


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    if schema in ({}, {"type": "object"}):
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": False}


def _history(request: Request, dialect: Dialect, origin: str | None) -> EncodedInput:
    return kept_history(request, _KEPT, EncodedInput, dialect, origin)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": legal_name(tool.name),
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": False,
    }
