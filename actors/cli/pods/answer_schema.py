"""``--schema``: the type of an answer, from a JSON Schema, a file with one, or a list of names."""

from __future__ import annotations

import os
import re
from typing import Any

import click
import msgspec

from actors.cli.pods.schema_types import UnusableSchema, type_of_schema
from protocol.files import read_file
from protocol.text import UNDECODABLE

#: What the types of a list of names are in JSON Schema.
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
#: Bytes that a file with a schema has at most.
_LARGEST = 1 << 24
_FIELD = re.compile(r"(?P<name>[\w$@.-]+)(\s+(?P<type>\w+))?\s*(:\s*(?P<words>.+))?", re.DOTALL)


def answer_type(context: click.Context, option: click.Parameter, text: str | None) -> Any:
    """The type that ``--schema`` means, None where it is not given. Raises BadParameter."""
    if text is None:
        return None
    try:
        return type_of_schema(schema_of(text))
    except UnusableSchema as error:
        raise click.BadParameter(str(error), context, option) from error


def schema_of(text: str) -> dict[str, Any]:
    """The JSON Schema that ``text`` is, or is the path of, or stands for: ``name, age int, bio: in a line``.
    Raises UnusableSchema.
    """
    if text.lstrip().startswith("{"):
        return _decoded(text, "the schema")
    path = os.path.expanduser(text)  # noqa: PTH111 - refuses no name
    if text.endswith(".json") or ("\n" not in text and _is_there(path)):
        try:
            data = read_file(path, _LARGEST + 1, pipes=True)
            if len(data) > _LARGEST:
                raise UnusableSchema(f"{text} is larger than {_LARGEST:,} bytes, too large for a schema")
            return _decoded(data.decode("utf-8-sig"), text)
        except OSError as error:
            raise UnusableSchema(f"{text} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UnusableSchema(f"{text} is not text: {error}") from error
    return _of_names(text)


def _is_there(path: str) -> bool:
    """Whether a file is meant; a folder only where it is not a name that an answer could have."""
    return os.path.exists(path) and ("/" in path or not os.path.isdir(path))  # noqa: PTH110, PTH112 - no errors


def _decoded(text: str, name: str) -> dict[str, Any]:
    try:
        schema = msgspec.json.decode(text)
    except UNDECODABLE as error:
        raise UnusableSchema(f"{name} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UnusableSchema(f"{name} is not a JSON Schema: expected an object")
    return schema


def _of_names(text: str) -> dict[str, Any]:
    """The schema of an object with these members, a line each, or with commas between; all are required."""
    members: dict[str, Any] = {}
    for part in text.splitlines() if "\n" in text.strip() else text.split(","):
        if not part.strip():
            continue
        found = _FIELD.fullmatch(part.strip())
        if found is None or (found["type"] or "str") not in _TYPES:
            raise UnusableSchema(
                f"{part.strip()!r} is not a member: write NAME, NAME TYPE or NAME TYPE: "
                f"DESCRIPTION, where TYPE is one of {', '.join(_TYPES)}"
            )
        words = {"description": found["words"].strip()} if found["words"] else {}
        members[found["name"]] = {"type": _TYPES[found["type"] or "str"], **words}
    if not members:
        raise UnusableSchema("it names no member for the answer")
    return {"type": "object", "properties": members, "required": list(members)}
