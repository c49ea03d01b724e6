"""What servers of OpenAI's Responses understand, pure: learnt from their refusals."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct


class Dialect(Struct, frozen=True):
    """What a model or server understands of a request; learnt from its refusals.

    ``encrypted``: it gives reasoning that only it can read, to be sent back. ``json_schema``: an answer can
    be held to a schema. ``tool_choice``: a model can be held to a call. ``reasoning``: it takes reasoning
    back.
    """

    encrypted: bool = True
    temperature: bool = True
    json_schema: bool = True
    tool_choice: bool = True
    reasoning: bool = True
    images: bool = True


def adapted(dialect: Dialect, words: str) -> Dialect | None:
    """The dialect for a server that refused a request with ``words``; None where they say nothing of it."""
    words = words.lower()
    for field, about in _REFUSED:
        if getattr(dialect, field) and re.search(about, words):
            return msgspec.structs.replace(dialect, **{field: False})
    return None


_NO = r"(not support|n't support|unsupported|unknown|unrecognized|not a multimodal)"
_PICTURE = r"(image|vision|picture)"

#: What refusals say of each.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("encrypted", r"encrypted[_ ]content|\binclude\b"),
    ("temperature", r"temperature"),
    ("json_schema", r"json_schema|text\.format|response_format"),
    ("tool_choice", r"tool[_ ]choice"),
    ("reasoning", r"required following item|required 'reasoning' item|item\['content'\]|type 'reasoning'"),
    ("images", rf"{_NO}.{{0,60}}{_PICTURE}|{_PICTURE}\w*.{{0,60}}({_NO}|mmproj)"),
)
