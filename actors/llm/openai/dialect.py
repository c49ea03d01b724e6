"""What servers of OpenAI's format support, known by their names or learnt from their refusals; pure.

Sources for the words of refusals: documentation of Mistral and DeepSeek, Google's on thought signatures, and
reports of users of Groq, Cerebras, vLLM and chat templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from actors.llm.base import Request
from actors.llm.format_refusals import TOOLS_OR_FORMAT
from actors.llm.http.presets import vendor_of
from actors.llm.picture_refusals import OF_ONE_PICTURE
from protocol.items import AssistantItem, ImagePart


class Dialect(Struct, frozen=True):
    """What a server supports of a request's options and needs of a history; learnt from its refusals.

    ``replay``: it accepts back what it returned with its answers. ``short_ids``: ids of calls have nine
    letters and digits. ``alternate``: the model speaks between results and a user's words.
    ``format_beside_tools``: a form that is asked of its answers keeps no model from calling tools.
    ``blank_reasoning``: each answer has reasoning, if only an empty one. ``any_signature``: each call has a
    thought signature, if only the placeholder.
    """

    usage_option: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    json_schema: bool = True
    json_object: bool = True
    format_beside_tools: bool = True
    tool_choice: bool = True
    replay: bool = True
    short_ids: bool = False
    alternate: bool = False
    blank_reasoning: bool = False
    any_signature: bool = False
    images: bool = True

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What holds for the server, and what holds for one of its models alone."""
        fields = msgspec.structs.asdict(self)
        options = {name: fields.pop(name) for name in _OF_A_SERVER}
        return options, fields

    @property
    def fills_in(self) -> bool:
        """Whether an answer from another server must be supplemented with something that this one would have
        returned.
        """
        return self.blank_reasoning or self.any_signature


_OF_A_SERVER = ("usage_option", "max_tokens_field", "json_schema", "json_object")
_MISTRAL = re.compile(r"(^|[/.:])(open-|labs-)?((mi|mini|magi|dev|code)stral|(mix|pix|vox)tral)")


@lru_cache(1024)  # called for each request
def dialect_of(base_url: str, model: str) -> Dialect:
    """What is known in advance: OpenAI's own newer models refuse the old name of ``max_tokens``; Mistral
    checks the form of ids and the order of roles; servers that people run themselves (llama-server, Ollama,
    vLLM) hold a model to a form from its first token on, so that it calls nothing.
    """
    host = urlsplit(base_url).hostname or ""
    strict = host.endswith("mistral.ai") or bool(_MISTRAL.search(model.lower()))
    own = host == "api.openai.com"
    return Dialect(
        max_tokens_field="max_completion_tokens" if own else "max_tokens",
        format_beside_tools=vendor_of(base_url) is not None,
        short_ids=strict,
        alternate=strict,
    )


def adapted(dialect: Dialect, words: str, request: Request) -> Dialect | None:
    """The dialect for a server that refused ``request`` with ``words``; None if they say nothing about it."""
    words = words.lower()
    for change, applies in _LESSONS:
        if any(getattr(dialect, name) != value for name, value in change.items()) and applies(words, request):
            return msgspec.structs.replace(dialect, **change)
    sent = answer_format(request, dialect)
    named = any(word in words for word in ("response_format", "json_schema", "json schema", "json_object"))
    if sent is not None and named and any(word in words for word in _UNKNOWN):
        return msgspec.structs.replace(dialect, **{sent["type"]: False})
    return None


def answer_format(request: Request, dialect: Dialect) -> dict[str, Any] | None:
    """How to ask for a JSON answer: by its schema if there is one, as far as the server supports that."""
    schema = request.output_schema
    if schema is None or (request.tools and not dialect.format_beside_tools):
        return None
    by_schema: dict[str, Any] = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema or ANY_OBJECT},
    }
    any_object: dict[str, Any] = {"type": "json_object"}
    formats = [any_object, by_schema] if schema in ({}, ANY_OBJECT) else [by_schema, any_object]
    return next((each for each in formats if getattr(dialect, each["type"])), None)


ANY_OBJECT = {"type": "object"}

