"""JSON Schemas as types: what a schema allows is read, all else is refused, as another reader of schemas has it."""

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cli.pods.answer_schema import schema_of
from actors.cli.pods.schema_types import UnusableSchema, type_of_schema
from actors.runtime.datatypes import Unfit, data_type


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
    ],
)
def test_a_schema_may_be_of_any_shape(schema: dict[str, Any], value: Any):
    assert fits(value, schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, "not cannot be checked"),
        ({"type": "object", "properties": {"a": {"type": "colour"}}}, r"a.type: 'colour'"),
        ({"$ref": "#/$defs/Nowhere"}, "there is no"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}}, "part of itself"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"enum": []}, "expected a list"),
        ({"anyOf": [{"type": "object", "properties": {}}, {"type": "object", "properties": {}}]}, "which of several objects"),
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
