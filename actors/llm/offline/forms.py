"""Fills the offline model's words into the JSON Schema of a typed answer; pure.

It does not understand the schema's meaning: texts get the words, lists their lines, numbers and choices those
found in the words, in order. What the words do not contain becomes the least that the schema allows (0, an
empty list, the first choice).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DEEPEST = 12
_TOO_GREAT = 2.0**63
#: The simplest value of each text format.
_FORMATS = {
    "date-time": "1970-01-01T00:00:00Z",
    "date": "1970-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "decimal": "0",
}

#: Keys of a schema that do not restrict its value.
_SAYING_NOTHING = frozenset({"title", "description", "default"})


class _Unfillable(Exception):  # noqa: N818 - says what it is
    """A schema asks for something that cannot be made up."""


def in_form(schema: Mapping[str, Any], words: str) -> str:
    """The JSON of a value that fits ``schema``, made of ``words``; if none can be made, a sentence that says
    why.
    """
    try:
        value = _Form(schema.get("$defs", {}), words).value(schema, 0)
    except _Unfillable as why:
        return f"I am a small program and no language model: I cannot fill in this schema ({why})."
    return msgspec.json.encode(value).decode()


class _Form:
    def __init__(self, definitions: Mapping[str, Any], words: str) -> None:
        self._definitions = definitions
        self._words = words
        #: Very long digit strings, as in hashes, are not numbers that JSON could hold.
        self._found = [each for each in map(float, _NUMBER.findall(words)) if abs(each) < _TOO_GREAT]
        self._numbers: Iterator[float] = iter(self._found)

    def value(self, schema: Mapping[str, Any], depth: int) -> Any:
        """The value for one place of the schema."""
        if depth > _DEEPEST:
            raise _Unfillable("it has no end")
        if "$ref" in schema:
            return self.value(self._definitions[schema["$ref"].rpartition("/")[2]], depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self._any_of(schema[union], depth)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        value: Any = None
        if kind == "object":
            value = self._object(schema, depth)
        elif kind == "array":
            value = self._array(schema, depth)
        elif kind == "string":
            value = self._text(schema)
        elif kind in {"integer", "number"}:
            value = self._number(schema, whole=kind == "integer")
        elif kind == "boolean":
            value = re.search(r"(?i)\b(yes|true)\b", self._words) is not None
        elif kind is None and not schema.keys() - _SAYING_NOTHING:
            value = self._words
        elif kind != "null":
            raise _Unfillable(f"type {kind!r}" if kind else f"it has {', '.join(sorted(schema))}")
        return value

    def _choice(self, choices: list[Any]) -> Any:
        said = re.findall(r"[\w-]+", self._words.lower())
        return next((each for each in choices if str(each).lower() in said), choices[0])

    def _any_of(self, schemas: list[Mapping[str, Any]], depth: int) -> Any:
        """The value for the first alternative that can be filled; null only if nothing else can."""
        why: _Unfillable | None = None
        for schema in sorted(schemas, key=lambda each: each.get("type") == "null"):
            try:
                return self.value(schema, depth + 1)
            except _Unfillable as unfillable:
                why = unfillable
        raise why or _Unfillable("it has no choices")

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        required = schema.get("required", [])
        for name, place in schema.get("properties", {}).items():
            try:
                filled[name] = self.value(place, depth + 1)
            except _Unfillable as why:
                if name in required:
                    raise _Unfillable(f"{name}: {why}") from why
        return filled

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if "prefixItems" in schema:
            return [self.value(each, depth + 1) for each in schema["prefixItems"]]
        items = schema.get("items") or {}
        if items.get("type") == "string":
            lines = [line.strip() for line in self._words.splitlines() if line.strip()]
            values = [_Form(self._definitions, line).value(items, depth + 1) for line in lines]
        elif items.get("type") in {"integer", "number"}:
            values = [self.value(items, depth + 1) for _ in self._found]
        else:
            values = []
        values += [self.value(items, depth + 1) for _ in range(least - len(values))]
        return values[:most]

    def _text(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            raise _Unfillable("a text of a pattern")
        if "contentEncoding" in schema:
            return ""
        text: str = _FORMATS.get(schema.get("format", ""), self._words)
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        number = next(self._numbers, 0.0)
        if "multipleOf" in schema:
            raise _Unfillable("a multiple of a number")
        lowest = _bound(schema, "minimum", "exclusiveMinimum", 1)
        highest = _bound(schema, "maximum", "exclusiveMaximum", -1)
        if lowest is not None and highest is not None and lowest > highest:
            raise _Unfillable("a number between two that have no whole one between them")
        if lowest is not None:
            number = max(number, lowest)
        if highest is not None:
            number = min(number, highest)
        return int(number) if whole else number


def _bound(schema: Mapping[str, Any], inclusive: str, exclusive: str, step: int) -> float | None:
    """The nearest whole number within a bound."""
    bounds = [schema[inclusive]] if inclusive in schema else []
    bounds += [schema[exclusive] + step] if exclusive in schema else []
    return None if not bounds else max(bounds) if step > 0 else min(bounds)
