"""Typed answers, pure: a type in and its schema out, then a model's text in and an instance out."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from actors.llm.lenient import finite, refuse
from actors.runtime.datatypes.datatypes import Unfit, data_type
from protocol.foreign import shown
from protocol.text import UNDECODABLE, encodable_json

if TYPE_CHECKING:
    from json import JSONDecoder

#: Where a type is not an object, the object that servers insist on has its value under this name.
VALUE = "value"
#: How many places in a text are tried as the beginning of JSON.
MAX_TRIES = 200


class Fit(Struct, frozen=True):
    """The text holds an instance of the type; ``doubtful`` where it holds others before it."""

    value: Any
    doubtful: bool = False


class Misfit(Struct, frozen=True):
    """The text holds none; ``why`` is written to the model that wrote it."""

    why: str


def schema_for(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type that msgspec or pydantic knows, always that of an object.

    A type that is none (a list, a number) is wrapped as the one field ``value``. Raises TypeError for types
    that have no schema.
    """
    try:
        schema = dict(data_type(kind).schema)
    except TypeError as error:
        raise TypeError(f"no answer can be of the type {shown(kind)}: {error}") from error
    definitions: dict[str, Any] = schema.pop("$defs", {})
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name:  # servers want to see an object at the top, not a reference to one
        schema = dict(definitions[name])
        if f'"#/$defs/{name}"'.encode() not in msgspec.json.encode([schema, definitions]):
            del definitions[name]
    if schema.get("type") != "object":
        schema = {"type": "object", "properties": {VALUE: schema}, "required": [VALUE]}
    return {**schema, "$defs": definitions} if definitions else schema


def instruction_for(schema: dict[str, Any], *, tools: bool = False) -> str:
    """The instruction to a model to answer so, for servers that do not hold it to a schema; ``tools`` says
    that it may call some before.
    """
    first = "Call tools as long as you need them; then answer" if tools else "Answer"
    return (
        f"{first} with one JSON object and nothing else. It has to fit this JSON Schema:\n"
        + msgspec.json.encode(schema).decode()
    )


def parse_output(text: str, kind: Any) -> Fit | Misfit:
    """The last value in ``text`` that fits the type ``kind``: an example or a draft stands before the answer.

    Fences and chatter around it are passed over, so is reasoning, be it in ``<think>`` tags or before a
    ``</think>`` alone. Where nothing fits, the answer says what was wrong with what came nearest.
    """
    if kind is str:
        return Fit(_text_of(text))
    nearest = "it holds no JSON"
    fits: list[tuple[Any, Any]] = []
    for value in values_in(text):
        try:
            fits.append((value, _converted(value, kind)))
        except Unfit as error:
            if nearest == "it holds no JSON" or isinstance(value, dict):
                nearest = str(error)
    if not fits:
        return Misfit(f"The answer does not fit what was asked for: {nearest}.")
    chosen, last = fits[-1]
    return Fit(last, doubtful=any(value != chosen for value, _ in fits))


#: The message to a model that gave more than one answer.
DOUBTFUL = "The answer holds several values that fit what was asked for, and they differ: give one alone."

_TAG = r"(think|thinking|thought|reasoning)"
_THOUGHT = rf"(?s)<{_TAG}>.*?(</\1>|\Z)"
_END_OF_THOUGHT = rf"</{_TAG}>"


def _said(text: str) -> str:
    """A text without reasoning."""
    text = re.sub(_THOUGHT, "", text)
    ends = list(re.finditer(_END_OF_THOUGHT, text))
    return text[ends[-1].end() :] if ends else text


def _converted(value: Any, kind: Any) -> Any:
    """``value`` as an instance of ``kind``, in the wrapping of ``schema_for`` or without. Raises Unfit."""
    try:
        return _fitted(value, kind)
    except Unfit:
        if isinstance(value, dict) and value.keys() == {VALUE}:
            return _fitted(value[VALUE], kind)
        raise


def _fitted(value: Any, kind: Any) -> Any:
    """``value`` as an instance. An object that has nothing of what was asked for is none, though all of it
    may be left out, and neither is the schema itself.
    """
    if isinstance(value, dict) and value:
        schema = schema_for(kind)
        known = schema.get("properties", {}).keys()
        if value == schema:
            raise Unfit("it is the schema and no answer to it")
        if known and known != {VALUE} and not known & value.keys():
            raise Unfit(f"it has none of the members {', '.join(known)}")
    return data_type(kind).convert(value)


def values_in(text: str) -> Iterator[Any]:
    """All JSON values in a text, in order: the text itself, or else the objects and lists within it."""
    try:
        yield msgspec.json.decode(text)
    except UNDECODABLE:
        yield from _values_within(_said(text))


def _text_of(text: str) -> str:
    """A text that was asked for: what a server has put into the wrapping, or all that was said."""
    try:
        return msgspec.json.decode(text, type=_WrappedText).value
    except UNDECODABLE:
        return text


class _WrappedText(Struct, forbid_unknown_fields=True):
    value: str


_BEGINNING = r"[\[{]"


@cache
def _decoder() -> JSONDecoder:
    from json import JSONDecoder  # noqa: PLC0415 - paid for by answers that are more than JSON

    return JSONDecoder(parse_float=finite, parse_constant=refuse)


def _values_within(text: str) -> Iterator[Any]:
    """The values in a text in order; where it has very many beginnings that are none, its first and last."""
    position = yield from _values_from(text, 0)
    if position is not None:
        ends = [found.start() for found in re.compile(_BEGINNING).finditer(text, position)]
        yield from _values_from(text, ends[-MAX_TRIES:][0] if ends else len(text))


def _values_from(text: str, position: int) -> Generator[Any, None, int | None]:
    """The values from ``position`` on; gives back where it gave up, if it did."""
    failures = 0
    while failures < MAX_TRIES:
        found = re.compile(_BEGINNING).search(text, position)
        if found is None:
            return None
        try:
            value, position = _decoder().raw_decode(text, found.start())
            value = encodable_json(value)  # unlike msgspec, this decoder lets half a pair through
        except (ValueError, RecursionError):
            position = found.end()
            failures += 1
        else:
            yield value
    return position
