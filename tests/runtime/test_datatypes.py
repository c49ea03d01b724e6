"""The schema of a type and the conversion to it agree, by another reader of JSON Schema."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from actors.runtime.datatypes.datatypes import Unfit, data_type
from actors.runtime.datatypes.json_schema import merge

jsonschema: Any = pytest.importorskip("jsonschema")  # of the extra "dev"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = math.inf
    home: Path = Path()


class Row(NamedTuple):
    name: str
    size: int = 0


class Table(TypedDict, total=False):
    rows: list[int]
    color: Color


class Tree(msgspec.Struct):
    """A tree."""

    name: str
    below: list[Tree] = []


class Closed(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    the_key: int | None = None
    tags: set[str] = msgspec.field(default_factory=set)


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


LEAVES: list[Any] = [
    *(int, float, bool, str, None, Any, Color, Level, Point, Row, Table, Tree, Closed, Cat | Dog, list, dict),
    *(decimal.Decimal, Path, object, Literal["a", "b"] | None, Literal[1, 2], bytearray),
    Annotated[int, Meta(ge=0, lt=10)],
    Annotated[str, Meta(min_length=1, max_length=3)],
]
KINDS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        inner.map(lambda kind: dict[int, kind]),
        inner.map(lambda kind: dict[Color, kind]),
        inner.map(lambda kind: tuple[kind, ...]),
        st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),
        inner.map(lambda kind: kind | None if kind is not None else None),
    ),
    max_leaves=4,
)
SMALL = st.integers(-3, 12)
TEXTS = st.sampled_from(["", "a", "red", "blue", "1", "-1", "007", "1.5", "x y", "Cat", "Dog", "aGk="])
NAMES = st.sampled_from(
    ["x", "y", "name", "below", "rows", "color", "the_key", "theKey", "tags", "type", "home"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | SMALL | SMALL.map(float) | st.just(1.5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3),
    max_leaves=6,
)


def near(schema: Any, root: Any, draw: Any, level: int = 0) -> Any:
    """A value that tries to fit a schema, so that enough of them do."""
    if not isinstance(schema, dict) or level > 6 or draw(st.integers(0, 19)) == 0:
        return draw(VALUES)
    if "$ref" in schema:
        return near(root["$defs"][schema["$ref"].rpartition("/")[2]], root, draw, level + 1)
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if "anyOf" in schema:
        return near(draw(st.sampled_from(schema["anyOf"])), root, draw, level + 1)
    if schema.get("type") == "object":
        named = {
            key: near(each, root, draw, level + 1)
            for key, each in schema.get("properties", {}).items()
            if key in schema["required"] or draw(st.booleans())
        }
        inner = schema.get("additionalProperties", {})
        more = (
            draw(st.lists(NAMES | TEXTS, max_size=2))
            if inner is not False and "properties" not in schema
            else []
        )
        return named | {key: near(inner, root, draw, level + 1) for key in more}
    if schema.get("type") == "array":
        first = [near(each, root, draw, level + 1) for each in schema.get("prefixItems", [])]
        more = [] if first else draw(st.lists(st.none(), max_size=2))
        return first + [near(schema.get("items", {}), root, draw, level + 1) for _ in more]
    plain = {"integer": SMALL | SMALL.map(float), "number": SMALL | st.just(1.5), "boolean": st.booleans()}
    return draw(plain.get(str(schema.get("type")), TEXTS))


def asserts_more(schema: Any) -> bool:
    """Whether a schema has texts of a form that JSON Schema itself does not hold anybody to."""
    text = json.dumps(schema)
    return '"format"' in text or '"contentEncoding"' in text


@given(st.data())
def test_what_the_schema_allows_converts_and_what_converts_the_schema_allows(data: Any) -> None:
    kind = data.draw(KINDS)
    wanted = data_type(kind)
    schema = json.loads(json.dumps(wanted.schema, allow_nan=False))
    value = near(schema, schema, data.draw)
    allowed = jsonschema.Draft202012Validator(schema).is_valid(value)
    try:
        wanted.convert(value)
    except Unfit:
        assert not allowed or asserts_more(schema), f"{kind}: {value!r} is allowed by {schema}"
    else:
        assert allowed, f"{kind}: {value!r} is not allowed by {schema}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (dt.date, "2026-03-29"),
        (dt.time, "02:30:00"),
        (dt.datetime, "2026-03-29T02:30:00+01:00"),
        (dt.timedelta, "PT90S"),
        (uuid.UUID, "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        (decimal.Decimal, "1.50"),
        (bytes, "aGk="),
    ],
)
def test_texts_of_a_form_are_asked_for_as_texts_and_converted(kind: Any, text: str) -> None:
    wanted = data_type(kind)
    assert "string" in json.dumps(wanted.schema)
    assert isinstance(wanted.convert(text), kind)
    with pytest.raises(Unfit):
        wanted.convert("no such thing")


@pytest.mark.parametrize(
    ("kind", "value", "back"),
    [(int, 5.0, 5), (int, 10.0**20, 10**20), (float, 5.0, 5.0), (list[int], [1.0, 2], [1, 2])],
)
def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(
    kind: Any, value: Any, back: Any
) -> None:
    assert data_type(kind).convert(value) == back


@pytest.mark.parametrize("value", [5.5, True, "5", None])
def test_what_is_no_integer_is_none(value: Any) -> None:
    with pytest.raises(Unfit, match="expected `int`"):
        data_type(int).convert(value)


def test_a_default_that_json_does_not_know_is_no_part_of_a_schema() -> None:
    assert "default" not in data_type(Point).schema["properties"]["y"]
    assert data_type(Point).convert({"x": 1}) == Point(1)


def test_an_error_of_a_classs_own_code_is_a_misfit() -> None:
    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            assert self.n % 2 == 0, "n has to be even"

    with pytest.raises(Unfit, match="n has to be even"):
        data_type(list[Even]).convert([{"n": 1}])


class _Mute(Exception):  # noqa: N818 - what it is called does not matter
    def __str__(self) -> str:
        raise RuntimeError("it cannot say")


@pytest.mark.parametrize("error", [_Mute(), asyncio.CancelledError(), GeneratorExit(), SystemExit(3)])
@pytest.mark.parametrize("of", ["msgspec", "pydantic"])
def test_whatever_a_classs_own_code_raises_is_a_misfit(error: BaseException, of: str) -> None:
    def object_to(_: object, *__: object) -> None:
        raise error

    made: Any
    if of == "msgspec":
        made = dataclasses.make_dataclass("Own", [("n", int)], namespace={"__post_init__": object_to})
    else:
        pydantic: Any = pytest.importorskip("pydantic")
        made = Annotated[int, pydantic.AfterValidator(object_to)]
    with pytest.raises(Unfit, match=type(error).__name__):
        data_type(made).convert({"n": 1} if of == "msgspec" else 1)


@pytest.mark.parametrize("kind", [complex, Path | str, dict[bool, int], type, object()])
def test_a_type_that_json_cannot_express_is_a_type_error(kind: Any) -> None:
    with pytest.raises(TypeError):
        data_type(kind)


def test_definitions_of_one_name_are_kept_apart() -> None:
    shapes: dict[str, Any] = {"A": {"type": "string"}}
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}},
    }
    assert merge(schema, shapes) == {"$ref": "#/$defs/A_2"}
    assert shapes["A"] == {"type": "string"}
    assert shapes["A_2"]["properties"]["a"] == {"$ref": "#/$defs/A_2"}
