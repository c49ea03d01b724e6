"""Typed answers are found in what models write around them, and misfits are explained."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.output import Fit, Misfit, instruction_for, parse_output, schema_for


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Tree(msgspec.Struct):
    name: str
    children: list["Tree"] = []


class Line(msgspec.Struct):
    start: Point
    end: Point


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1, "y": 2}',
        '  {"x": 1, "y": 2}\n',
        '```json\n{"x": 1, "y": 2}\n```',
        '```\n{"x": 1, "y": 2}\n```',
        'Sure! Here it is:\n\n```json\n{"x": 1, "y": 2}\n```\nAnything else?',
        'The point is {"x": 1, "y": 2}.',
        'Of the set {a, b} I take {"x": 1, "y": 2}',
        '<think>perhaps {"x": 9, "y": 9}?</think>{"x": 1, "y": 2}',
        '[1] says: {"x": 1, "y": 2}',
        '{"value": {"x": 1, "y": 2}}',
    ],
)
def test_an_answer_is_found_within_fences_and_chatter(text):
    assert parse_output(text, Point) == Fit(Point(1, 2))


def test_a_misfit_says_what_is_wrong_and_where():
    told = parse_output('{"x": "one"}', Point)
    assert isinstance(told, Misfit)
    assert "x: expected `int`, got `str`" in told.why


@pytest.mark.parametrize("text", ["", "I cannot do that.", "{", "[" * 100_000, '{"x":' * 50_000])
def test_a_text_without_json_is_a_misfit(text):
    told = parse_output(text, Point)
    assert isinstance(told, Misfit)
    assert "no JSON" in told.why


def test_a_text_is_its_own_answer():
    assert parse_output("plain {words}", str) == Fit("plain {words}")
    assert parse_output('{"value": "wrapped"}', str) == Fit("wrapped")
    assert parse_output('{"value": 1}', str) == Fit('{"value": 1}')


@pytest.mark.parametrize(("kind", "value"), [(list[int], [1, 2]), (int, 5), (bool, True), (int | None, None)])
def test_what_is_no_object_is_wrapped_in_one(kind, value):
    schema = schema_for(kind)
    assert schema["type"] == "object"
    assert schema["required"] == ["value"]
    assert parse_output(json.dumps({"value": value}), kind) == Fit(value)
    assert parse_output(json.dumps(value), kind) == Fit(value)


def test_a_schema_has_an_object_at_its_top_and_not_a_reference():
    schema = schema_for(Line)
    assert schema["type"] == "object"
    assert schema["properties"]["start"] == {"$ref": "#/$defs/Point"}
    assert set(schema["$defs"]) == {"Point"}


def test_a_type_that_holds_itself_keeps_its_definition():
    schema = schema_for(Tree)
    assert schema["type"] == "object"
    assert "Tree" in schema["$defs"]


def test_a_type_without_a_schema_is_a_type_error():
    with pytest.raises(TypeError):
        schema_for(object())


def test_the_instruction_in_words_carries_the_schema():
    assert '"x"' in instruction_for(schema_for(Point))


@given(st.text(), st.integers(), st.text())
def test_no_chatter_hides_the_answer_or_breaks_the_reading(before: str, x: int, after: str):
    told: Any = parse_output(
        f'{before.replace("{", "").replace("[", "").replace("<", "")}{{"x": {x}}}{after}', Point
    )
    if abs(x) < 2**63:
        assert told == Fit(Point(x)) or before.strip()


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    assert isinstance(parse_output(text, Point), Fit | Misfit)
