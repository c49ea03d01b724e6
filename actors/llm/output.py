"""Typed answers, pure: a type in and its schema out, then a model's text in and an instance out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from actors.runtime.datatypes import Unfit, data_type

#: Where a type is no object, the object that servers insist on has its value under this name.
VALUE = "value"
#: How many places in a text are tried as the beginning of JSON.
MAX_TRIES = 200


class Fit(Struct, frozen=True):
    """The text holds an instance of the type."""

    value: Any


class Misfit(Struct, frozen=True):
    """The text holds none; ``why`` is written to the model that wrote it."""

    why: str


def schema_for(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type that msgspec or pydantic knows, always that of an object.

    A type that is none (a list, a number) is wrapped as the one field ``value``. Raises TypeError for types
    that have no schema.
    """
    schema = dict(data_type(kind).schema)
    definitions: dict[str, Any] = schema.pop("$defs", {})
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name:  # servers want to see an object at the top, not a reference to one
        schema = dict(definitions[name])
        if f'"#/$defs/{name}"' not in json.dumps([schema, definitions]):
            del definitions[name]
    if schema.get("type") != "object":
        schema = {"type": "object", "properties": {VALUE: schema}, "required": [VALUE]}
    return {**schema, "$defs": definitions} if definitions else schema


def instruction_for(schema: dict[str, Any]) -> str:
    """What tells a model in words to answer so, for servers that do not hold it to a schema."""
    return (
        "Answer with one JSON object and nothing else. It has to fit this JSON Schema:\n"
        + msgspec.json.encode(schema).decode()
    )


def parse_output(text: str, kind: Any) -> Fit | Misfit:
    """The first value in ``text`` that fits the type ``kind``.

    Fences and chatter around it are passed over, so is reasoning in ``<think>`` tags. Where nothing fits, the
    answer says what was wrong with what came nearest.
    """
    if kind is str:
        return Fit(_text_of(text))
    nearest = "it holds no JSON"
    for value in _values(re.sub(_THOUGHT, "", text)):
        try:
            return Fit(_converted(value, kind))
        except Unfit as error:
            if nearest == "it holds no JSON" or isinstance(value, dict):
                nearest = str(error)
    return Misfit(f"The answer does not fit what was asked for: {nearest}.")


_THOUGHT = r"(?s)<think>.*?(</think>|\Z)"


def _converted(value: Any, kind: Any) -> Any:
    """``value`` as an instance of ``kind``, in the wrapping of ``schema_for`` or without."""
    wanted = data_type(kind)
    try:
        return wanted.convert(value)
    except Unfit:
        if isinstance(value, dict) and value.keys() == {VALUE}:
            return wanted.convert(value[VALUE])
        raise


def _values(text: str) -> Iterator[Any]:
    """All JSON values in a text: the text itself, or else the objects and lists within it, in order."""
    try:
        yield msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        yield from _values_within(text)


def _text_of(text: str) -> str:
    """A text that was asked for: what a server has put into the wrapping, or all that was said."""
    try:
        return msgspec.json.decode(text, type=_WrappedText).value
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


class _WrappedText(Struct, forbid_unknown_fields=True):
    value: str


_BEGINNING = re.compile(r"[\[{]")
_decoder = json.JSONDecoder()


def _values_within(text: str) -> Iterator[Any]:
    position = 0
    for _ in range(MAX_TRIES):
        found = _BEGINNING.search(text, position)
        if found is None:
            return
        try:
            value, position = _decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            position = found.end()
        else:
            yield value
