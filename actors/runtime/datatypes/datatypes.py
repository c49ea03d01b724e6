"""Types at the edge of JSON: a type's schema, and the way from JSON data to an instance.

The one place for tools' parameters and typed answers. msgspec reads the types that it knows: numbers,
texts, lists, dicts, ``Literal``, enums, dates, dataclasses, TypedDict, NamedTuple, attrs, Structs.
Types of pydantic are read by pydantic, wherever they stand in another.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

import msgspec

from actors.runtime.datatypes import json_schema, pydantic_types
from protocol.foreign import named_words


class Unfit(ValueError):  # noqa: N818 - what it says of data is not an error of ours
    """Data that is not an instance of a type; the message names the place and what was expected."""


class DataType(Protocol):
    """A type at the edge of JSON. ``schema`` is its JSON Schema, self-contained; it allows exactly what
    ``convert`` accepts.
    """

    schema: dict[str, Any]

    def convert(self, data: Any) -> Any:
        """``data`` (of JSON) as an instance. Raises Unfit."""


def data_type(kind: Any) -> DataType:
    """``kind`` as a DataType. Raises TypeError, which says what in it cannot be expressed in JSON."""
    if pydantic_types.owns(kind):
        try:
            return _Foreign(kind)
        except TypeError as error:
            try:  # it may stand within types that pydantic does not know: a Struct
                return _Known(kind)
            except TypeError:
                raise error from None
    return _Known(kind)


def known_schema(kind: Any) -> dict[str, Any]:
    """The schema of a type that msgspec reads. Raises TypeError."""
    try:
        return json_schema.schema_of(kind, _schema_of_custom)
    except NameError as error:
        raise TypeError(f"the name {error.name!r} within it cannot be resolved") from error
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TypeError(str(error)) from error


def convert(data: Any, kind: Any) -> Any:
    """``data`` as an instance of a type that msgspec reads.

    A number without a fraction is an integer, as in JSON Schema, however it is written. Raises
    msgspec.ValidationError, and Unfit for what a class's own code objects to.
    """
    try:
        return _convert(data, kind)
    except msgspec.ValidationError:
        whole = _whole_numbers(data)
        if whole is data:
            raise
        return _convert(whole, kind)


def explain(error: msgspec.ValidationError, known: tuple[str, ...] | None = None) -> str:
    """The words of msgspec with the place in front, of the data itself or of a tool's arguments, which
    are ``known`` by name.
    """
    what, _, where = str(error).rpartition(" - at `")
    if not what:
        what, where = where, ""
    key, _, inside = where.rstrip("`").partition("` in `")
    where = (inside or key).removeprefix("$").lstrip(".")
    prefix = f"{where}: " if where else ""
    if known is not None and (found := re.match(_UNKNOWN, what)):
        of = "" if where else f"; the arguments are: {', '.join(known) or 'none'}"
        return f"{prefix}unknown argument {found[1]!r}{of}"
    if known is not None and (found := re.match(_MISSING, what)):
        return f"{prefix}missing argument {found[1]!r}"
    return f"{prefix}{what[:1].lower()}{what[1:]}"


_UNKNOWN = r"(?s)Object contains unknown field `(.*)`"
_MISSING = r"(?s)Object missing required field `(.*)`"


class _Known:
    """A type that msgspec reads."""

    __slots__ = ("_kind", "schema")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self.schema = known_schema(kind)

    def convert(self, data: Any) -> Any:
        try:
            return convert(data, self._kind)
        except msgspec.ValidationError as error:
            raise Unfit(explain(error)) from error


class _Foreign:
    """A type that pydantic reads."""

    __slots__ = ("_type", "schema")

    def __init__(self, kind: Any) -> None:
        self._type = pydantic_types.PydanticType(kind)
        self.schema = json_schema.clean(self._type.schema)

    def convert(self, data: Any) -> Any:
        try:
            return self._type.convert(data)
        except ValueError as error:
            raise Unfit(str(error)) from error


def _convert(data: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(data, kind, dec_hook=_decode_custom, str_keys=True)
    except (msgspec.ValidationError, Unfit, KeyboardInterrupt):
        raise
    except BaseException as error:  # a class's own ``__init__`` or ``__post_init__``, or too deep for it
        raise Unfit(named_words(error)) from error


def _whole_numbers(data: Any) -> Any:
    """``data`` with 5 in place of each 5.0; ``data`` itself if there is none."""
    if isinstance(data, float):
        return int(data) if data.is_integer() else data
    if isinstance(data, dict):
        members = {key: _whole_numbers(value) for key, value in data.items()}
        return members if any(members[key] is not data[key] for key in data) else data
    if isinstance(data, list | tuple):
        values = [_whole_numbers(value) for value in data]
        return values if any(a is not b for a, b in zip(values, data, strict=True)) else data
    return data


def _schema_of_custom(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string"}
    if kind is object:
        return {}
    if pydantic_types.owns(kind):
        return _inlined(pydantic_types.PydanticType(kind).schema)
    raise TypeError(f"JSON cannot express {kind!r}")


def _decode_custom(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is object:
        return value
    if pydantic_types.owns(kind):
        return pydantic_types.PydanticType(kind).convert(value)
    raise ValueError(f"expected {'a string' if kind is Path else kind.__name__}")


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its ``$defs`` inlined, for use within another."""
    definitions = schema.get("$defs", {})

    def put(value: Any, around: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [put(each, around) for each in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if name in around:
            return {}  # a type within itself, here of any shape: validation knows better
        if name in definitions:
            return put(
                {**definitions[name], **{k: v for k, v in value.items() if k != "$ref"}}, (*around, name)
            )
        return {key: put(each, around) for key, each in value.items() if key != "$defs"}

    inlined: dict[str, Any] = put(schema, ())
    return inlined
