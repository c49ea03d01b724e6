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
_WORDS = {"title", "examples", "format", "default", "deprecated", "contentEncoding", "contentMediaType"}
_PASSED_OVER = {
    *("$schema", "$id", "$comment", "$defs", "definitions", "description"),
    *("readOnly", "writeOnly", "discriminator"),
    *_WORDS,
}
#: What bounds a value of a type, by how msgspec calls it; of others it says nothing.
_OF_NUMBERS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_BOUNDS_OF: dict[str, dict[str, str]] = {
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "array": {"minItems": "min_length", "maxItems": "max_length"},
}
_BOUNDS = {each for bounds in _BOUNDS_OF.values() for each in bounds}
_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
_TYPES = {*_PLAIN, "array", "object"}
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
    "allOf",
}
_KNOWN = _PASSED_OVER | _BOUNDS | _SHAPES | {"$ref"}
#: What people write who have it from elsewhere, and how it is meant here.
_INSTEAD = {"nullable": ', which is OpenAPI\'s: write "type": ["string", "null"]'}


class UnusableSchema(ValueError):  # noqa: N818 - what it says of a schema is not an error of ours
    """Why answers cannot be read by a schema; the words name the place."""


def type_of_schema(schema: dict[str, Any]) -> Any:
    """A type whose instances are what fits ``schema``. Raises UnusableSchema."""
    try:
        return _Reader(schema).type_of(schema, "the schema", ())
    except RecursionError as error:
        raise UnusableSchema(str(error)) from error


class _Reader:
    def __init__(self, root: dict[str, Any]) -> None:
        self._definitions = {**_table(root, "definitions"), **_table(root, "$defs")}

    def type_of(self, schema: Any, at: str, within: tuple[str, ...]) -> Any:
        """The type of a schema at a place; ``within`` are the definitions that it is part of."""
        if schema is True or schema == {}:
            return Any
        if not isinstance(schema, dict):
            raise UnusableSchema(f"{at}: expected a schema, an object")
        if unknown := sorted(each for each in schema.keys() - _KNOWN if not each.startswith("x-")):
            instead = _INSTEAD.get(unknown[0], "")
            raise UnusableSchema(f"{at}: {', '.join(unknown)} cannot be checked by polypod{instead}")
        try:
            kind = self._with_words(self._shape(schema, at, within), schema)
            msgspec.json.Decoder(kind)  # refuses what msgspec cannot distinguish
        except (TypeError, ValueError, re.error) as error:
            if isinstance(error, UnusableSchema):
                raise
            raise UnusableSchema(f"{at}: {error}") from error
        return kind

    @staticmethod
    def _with_words(kind: Any, schema: dict[str, Any]) -> Any:
        """The type, with what the model is to know of it."""
        meta: dict[str, Any] = {}
        words = {key: schema[key] for key in sorted(_WORDS & schema.keys())}
        if isinstance(schema.get("description"), str):
            meta["description"] = schema["description"]
        if words:
            meta["extra_json_schema"] = words
        return Annotated[kind, Meta(**meta)] if meta else kind

    def _referred(self, reference: Any, at: str) -> tuple[str, Any]:
        """A definition, by its name, and its schema."""
        name = re.sub(r"^#/(\$defs|definitions)/", "", str(reference))
        if name not in self._definitions:
            raise UnusableSchema(f"{at}: there is no {reference!r} among the $defs of the schema")
        return name, self._definitions[name]

    def _shape(self, schema: dict[str, Any], at: str, within: tuple[str, ...]) -> Any:
        _check_beside(schema, at)
        if "$ref" in schema:
            name, referred = self._referred(schema["$ref"], at)
            if name in within:
                raise UnusableSchema(f"{at}: {name} contains itself, which polypod cannot check")
            return self.type_of(referred, name, (*within, name))
        if "const" in schema or "enum" in schema:
            kind = _literal(_list(schema.get("enum", [schema.get("const")]), f"{at}.enum"), f"{at}.enum")
            self._check_type_covers(schema, at)
            return kind
        if "allOf" in schema:
            parts = _list(schema["allOf"], f"{at}.allOf")
            if len(parts) > 1:
                raise UnusableSchema(f"{at}.allOf: polypod can check only one schema here, not several")
            return self.type_of(parts[0], f"{at}.allOf[0]", within)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                kind = self._one_of(_list(schema[key], f"{at}.{key}"), f"{at}.{key}", within)
                self._check_type_covers(schema, at)
                return kind
        names = _types_of(schema, at)
        return _union(self._of_name(name, schema, at, within) for name in names) if names else Any

    def _check_type_covers(self, schema: dict[str, Any], at: str) -> None:
        """Raise UnusableSchema where the type leaves out what stands beside it, which alone is read."""
        types = set(_types_of(schema, at)) or _TYPES
        plain = {key: each for key, each in schema.items() if key != "type"}
        if refused := sorted(self._types(plain, at) - types - ({"integer"} if "number" in types else set())):
            raise UnusableSchema(
                f"{at}.type: excludes types that the rest of the schema lists ({', '.join(refused)})"
            )

    def _types(self, schema: Any, at: str) -> set[str]:
        """The types that what fits a schema, which was read, can have."""
        if not isinstance(schema, dict):
            return _TYPES
        if "$ref" in schema:
            return self._types(self._referred(schema["$ref"], at)[1], at)
        if "const" in schema or "enum" in schema:
            return {_type_of_value(each) for each in schema.get("enum", [schema.get("const")])}
        for key in ("allOf", "anyOf", "oneOf"):
            if key in schema:
                return set[str]().union(*(self._types(each, at) for each in schema[key]))
        return set(_types_of(schema, at)) or _TYPES

    def _one_of(self, branches: list[Any], at: str, within: tuple[str, ...]) -> Any:
        """One of several; objects are distinguished by a required member that is a constant in each."""
        kinds = [self.type_of(each, f"{at}[{n}]", within) for n, each in enumerate(branches)]
        objects = [n for n, kind in enumerate(kinds) if _is_object(kind)]
        if len(objects) > 1:
            tags = [_constants(self._resolved(branches[n], at)) for n in objects]
            found = [
                name
                for name in tags[0]
                if len({each[name] for each in tags if name in each}) == len(objects)
                and len({type(each[name]) for each in tags if name in each}) == 1
            ]
            if not found:
                raise UnusableSchema(
                    f"{at}: polypod cannot distinguish several objects unless each has a "
                    'required member with the same name and a different "const"'
                )
            for n, tag in zip(objects, tags, strict=True):
                plain = self._resolved(branches[n], at)
                kinds[n] = self._with_words(
                    self._object(plain, f"{at}[{n}]", within, (found[0], tag[found[0]])), plain
                )
        return _union(kinds)

    def _resolved(self, schema: dict[str, Any], at: str) -> dict[str, Any]:
        """The schema that a reference leads to."""
        while "$ref" in schema:
            schema = self._referred(schema["$ref"], at)[1]
        return schema

    def _of_name(self, name: str, schema: dict[str, Any], at: str, within: tuple[str, ...]) -> Any:
        meta = {ours: schema[theirs] for theirs, ours in _BOUNDS_OF.get(name, {}).items() if theirs in schema}
        kind: Any
        if name in _PLAIN:
            kind = _PLAIN[name]
            return Annotated[kind, Meta(**meta)] if meta else kind
        if name == "array":
            items = schema.get("items", True)
            kind = list[self.type_of(items, f"{at}.items", within)]  # type: ignore[misc]
            return Annotated[kind, Meta(**meta)] if meta else kind
        has_members = "properties" in schema or _list(schema.get("required", []), f"{at}.required")
        if not has_members and schema.get("additionalProperties") is not False:
            values = schema.get("additionalProperties", True)
            return dict[str, self.type_of(values, f"{at}.additionalProperties", within)]  # type: ignore[misc]
        return self._object(schema, at, within)

    def _object(
        self, schema: dict[str, Any], at: str, within: tuple[str, ...], tag: tuple[str, Any] | None = None
    ) -> Any:
        """An object; ``tag`` is the member whose constant distinguishes it from others."""
        if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
            raise UnusableSchema(
                f"{at}.additionalProperties: polypod cannot check members that are not in properties"
            )
        required = _list(schema.get("required", []), f"{at}.required")
        members = {**dict.fromkeys(map(str, required), True), **_table(schema, "properties")}
        if tag is not None:
            del members[tag[0]]
        fields: list[Any] = []
        names: dict[str, str] = {}
        for number, (name, each) in enumerate(members.items()):
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
            tag_field=None if tag is None else tag[0],
            tag=None if tag is None else tag[1],
        )