#: Words of servers that do not know something.
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
#: Words of servers that miss something.
_DEMANDED = r"missing|must be (passed|sent|provided|included|set|present)|is required|required (field|for)"


#: Words of servers about roles out of order.
_ORDER = r"unexpected role|message_order|must alternate|alternat\w+ user|after role|expected (last )?role"


def _usage_option(words: str, request: Request) -> bool:  # noqa: ARG001
    return "stream_options" in words or "include_usage" in words


def _max_tokens_field(words: str, request: Request) -> bool:
    return request.max_tokens is not None and "max_completion_tokens" in words


def _temperature(words: str, request: Request) -> bool:
    fixed = re.search(r"unsupported|n[o']t support|\bonly (the default|\d)|deprecated", words)
    return request.temperature is not None and "temperature" in words and bool(fixed)


def _short_ids(words: str, request: Request) -> bool:  # noqa: ARG001
    named = re.search(r"tool[ _-]?calls?[ _-]?id|tool_calls?(\[\d+\]|\.\d+)*\.id|call[ _]id", words)
    form = re.search(r"length|too long|at most|must be|must match|pattern|a-z|characters", words)
    return bool(named and form)


def _alternate(words: str, request: Request) -> bool:  # noqa: ARG001
    return bool(re.search(_ORDER, words))


def _blank_reasoning(words: str, request: Request) -> bool:  # noqa: ARG001
    return "reasoning_content" in words and bool(re.search(_DEMANDED, words))


def _any_signature(words: str, request: Request) -> bool:  # noqa: ARG001
    return bool(re.search(r"thought[_ ]?signature", words)) and bool(re.search(_DEMANDED, words))


def _images(words: str, request: Request) -> bool:
    named = re.search(r"\bimages?\b|image_url|image input|vision|multimodal|multi-modal|mmproj", words)
    refused = any(word in words for word in (*_UNKNOWN, *_BLIND)) and not re.search(OF_ONE_PICTURE, words)
    text_alone = re.search(r"content\W{1,5}(value )?must be a string", words)  # Groq, of a list of contents
    return bool((named and refused) or text_alone) and any(
        isinstance(part, ImagePart) for item in request.items for part in item.content
    )


#: Other words for a model that sees no pictures: Ollama's, and OpenRouter's.
_BLIND = ("not a multimodal", "only", "missing data", "no endpoints found")


def _format_beside_tools(words: str, request: Request) -> bool:
    return (
        bool(request.tools) and request.output_schema is not None and bool(re.search(TOOLS_OR_FORMAT, words))
    )


def _tool_choice(words: str, request: Request) -> bool:
    return request.forced_tool is not None and bool(re.search(r"tool[_ ]choice|function calling", words))


def _replay(words: str, request: Request) -> bool:
    """Whether a member of a message that was sent back is refused: by its name, or without one."""
    if not any(word in words for word in _UNKNOWN) or re.search(_DEMANDED, words):
        return False
    given: set[str] = set()
    for item in request.items:
        if isinstance(item, AssistantItem) and item.origin is not None:
            given |= {item.reasoning_as or "", *(item.vendor or ())}
            given.update(name for call in item.calls for name in call.vendor or ())
    given.discard("")
    unnamed = "messages" in words or "property" in words or "properties" in words or "field" in words
    return any(name.lower() in words for name in given) or bool(given and unnamed and "extra" in words)


#: The lessons of refusals, in the order in which they are tried.
_LESSONS: tuple[tuple[dict[str, Any], Callable[[str, Request], bool]], ...] = (
    ({"usage_option": False}, _usage_option),
    ({"max_tokens_field": "max_completion_tokens"}, _max_tokens_field),
    ({"temperature": False}, _temperature),
    ({"format_beside_tools": False}, _format_beside_tools),
    ({"tool_choice": False}, _tool_choice),
    ({"short_ids": True}, _short_ids),
    ({"alternate": True}, _alternate),
    ({"blank_reasoning": True}, _blank_reasoning),
    ({"any_signature": True}, _any_signature),
    ({"replay": False}, _replay),
    ({"images": False}, _images),
)
