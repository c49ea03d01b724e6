"""JSON Schemas of MCP servers as providers take them, pure: what is legal passes, the rest is mended or
refused with words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.tools.mcp.depth import is_deeper
from protocol.foreign import shown
from protocol.text import encodable_json

#: What no provider takes beside ``type: object`` at the top.
_ALTERNATIVES = ("anyOf", "oneOf")
_DROPPED = (*_ALTERNATIVES, "allOf", "not", "enum", "const", "if", "then", "else", "nullable", "$ref")
#: Names of arguments that every provider takes.
_ARGUMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Keys whose values are schemas by names, and lists of schemas.
_BY_NAME = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_SHOWN = 2000
#: Levels of a schema; far above what any provider takes, and far below what Python can walk.
_DEEPEST = 128


class SchemaError(ValueError):
    """Why a tool cannot be described to a model."""


def usable_schema(given: Any) -> tuple[dict[str, Any], str]:
    """The schema of a tool's arguments as all providers take it, and what has to be said in words instead.

    Raises SchemaError.
    """
    if is_deeper(given, _DEEPEST):
        raise SchemaError(f"its schema is nested more than {_DEEPEST} deep")
    try:
        schema = msgspec.json.decode(msgspec.json.encode(encodable_json({} if given is None else given)))
        if not isinstance(schema, dict):
            raise SchemaError("its schema is not an object")
        schema = _mended(_inlined(schema))
        _check_references(schema)
        return _of_object(schema)
    except (RecursionError, msgspec.MsgspecError, TypeError) as error:
        raise SchemaError(f"its schema cannot be sent as JSON: {error}") from error


def _of_object(schema: dict[str, Any]) -> tuple[dict[str, Any], str]:
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise SchemaError(f"its arguments must be an object, not {shown(kind)}")
    properties = schema.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    required = [each for each in _list(schema.get("required")) if isinstance(each, str)]
    for branch in _branches(schema, "allOf"):
        properties = {**_properties(branch), **properties}
        required += [each for each in _list(branch.get("required")) if each not in required]
    words = ""
    for key in _ALTERNATIVES:
        branches = list(_branches(schema, key))
        for branch in branches:
            properties = {**_properties(branch), **properties}
        if branches:
            said = msgspec.json.encode(schema[key]).decode()
            words += f"\nIts arguments must satisfy this {key} of JSON Schema: {said[:_SHOWN]}"
    for name in properties:
        if not _ARGUMENT.fullmatch(name):
            raise SchemaError(f"no provider accepts the argument name {shown(name)}")
    rest = {key: value for key, value in schema.items() if key not in _DROPPED}
    usable = {**rest, "type": "object", "properties": properties}
    usable.pop("required", None)
    if required:
        usable["required"] = required
    return usable, words


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that only refers to one of its definitions, as that."""
    for _ in range(8):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        found = _at(schema, reference)
        if not isinstance(found, dict):
            raise SchemaError(f"its schema refers to {shown(reference)}, which is not in it")
        schema = {**{key: value for key, value in schema.items() if key != "$ref"}, **found}
    raise SchemaError("its schema refers to itself endlessly")


def _branches(schema: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for branch in _list(schema.get(key)):
        reference = branch.get("$ref") if isinstance(branch, dict) else None
        found = _at(schema, reference) if isinstance(reference, str) else branch
        if isinstance(found, dict):
            yield found


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mended(schema: Any) -> Any:
    """A schema, and all within it: ``nullable`` of OpenAPI as a type, ``true`` and ``false`` as objects."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        return schema
    mended: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            mended[key] = {name: _mended(each) for name, each in value.items()}
        elif isinstance(value, list):
            mended[key] = [_mended(each) if isinstance(each, dict) else each for each in value]
        else:
            mended[key] = _mended(value) if isinstance(value, dict) else value
    if mended.pop("nullable", False) is True:
        if isinstance(mended.get("type"), str):
            mended["type"] = [mended["type"], "null"]
        if isinstance(mended.get("enum"), list) and None not in mended["enum"]:
            mended["enum"] = [*mended["enum"], None]
    return mended


def _check_references(schema: dict[str, Any]) -> None:
    own = {each for key in ("$id", "$anchor", "$dynamicAnchor") for each in _values(schema, key)}
    for reference in _values(schema, "$ref"):
        if reference in own or reference.removeprefix("#") in own:
            continue
        if _at(schema, reference) is None:
            raise SchemaError(f"its schema refers to {shown(reference)}, which is not in it")


def _values(schema: Any, wanted: str) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == wanted and isinstance(value, str):
                yield value
            else:
                yield from _values(value, wanted)
    elif isinstance(schema, list):
        for each in schema:
            yield from _values(each, wanted)


def _at(schema: Any, reference: str) -> Any:
    """What a reference within the schema leads to; None where nothing is there."""
    if not reference.startswith("#"):
        return None
    for step in filter(None, reference[1:].split("/")):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, dict) and name in schema:
            schema = schema[name]
        elif isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return None
    return schema