def _check_beside(schema: dict[str, Any], at: str) -> None:
    """Raise UnusableSchema where something would go unchecked beside what says all of a value."""
    asked = {each for each in schema if each in _SHAPES | _BOUNDS | {"$ref"}}
    whole = next(
        (each for each in ("$ref", "enum", "const", "allOf", "anyOf", "oneOf") if each in asked), None
    )
    if whole is not None:
        beside = sorted(asked - {whole} - (set() if whole in {"$ref", "allOf"} else {"type"}))
        if beside:
            raise UnusableSchema(f"{at}: {', '.join(beside)} next to {whole} cannot be checked by polypod")
    elif "type" not in asked:
        of_objects = set() if "properties" in asked else {"required", "additionalProperties"}
        if bounds := sorted(asked & (_BOUNDS | {"items"} | of_objects)):
            raise UnusableSchema(f"{at}: {', '.join(bounds)} cannot be checked without a type")


def _types_of(schema: dict[str, Any], at: str) -> list[str]:
    """The types that a schema names, none where it allows all."""
    if "type" not in schema:
        return ["object"] if "properties" in schema else []
    given = schema["type"]
    names: list[Any] = _list(given, f"{at}.type") if isinstance(given, list) else [given]
    for name in names:
        if not isinstance(name, str) or name not in _TYPES:
            raise UnusableSchema(f"{at}.type: {name!r} is not a JSON type")
    return names


def _type_of_value(value: str | int | None) -> str:
    """The narrowest type of a value that may be listed."""
    if value is None:
        return "null"
    return next(
        name
        for kind, name in ((str, "string"), (bool, "boolean"), (int, "integer"))
        if isinstance(value, kind)
    )


def _constants(schema: dict[str, Any]) -> dict[str, Any]:
    """The required members of an object that are one text or one whole number."""
    found: dict[str, Any] = {}
    for name, each in _table(schema, "properties").items():
        values = (
            each.get("enum", [each["const"]] if "const" in each else []) if isinstance(each, dict) else []
        )
        if name in schema.get("required", []) and len(values) == 1 and type(values[0]) in {str, int}:
            found[name] = values[0]
    return found


def _literal(values: list[Any], at: str) -> Any:
    for each in values:
        if not isinstance(each, str | int | None):
            raise UnusableSchema(f"{at}: {each!r} is not a string, integer, boolean or null")
    named = tuple(each for each in values if each is not None)
    if len(named) == len(values):
        return Literal[named]
    return Literal[named] | None if named else None  # msgspec before 0.22 sorts what is in a Literal


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
        raise UnusableSchema(f"{at}: expected a list" + ("" if value != [] else " that is not empty"))
    return value
