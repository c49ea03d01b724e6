"""JSON Schemas as types: what a schema allows is read, all else is refused, as another reader of schemas has it."""

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cli.pods.answer_schema import schema_of
from actors.cli.pods.schema_types import UnusableSchema, type_of_schema
from actors.runtime.datatypes.datatypes import Unfit, data_type


def fits(value: Any, schema: dict[str, Any]) -> bool:
    try:
        data_type(type_of_schema(schema)).convert(value)
    except Unfit:
        return False
    return True


PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "in full"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "born in": {"$ref": "#/$defs/Place"},
        "class": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "height": {"type": ["number", "null"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}},
}
members = {
    "name": st.text(max_size=2),
    "age": st.integers(-2, 200),
    "born in": st.one_of(st.none(), st.fixed_dictionaries({}, optional={"town": st.text(max_size=2)})),
    "class": st.sampled_from(["a", "b", "c"]),
    "tags": st.lists(st.text(max_size=2), max_size=4),
    "height": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=1)),
    "other": st.none(),
}


@given(st.fixed_dictionaries({}, optional=members))
def test_what_a_schema_allows_is_read_and_nothing_else(value: dict[str, Any]):
    assert fits(value, PERSON) == jsonschema.Draft202012Validator(PERSON).is_valid(value)


def shape(kind: str, **members: Any) -> dict[str, Any]:
    """An object that its kind distinguishes from others."""
    return {
        "type": "object",
        "properties": {"kind": {"const": kind}, **members},
        "required": ["kind", *members],
    }


SHAPES = {
    "type": "array",
    "minItems": 1,
    "items": {"oneOf": [{"$ref": "#/$defs/Circle"}, shape("box", w={"type": "integer"}), {"type": "null"}]},
    "$defs": {"Circle": shape("circle", r={"type": ["number", "null"], "minimum": 0})},
}
shapes = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["circle", "box", "line"])},
        optional={"r": st.one_of(st.none(), st.integers(-1, 1)), "w": st.integers()},
    ),
)


@given(st.lists(shapes, max_size=2))
def test_objects_are_distinguished_by_a_constant_and_bounds_are_those_of_their_type(value: list[Any]):
    assert fits(value, SHAPES) == jsonschema.Draft202012Validator(SHAPES).is_valid(value)


def test_the_model_knows_the_constant_by_which_objects_are_distinguished():
    text = msgspec.json.encode(data_type(type_of_schema(SHAPES)).schema).decode()
    assert all(word in text for word in ('"kind"', '"circle"', '"box"'))
    read = data_type(type_of_schema(SHAPES)).convert([{"kind": "box", "w": 3}])
    assert msgspec.json.decode(msgspec.json.encode(read)) == [{"kind": "box", "w": 3}]


def test_an_answer_is_written_as_it_was_read():
    value = {"name": "Ada", "age": 36, "born in": {"town": "London"}, "height": None}
    read = data_type(type_of_schema(PERSON)).convert(value)
    assert msgspec.json.decode(msgspec.json.encode(read)) == value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "number"}}, [1, 2.5]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 3),
        ({"const": "yes"}, "yes"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}),
        ({}, {"what": ["ever"]}),
        ({"type": ["string", "null"], "minLength": 2, "x-order": 1}, None),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "integer"}}, "description": "a"}, 3),
        ({"type": "object", "additionalProperties": False}, {}),
        ({"type": "object", "properties": {}, "required": ["a"]}, {"a": 1}),
        ({"type": "array", "items": {"type": "array", "items": {"enum": ["a", None]}}}, [["a", None], []]),
        ({"type": "string", "deprecated": True, "readOnly": True}, "a"),
        ({"type": "object", "required": []}, {"a": 1}),
        ({"type": ["object", "null"], "required": ["a"]}, None),
        ({"type": ["number", "null"], "enum": [1, None]}, None),
        ({"type": "object", "anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": {}}}}, {}),
        ({"type": ["string", "integer"], "oneOf": [{"const": "a"}, {"anyOf": [{"type": "integer"}]}]}, 1),
    ],
)
def test_a_schema_may_be_of_any_shape(schema: dict[str, Any], value: Any):
    assert fits(value, schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"], "minLength": 2}, "a"),
        ({"type": "object", "additionalProperties": False}, {"a": 1}),
        ({"type": "object", "properties": {}, "required": ["a"]}, {}),
        ({"type": "object", "required": ["a"]}, {}),
        ({"type": ["object", "null"], "required": ["a"]}, {}),
    ],
)
def test_what_a_schema_does_not_allow_is_refused(schema: dict[str, Any], value: Any):
    assert not fits(value, schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, "not cannot be checked"),
        ({"type": "object", "properties": {"a": {"type": "colour"}}}, r"a.type: 'colour'"),
        ({"$ref": "#/$defs/Nowhere"}, "there is no"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}}, "contains itself"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"enum": []}, "expected a list"),
        ({"anyOf": [{"type": "object", "properties": {}}, {"type": "object", "properties": {}}]}, "cannot distinguish several objects"),
        ({"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}, r'the schema.a: .*"null"'),
        ({"enum": [1.5]}, "the schema.enum: 1.5 is not a string"),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "array"}, {"type": "array", "items": {"type": "null"}}]}}}, "the schema.a: Type unions"),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "null"}}, "members that are not in properties"),
        ({"$ref": "#/$defs/A", "minLength": 1, "$defs": {"A": {"type": "string"}}}, r"minLength next to \$ref"),
        ({"minimum": 1}, "without a type"),
        ({"allOf": [{"type": "string"}, {"type": "string"}]}, "only one schema here"),
        ({"required": ["a"]}, "required cannot be checked without a type"),
        ({"items": {"type": "string"}}, "items cannot be checked without a type"),
        ({"additionalProperties": False}, "additionalProperties cannot be checked without a type"),
        ({"type": "object", "required": ["a"], "additionalProperties": {"type": "null"}}, "members that are not in properties"),
        ({"type": "object", "anyOf": [{"type": "string"}, {"type": "null"}]}, r"schema.type: .*\(null, string\)"),
        ({"type": "string", "oneOf": [{"type": "string"}, {"$ref": "#/$defs/A"}], "$defs": {"A": True}}, "excludes types"),
        ({"type": "string", "enum": ["a", 1]}, r"schema.type: excludes types .*\(integer\)"),
        ({"type": "integer", "const": True}, r"\(boolean\)"),
        ({"type": []}, "schema.type: expected a list that is not empty"),
        ({"type": [{}]}, "schema.type: {} is not a JSON type"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_checked_is_refused_with_its_place(schema: dict[str, Any], words: str):
    with pytest.raises(UnusableSchema, match=words):
        type_of_schema(schema)


def test_names_stand_for_an_object_of_which_all_is_required():
    assert schema_of("name, age int, bio: in a line") == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "bio": {"type": "string", "description": "in a line"},
        },
        "required": ["name", "age", "bio"],
    }
    assert schema_of("name\nbio: short, in a line")["properties"]["bio"]["description"] == "short, in a line"


@pytest.mark.parametrize("text", ["", " , ", "age number", "a b c", "{", "[1]", "{}x", "nowhere.json"])
def test_what_names_no_schema_is_refused(text: str):
    with pytest.raises(UnusableSchema):
        schema_of(text)
