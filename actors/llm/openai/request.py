"""Encodes a Request as the body of a request to OpenAI's chat completions; pure.

The bytes of the history are kept from one request to the next. So nothing is encoded twice, and a longer
history begins with exactly the bytes of the shorter one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from actors.llm.base import Request
from actors.llm.http.requests import encoded_tools, kept_history
from actors.llm.legal import NOTICE_MARK, legal_name
from actors.llm.openai.dialect import ANY_OBJECT, Dialect, answer_format
from actors.llm.openai.history import EncodedHistory
from actors.llm.output import instruction_for
from protocol.tools import ToolSpec

_KEPT = "openai.history"
_KEPT_TOOLS = "openai.tools"

_encode = msgspec.json.Encoder().encode


def body_of(
    request: Request,
    model: str,
    dialect: Dialect,
    *,
    streaming: bool = True,
    origin: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of a request, with the messages last so that bodies of one history share their beginning.

    ``origin`` is the kind of server that it goes to (see AssistantItem), ``fields`` are those of settings.
    """
    options: dict[str, Any] = {"model": model} if model else {}
    options["stream"] = streaming
    if streaming and dialect.usage_option:
        options["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        options[dialect.max_tokens_field] = request.max_tokens
    if request.temperature is not None and dialect.temperature:
        options["temperature"] = request.temperature
    form = answer_format(request, dialect)
    if form is not None:
        options["response_format"] = form
    if fields:
        options.update(fields)
    if request.forced_tool is not None and dialect.tool_choice:
        options["tool_choice"] = _forced(request, request.forced_tool)
    history = _history(request, dialect, origin)
    tools = encoded_tools(request, _KEPT_TOOLS, _tool)
    messages = history.messages(request.items, request.system, _schema_instruction(request, form))
    return b"".join((_encode(options)[:-1], tools, b',"messages":[', *messages, b"]}"))


def encode_some(request: Request, dialect: Dialect, origin: str | None, most: int) -> bool:
    """Encode up to ``most`` new items of the history. Returns whether there are more."""
    return _history(request, dialect, origin).advance(request.items, request.system, most)


def _history(request: Request, dialect: Dialect, origin: str | None) -> EncodedHistory:
    return kept_history(request, _KEPT, EncodedHistory, dialect, origin)


def _forced(request: Request, tool: str) -> Any:
    """How to force a call: more servers know the plain word than the name of one tool."""
    if len(request.tools) == 1:
        return "required"
    return {"type": "function", "function": {"name": legal_name(tool)}}


def _schema_instruction(request: Request, form: dict[str, Any] | None) -> bytes | None:
    """The instruction after the history if an answer must fit a schema for which the request has no field.
    Servers with a plain JSON mode also insist on that word.
    """
    if request.output_schema is None or (form or {}).get("type") == "json_schema":
        return None
    words = instruction_for(request.output_schema or ANY_OBJECT, tools=bool(request.tools))
    return _encode(NOTICE_MARK + words)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": legal_name(tool.name),
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": function}
