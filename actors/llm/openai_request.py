"""Requests in the form of OpenAI's chat completions, pure: a Request in, the bytes of its body out.

The bytes of the history are kept from one request to the next, so what was encoded once is never encoded
again and a longer history begins with exactly the bytes of the shorter one. So that it also fits chat
templates that want the system's words first and roles in turn, words of the runtime become part of the
system message where they stand first, and of a user message (marked as not the user's) where they stand
later; what becomes user messages in a row is sent as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from actors.llm.base import Request
from actors.llm.output import instruction_for
from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    Part,
    SystemItem,
    TextPart,
    ToolCall,
    ToolResult,
    UserItem,
)
from protocol.tools import ToolSpec

#: What stands before words of the runtime that a server gets as a user message.
NOTICE_MARK = "[System notice]\n"

_KEPT = "openai.history"
_KEPT_TOOLS = "openai.tools"

_encode = msgspec.json.Encoder().encode


class Dialect(Struct, frozen=True):
    """What a server understands of a request's options; learnt from its refusals."""

    usage_option: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    json_schema: bool = True
    json_object: bool = True
    tool_choice: bool = True


def body_of(request: Request, model: str, dialect: Dialect, *, streaming: bool = True) -> bytes:
    """The body of a request, with the messages last so that bodies of one history share their beginning."""
    options: dict[str, Any] = {"model": model} if model else {}
    options["stream"] = streaming
    if streaming and dialect.usage_option:
        options["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        options[dialect.max_tokens_field] = request.max_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    answer_format = _answer_format(request, dialect)
    if answer_format is not None:
        options["response_format"] = answer_format
    if request.forced_tool is not None and dialect.tool_choice:
        options["tool_choice"] = _forced(request)
    messages = _history(request).messages(
        request.items, request.system, _told_in_words(request, answer_format)
    )
    return b"".join((_encode(options)[:-1], _tools(request), b',"messages":[', *messages, b"]}"))


def encode_some(request: Request, most: int = 2000) -> bool:
    """Encode ``most`` items that are new in the history; whether there are more.

    For a history that is encoded for the first time at its full length, without holding the loop.
    """
    return _history(request).advance(request.items, request.system, most)


def _history(request: Request) -> EncodedHistory:
    known: EncodedHistory | None = request.scratch.get(_KEPT)
    if known is None:
        known = request.scratch[_KEPT] = EncodedHistory()
    return known


def adapted(dialect: Dialect, words: str, request: Request) -> Dialect | None:
    """The dialect for a server that refused ``request`` with ``words``; None where they say nothing of it."""
    words = words.lower()
    if dialect.usage_option and ("stream_options" in words or "include_usage" in words):
        return msgspec.structs.replace(dialect, usage_option=False)
    if (
        request.max_tokens is not None
        and dialect.max_tokens_field == "max_tokens"
        and "max_completion_tokens" in words
    ):
        return msgspec.structs.replace(dialect, max_tokens_field="max_completion_tokens")
    if request.forced_tool is not None and dialect.tool_choice and _names_tool_choice(words):
        return msgspec.structs.replace(dialect, tool_choice=False)
    sent = _answer_format(request, dialect)
    named = any(word in words for word in ("response_format", "json_schema", "json schema", "json_object"))
    if sent is not None and named and any(word in words for word in _UNKNOWN):
        return msgspec.structs.replace(dialect, **{sent["type"]: False})
    return None


def _forced(request: Request) -> Any:
    """How a model is held to a call: more servers know the plain word than the name of one tool."""
    if len(request.tools) == 1:
        return "required"
    return {"type": "function", "function": {"name": request.forced_tool}}


def _names_tool_choice(words: str) -> bool:
    return any(name in words for name in ("tool_choice", "tool choice", "function calling"))


#: How servers say that they do not know something.
_UNKNOWN = (
    "not support",
    "n't support",
    "unsupported",
    "unavailable",
    "not permitted",
    "not allowed",
    "not implemented",
    "must be",
    "extra",
    "unknown",
    "unrecognized",
    "unexpected",
    "invalid value",
)


def _answer_format(request: Request, dialect: Dialect) -> dict[str, Any] | None:
    """How to ask for an answer that is JSON: by its schema where there is one, as far as the server can."""
    schema = request.output_schema
    if schema is None:
        return None
    by_schema: dict[str, Any] = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema or _ANY_OBJECT},
    }
    any_object: dict[str, Any] = {"type": "json_object"}
    formats = [any_object, by_schema] if schema in ({}, _ANY_OBJECT) else [by_schema, any_object]
    return next((each for each in formats if getattr(dialect, each["type"])), None)


