"""A JSON Schema as a type that answers are read by; pure."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

#: What says nothing of which values fit, or is said to the model in words.
_WORDS = {"title", "examples", "format", "default"}
_PASSED_OVER = {"$schema", "$id", "$comment", "$defs", "definitions", "description", *_WORDS}
_BOUNDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
_SHAPES = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "oneOf",
}
_KNOWN = _PASSED_OVER | _BOUNDS.keys() | _SHAPES | {"$ref"}


class UnusableSchema(ValueError):  # noqa: N818 - what it says of a schema is no error of ours
    """Why answers cannot be read by a schema; the words name the place."""


def type_of_schema(schema: dict[str, Any]) -> Any:
    """A type whose instances are what fits ``schema``. Raises UnusableSchema."""
    try:
        kind = _Reader(schema).type_of(schema, "the schema", ())
        msgspec.json.Decoder(kind)  # refuses what msgspec cannot distinguish
    except (TypeError, RecursionError, re.error) as error:
        raise UnusableSchema(str(error)) from error
    return kind


class _Reader:
    def __init__(self, root: dict[str, Any]) -> None:
        self._definitions = {**_table(root, "definitions"), **_table(root, "$defs")}

    def type_of(self, schema: Any, at: str, within: tuple[str, ...]) -> Any:
        """The type of a schema at a place; ``within`` are the definitions that it is part of."""
        if schema is True or schema == {}:
            return Any
        if not isinstance(schema, dict):
            raise UnusableSchema(f"{at}: expected a schema, an object")
        if unknown := sorted(schema.keys() - _KNOWN):
            raise UnusableSchema(f"{at}: {', '.join(unknown)} cannot be checked here")
        if "$ref" in schema:
            return self._referred(schema["$ref"], at, within)
        kind = self._shape(schema, at, within)
        meta = {ours: schema[theirs] for theirs, ours in _BOUNDS.items() if theirs in schema}
        words = {key: schema[key] for key in sorted(_WORDS & schema.keys())}
        if isinstance(schema.get("description"), str):
            meta["description"] = schema["description"]
        if words:
            meta["extra_json_schema"] = words
        return Annotated[kind, Meta(**meta)] if meta else kind

    def _referred(self, reference: Any, at: str, within: tuple[str, ...]) -> Any:
        name = re.sub(r"^#/(\$defs|definitions)/", "", str(reference))
        if name not in self._definitions:
            raise UnusableSchema(f"{at}: there is no {reference!r}")
        if name in within:
            raise UnusableSchema(f"{at}: {name} is part of itself, which cannot be checked here")
        return self.type_of(self._definitions[name], name, (*within, name))

    def _shape(self, schema: dict[str, Any], at: str, within: tuple[str, ...]) -> Any:
        if "const" in schema or "enum" in schema:
            return Literal[tuple(_list(schema.get("enum", [schema.get("const")]), f"{at}.enum"))]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                branches = enumerate(_list(schema[key], f"{at}.{key}"))
                kinds = [self.type_of(each, f"{at}.{key}[{n}]", within) for n, each in branches]
                if sum(map(_is_object, kinds)) > 1:
                    raise UnusableSchema(
                        f"{at}.{key}: which of several objects is meant cannot be checked here"
                    )
                return _union(kinds)
        given = schema.get("type", "object" if "properties" in schema else None)
        if given is None:
            return Any
        names = given if isinstance(given, list) else [given]
        return _union(self._of_name(name, schema, at, within) for name in names)

    def _of_name(self, name: Any, schema: dict[str, Any], at: str, within: tuple[str, ...]) -> Any:
        if name in _PLAIN:
            return _PLAIN[name]
        if name == "array":
            items = schema.get("items", True)
            return list[self.type_of(items, f"{at}.items", within)]  # type: ignore[misc]
        if name != "object":
            raise UnusableSchema(f"{at}.type: {name!r} is no type of JSON")
        if "properties" not in schema:
            values = schema.get("additionalProperties", True)
            return dict[str, self.type_of(values, f"{at}.additionalProperties", within)]  # type: ignore[misc]
        return self._object(schema, at, within)

    def _object(self, schema: dict[str, Any], at: str, within: tuple[str, ...]) -> Any:
        required = _list(schema.get("required", []), f"{at}.required")
        fields: list[Any] = []
        names: dict[str, str] = {}
        for number, (name, each) in enumerate(_table(schema, "properties").items()):
            field = name if name.isidentifier() and not keyword.iskeyword(name) else f"field_{number}"
            names[field] = name
            kind = self.type_of(each, f"{at}.{name}", within)
            fields.append((field, kind) if name in required else (field, kind | UnsetType, UNSET))
        return msgspec.defstruct(
            "Answer",
            fields,
            rename=names,
            kw_only=True,
            forbid_unknown_fields=schema.get("additionalProperties") is False,
        )


def _is_object(kind: Any) -> bool:
    plain = getattr(kind, "__origin__", kind)
    return isinstance(plain, type) and issubclass(plain, msgspec.Struct)


def _union(kinds: Iterable[Any]) -> Any:
    return reduce(or_, (type(None) if kind is None else kind for kind in kinds))


def _table(schema: dict[str, Any], key: str) -> dict[str, Any]:
    found = schema.get(key, {})
    if not isinstance(found, dict):
        raise UnusableSchema(f"{key}: expected an object")
    return found


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list) or (not value and not at.endswith("required")):
        raise UnusableSchema(f"{at}: expected a list")
    return value
