"""What servers of OpenAI's Responses support, as learnt from their refusals; pure."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from actors.llm.base import Request
from actors.llm.format_refusals import TOOLS_OR_FORMAT
from actors.llm.legal import Pictures
from actors.llm.picture_refusals import SEES_NONE
from protocol.items import ImagePart, ToolResult


class Dialect(Struct, frozen=True):
    """What a model or server supports; learnt from its refusals.

    ``encrypted``: it returns encrypted reasoning, to be sent back. ``json_schema``: answers can be forced to
    fit a schema; ``format_beside_tools``: also where the model may call tools. ``tool_choice``: calls can be
    forced. ``reasoning``: it accepts reasoning back. ``result_images``: results of tools may contain
    pictures, as OpenAI's own server allows.
    """

    encrypted: bool = True
    temperature: bool = True
    json_schema: bool = True
    format_beside_tools: bool = True
    tool_choice: bool = True
    reasoning: bool = True
    images: bool = True
    result_images: bool = True

    def asks_for_form(self, request: Request) -> bool:
        """Whether the server is asked to hold an answer to its schema."""
        beside = self.format_beside_tools or not request.tools
        return request.output_schema is not None and self.json_schema and beside

    @property
    def pictures(self) -> Pictures:
        """Where pictures of results are sent."""
        if not self.images:
            return "unseen"
        return "within" if self.result_images else "behind"


def adapted(dialect: Dialect, words: str, request: Request) -> Dialect | None:
    """The dialect for a server that refused ``request`` with ``words``; None if they say nothing about it."""
    words = words.lower()
    if request.tools and dialect.asks_for_form(request) and re.search(TOOLS_OR_FORMAT, words):
        return msgspec.structs.replace(dialect, format_beside_tools=False)
    for field, about in _REFUSED:
        if getattr(dialect, field) and re.search(about, words):
            return msgspec.structs.replace(dialect, **{field: False})
    if dialect.pictures == "within" and re.search(_TEXT_ALONE, words) and _has_result_pictures(request):
        return msgspec.structs.replace(dialect, result_images=False)
    return None


def _has_result_pictures(request: Request) -> bool:
    results = (item for item in request.items if isinstance(item, ToolResult))
    return any(isinstance(part, ImagePart) for item in results for part in item.content)


#: Refusals of a result that is a list, by llama-server, LM Studio, and servers that validate with pydantic.
_TEXT_ALONE = (
    r"output of tool call|function_call_output|\.output\b|'?input'?\W*$|valid string|expected (a )?string"
)

#: Words in refusals of each option.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("encrypted", r"encrypted[_ ]content|\binclude\b"),
    ("temperature", r"temperature"),
    ("json_schema", r"json_schema|text\.format|response_format"),
    ("tool_choice", r"tool[_ ]choice"),
    ("reasoning", r"required following item|required 'reasoning' item|item\['content'\]|type 'reasoning'"),
    ("images", SEES_NONE),
)