_ANY_OBJECT = {"type": "object"}


def _told_in_words(request: Request, answer_format: dict[str, Any] | None) -> bytes | None:
    """What stands behind the history where an answer is to fit a schema that the server is not told
    otherwise. Servers that know JSON alone also insist on hearing of it there.
    """
    if request.output_schema is None or (answer_format or {}).get("type") == "json_schema":
        return None
    return _text(NOTICE_MARK + instruction_for(request.output_schema or _ANY_OBJECT))


def _tools(request: Request) -> bytes:
    """The tools, encoded once as long as they stay the same."""
    if not request.tools:
        return b""
    kept: tuple[tuple[ToolSpec, ...], bytes] | None = request.scratch.get(_KEPT_TOOLS)
    if kept is None or (kept[0] is not request.tools and kept[0] != request.tools):
        tools = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.input_schema,
                },
            }
            for tool in request.tools
        ]
        kept = request.scratch[_KEPT_TOOLS] = (request.tools, b',"tools":' + _encode(tools))
    return kept[1]


class EncodedHistory:
    """The messages of a history as bytes, which grow with it.

    Only the last message may still grow (user messages in a row are one), so it is kept as the contents it
    is made of; all before it are final. An item that is replaced (by a shorter copy, say) has what comes
    after it encoded anew, and nothing before it.
    """

    __slots__ = ("_done", "_final", "_open", "_role", "_starts", "_system")

    def __init__(self) -> None:
        self._forget(None)

    def _forget(self, system: str | None) -> None:
        self._system = system
        self._done: list[Item] = []  # what is encoded
        self._starts: list[
            int
        ] = []  # of each item: where its message begins, -1 where it has none of its own
        self._final = bytearray()
        self._role: Literal["system", "user", ""] = "system"
        self._open: list[bytes] = [] if not system else [_text(system)]

    def messages(
        self, items: Sequence[Item], system: str | None, closing: bytes | None = None
    ) -> tuple[bytearray, bytes]:
        """The bytes of all messages, in two pieces that belong one behind the other; last come the words
        of ``closing`` (a JSON string), which are part of no history.
        """
        self.advance(items, system, len(items))
        if closing is None:
            return self._final, self._last()
        if self._role == "user":
            return self._final, self._message("user", [*self._open, closing])
        last = self._last()
        comma = b"," if self._final or last else b""
        return self._final, b'%b%b{"role":"user","content":%b}' % (last, comma, closing)

    def advance(self, items: Sequence[Item], system: str | None, most: int) -> bool:
        """Encode ``most`` items that are new; whether there are more."""
        if system != self._system:
            self._forget(system)
        self._keep(items)
        known = len(self._done)
        new = items[known : known + most]
        for item in new:
            self._add(item)
        self._done.extend(new)
        return len(self._done) < len(items)

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep of what is encoded the part that ``items`` begin with."""
        known = items[: len(self._done)]
        # list equality looks at identity first: 5 ns an item where nothing was replaced
        if (known if isinstance(known, list) else list(known)) == self._done:
            return
        pairs = enumerate(zip(known, self._done, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), len(known))
        # back to a place where a message ends that cannot grow any more
        while same and (self._starts[same] < 0 or isinstance(self._done[same - 1], UserItem | SystemItem)):
            same -= 1
        if not same:
            self._forget(self._system)
            return
        del self._final[self._starts[same] :], self._starts[same:], self._done[same:]
        self._role, self._open = "", []

    def _add(self, item: Item) -> None:
        if isinstance(item, SystemItem):
            if self._role == "system":
                self._open.append(_content(item.content))
                self._starts.append(-1)
            else:
                self._grow(_content((TextPart(NOTICE_MARK), *item.content)))
        elif isinstance(item, UserItem):
            self._grow(_content(item.content))
        else:
            self._close()
            self._starts.append(len(self._final))
            message = _assistant(item) if isinstance(item, AssistantItem) else _result(item)
            self._final += b"," + message if self._final else message

    def _grow(self, content: bytes) -> None:
        """One more content for the user message that stands last."""
        if self._role == "user":
            self._starts.append(-1)
        else:
            self._close()
            self._role = "user"
            self._starts.append(len(self._final))
        self._open.append(content)

    def _close(self) -> None:
        """The last message is final: another one follows."""
        last = self._last()
        self._final += last
        self._role = ""
        self._open = []

    def _last(self) -> bytes:
        return self._message(self._role, self._open) if self._open else b""

    def _message(self, role: str, contents: list[bytes]) -> bytes:
        comma = b"," if self._final else b""
        return b'%b{"role":"%b","content":%b}' % (comma, role.encode(), _joined(contents))


def _joined(contents: list[bytes]) -> bytes:
    """Contents as one: texts by blank lines, or lists of parts where there is a picture among them."""
    if len(contents) == 1:
        return contents[0]
    if all(each[:1] == b'"' for each in contents):
        return b'"' + rb"\n\n".join(each[1:-1] for each in contents) + b'"'
    parts = (each[1:-1] if each[:1] == b"[" else b'{"type":"text","text":%b}' % each for each in contents)
    return b"[" + b",".join(parts) + b"]"


def _content(parts: tuple[Part, ...]) -> bytes:
    """The content of a user message: a string where it is text alone, else a list of parts."""
    if not any(isinstance(part, ImagePart) for part in parts):
        return _text("".join(part.text for part in parts if isinstance(part, TextPart)))
    pieces = []
    for part in parts:
        if isinstance(part, ImagePart):
            url = part.url or f"data:{part.media_type};base64,{part.data or ''}"
            pieces.append(b'{"type":"image_url","image_url":{"url":%b}}' % _text(url))
        elif isinstance(part, TextPart) and part.text:
            pieces.append(b'{"type":"text","text":%b}' % _text(part.text))
    return b"[" + b",".join(pieces) + b"]"


def _assistant(item: AssistantItem) -> bytes:
    """One message with all the text and all the calls; reasoning is not sent back."""
    text = item.text
    if not item.calls:
        return b'{"role":"assistant","content":%b}' % _text(text)
    calls = b",".join(_call(call) for call in item.calls)
    return b'{"role":"assistant","content":%b,"tool_calls":[%b]}' % (_text(text) if text else b"null", calls)


def _call(call: ToolCall) -> bytes:
    """A call; one whose arguments were no JSON goes back with none, since servers choke on them."""
    arguments = _encode(_encode(call.arguments).decode()) if call.invalid is None else b'"{}"'
    return b'{"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}' % (
        _text(call.id),
        _text(call.name),
        arguments,
    )


def _result(item: ToolResult) -> bytes:
    text = f"Error: {item.text}" if item.is_error else item.text
    return b'{"role":"tool","tool_call_id":%b,"content":%b}' % (_text(item.call_id), _text(text))


def _text(text: str) -> bytes:
    """A text as a JSON string; half characters, which UTF-8 does not know, become question marks."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return _encode(text.encode("utf-8", "replace").decode())
