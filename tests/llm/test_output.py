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


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("text", ['{"value": %s}', 'Here: {"value": %s} it is', "[%s]"])
def test_what_is_no_number_of_json_fits_no_float(text: str, number: str):
    for kind in (float, float | None, list[float], dict[str, float], Any):
        assert isinstance(parse_output(text % number, kind), Misfit), kind


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
    reported = parse_output('{"x": "one"}', Point)
    assert isinstance(reported, Misfit)
    assert "x: expected `int`, got `str`" in reported.why


@pytest.mark.parametrize("text", ["", "I cannot do that.", "{", "[" * 100_000, '{"x":' * 50_000])
def test_a_text_without_json_is_a_misfit(text):
    reported = parse_output(text, Point)
    assert isinstance(reported, Misfit)
    assert "no JSON" in reported.why


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


def test_half_a_surrogate_pair_does_not_come_into_an_answer():
    assert parse_output(r'Here: {"\ud800": ["a\ud83d"]}', dict[str, list[str]]) == Fit(
        {"\ufffd": ["a\ufffd"]}
    )


def test_a_type_without_a_schema_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match="no answer can be of the type <object"):
        schema_for(object())


def test_the_instruction_in_words_carries_the_schema():
    assert '"x"' in instruction_for(schema_for(Point))


@given(st.text(), st.integers(), st.text())
def test_no_chatter_hides_the_answer_or_breaks_the_reading(before: str, x: int, after: str):
    reported: Any = parse_output(
        f'{before.replace("{", "").replace("[", "").replace("<", "")}{{"x": {x}}}{after}', Point
    )
    if abs(x) < 2**63:
        assert reported == Fit(Point(x)) or before.strip()


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    assert isinstance(parse_output(text, Point), Fit | Misfit)


@pytest.mark.parametrize(
    "text",
    [
        'The form is {"x": 9, "y": 9}. The answer: {"x": 1, "y": 2}',
        '{"x": 9, "y": 9}\nWait, that is wrong. Corrected:\n{"x": 1, "y": 2}',
        '```json\n{"x": 9, "y": 9}\n```\nor rather\n```json\n{"x": 1, "y": 2}\n```',
    ],
)
def test_of_an_example_and_the_answer_the_last_counts_and_is_doubted(text: str):
    assert parse_output(text, Point) == Fit(Point(1, 2), doubtful=True)


def test_the_same_answer_said_twice_is_not_doubted():
    assert parse_output('{"x": 1, "y": 2} so: {"y": 2, "x": 1}', Point) == Fit(Point(1, 2))


@pytest.mark.parametrize("tag", ["think", "thinking", "thought", "reasoning"])
def test_what_stands_before_the_end_of_a_thought_is_no_answer(tag: str):
    thought = f'maybe {{"x": 9, "y": 9}}</{tag}>'
    assert parse_output(thought + '{"x": 1, "y": 2}', Point) == Fit(Point(1, 2))
    assert parse_output(f"<{tag}>{thought}" + '{"x": 1, "y": 2}', Point) == Fit(Point(1, 2))
    assert isinstance(parse_output(thought, Point), Misfit)


class Loose(msgspec.Struct):
    name: str = ""
    tags: list[str] = []


@pytest.mark.parametrize("value", [{"error": "I cannot do that"}, schema_for(Loose)])
def test_an_object_that_has_nothing_of_what_was_asked_for_is_no_empty_instance(value: dict[str, Any]):
    assert isinstance(parse_output(json.dumps(value), Loose), Misfit)
    assert parse_output("{}", Loose) == Fit(Loose())


def test_text_that_is_json_as_a_whole_may_speak_of_thoughts():
    text = json.dumps({"name": "</think> {}", "tags": ["<think>"]})
    assert parse_output(text, Loose) == Fit(Loose("</think> {}", ["<think>"]))


_points = st.builds(Point, st.integers(-99, 99), st.integers(-99, 99))
_chatter = st.text("abc .,:\n[]{}\"'`", max_size=12).map(
    lambda text: text.replace("{", "(").replace("[", "(")
)


@given(st.lists(st.tuples(_chatter, _points), min_size=1, max_size=5), _chatter, st.booleans())
def test_the_last_instance_in_any_text_is_the_answer(said, rest, fenced):
    shape = "```json\n{}\n```" if fenced else "{}"
    pieces = [words + shape.format(msgspec.json.encode(point).decode()) for words, point in said]
    read = parse_output("".join(pieces) + rest, Point)
    assert read == Fit(said[-1][1], doubtful=len({(each.x, each.y) for _, each in said}) > 1)


def test_an_answer_behind_very_many_brackets_is_found_and_no_brackets_take_long():
    assert parse_output("[x" * 5000 + '{"x": 1, "y": 2}', Point) == Fit(Point(1, 2))
    assert isinstance(parse_output("[" * 1_000_000, Point), Misfit)
