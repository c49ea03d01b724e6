"""Whatever a tool returns is shown: drained, dumped, or reported in words; what it did is never called a failure."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import decimal
import enum
import itertools
import json
import threading
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.dump import MOST_MEMBERS, dump
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolDefinitionError
from protocol.items import ImagePart, TextPart, ThinkingPart, ToolCall, ToolResult
from protocol.scope import Scope
from protocol.wire import encode

LONE = "x\ud800y"
CLEAN = "x\ufffdy"


def result_of(function: Any, arguments: dict[str, Any] | None = None) -> ToolResult:
    toolbox = Toolbox([function], output_cap=10_000_000)
    (spec,) = toolbox.specs
    ctx = ToolContext(pwd=Path("/"), scope=Scope())
    result = asyncio.run(toolbox.run(ToolCall("c", spec.name, arguments or {}), ctx))
    encode(result)  # a log can keep it
    return result


def results_of(value: Any) -> list[ToolResult]:
    async def later() -> Any:
        return value

    return [result_of(tool(name="now")(lambda: value)), result_of(later)]


class Color(enum.Enum):
    RED = ("r", 1)


@dataclasses.dataclass
class Note:
    text: str
    more: Any = None


class Noted(msgspec.Struct, rename="camel", tag="noted"):
    the_text: str


@attrs.define
class Attributes:
    text: str


class Model:
    def model_dump(self, mode: str = "python") -> dict[str, Any]:
        return {"mode": mode, "text": LONE}


class Scalar:
    def tolist(self) -> float:
        return 1.5


class Matrix:
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("it has a method of its own")

    def tolist(self) -> list[Any]:
        return [[1, 2], [3, float("nan")]]


class Mute:
    __slots__ = ()


class Angry:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Broken:
    def model_dump(self, mode: str = "") -> Any:
        raise RuntimeError(mode)

    def __repr__(self) -> str:
        return LONE


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"key": LONE, LONE: [LONE, (LONE,)]}, {"key": CLEAN, CLEAN: [CLEAN, [CLEAN]]}),
        ([{LONE}, frozenset({LONE})], [[CLEAN], [CLEAN]]),
        (Note(LONE, Noted(LONE)), {"text": CLEAN, "more": {"type": "noted", "theText": CLEAN}}),
        (Attributes(LONE), {"text": CLEAN}),
        ({LONE + "\ud801": 1, LONE + "\ud802": 2}, {f"{CLEAN}\ufffd": 1, f"{CLEAN}\ufffd (2)": 2}),
        ({("a", 1): 1, None: 2, True: 3, 1.5: 4, b"a": 5}, None),
        (Color.RED, ["r", 1]),
        (float("nan"), None),
        ({"a": [float("inf"), decimal.Decimal("1.10")]}, {"a": [None, "1.10"]}),
        (2**70, 2**70),
        ({10**6000: [10**6000]}, {hex(10**6000): [hex(10**6000)]}),  # more digits than Python writes
        (Scalar(), 1.5),
        ([Matrix()], [[[1, 2], [3, None]]]),
        (array.array("i", [1, 2]), [1, 2]),
        (collections.deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        (Model(), {"mode": "json", "text": CLEAN}),
        ([Broken()], [CLEAN]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (types.SimpleNamespace(a=1), "namespace(a=1)"),
        ([ValueError(LONE)], [f"ValueError: {CLEAN}"]),
        ([Path("/a\udcff")], ["/a\ufffd"]),
    ],
)
def test_a_result_is_shown_whatever_it_is(value: Any, shown: Any) -> None:
    for result in results_of(value):
        assert not result.is_error, result.text
        if shown is not None:
            assert json.loads(result.text) == shown


@pytest.mark.parametrize(
    "part", [TextPart(LONE), ThinkingPart(LONE, LONE), ImagePart(url=LONE, media_type=LONE)]
)
def test_parts_with_half_characters_are_no_failure(part: Any) -> None:
    for result in [*results_of(part), *results_of([TextPart("a"), part]), *results_of(["a", part])]:
        assert not result.is_error
        assert "\ud800" not in repr(result.content)
        assert "\ufffd" in repr(result.content)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Mute(), "Mute: the tool ran, but what it returned cannot be shown"),
        ([Angry()], "the tool ran, but this cannot be shown: RuntimeError: no words"),
        (threading.Lock(), "lock"),
        (len, "len"),
        (dict, "class 'dict'"),
    ],
)
def test_what_has_no_form_as_data_is_reported_in_words_that_say_that_the_tool_ran(
    value: Any, words: str
) -> None:
    for result in results_of(value):
        assert words in result.text
        assert not result.is_error


def test_what_holds_itself_and_what_is_very_deep_are_shown_up_to_there() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    table: dict[str, Any] = {}
    table["note"] = Note("a", table)
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    for value, words in ((ring, "again, within itself"), (table, "within itself"), (deep, "deeper than 100")):
        for result in results_of(value):
            assert not result.is_error
            assert words in result.text
    twice = [1]
    assert json.loads(dump([twice, twice, Mute()]))[:2] == [[1], [1]], "beside is not within"


def generated() -> Iterator[str]:
    yield "one"
    yield "two"


async def generated_async() -> AsyncIterator[str]:
    yield "one"
    yield "two"


async def late_iterator() -> Any:
    return generated()


async def late_async_iterator() -> Any:
    return generated_async()


@pytest.mark.parametrize(
    "function",
    [
        generated,
        generated_async,
        late_iterator,
        late_async_iterator,
        tool(name="a")(lambda: generated()),  # noqa: PLW0108 - no generator function
        tool(name="b")(lambda: generated_async()),  # noqa: PLW0108
        tool(name="c")(lambda: map(str, ["one", "two"])),
    ],
)
def test_a_generator_is_drained(function: Any) -> None:
    result = result_of(function)
    assert not result.is_error
    assert json.loads(result.text) == ["one", "two"]


def test_generators_within_a_result_are_drained() -> None:
    def rows() -> dict[str, Any]:
        return {"rows": generated(), "n": 2}

    assert json.loads(result_of(rows).text) == {"rows": ["one", "two"], "n": 2}


def test_an_endless_generator_is_cut_and_it_says_so() -> None:
    def endless() -> Any:
        return itertools.count()

    async def endless_async() -> AsyncIterator[int]:
        while True:
            yield 1

    for function in (endless, endless_async):
        shown = json.loads(result_of(function).text)
        assert len(shown) == MOST_MEMBERS + 1
        assert shown[-1] == f"[only the first {MOST_MEMBERS:,} members are shown]"


def test_an_error_within_a_generator_is_the_tools() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    async def failing_async() -> AsyncIterator[int]:
        yield 1
        raise ValueError("in the middle")

    for function in (failing, failing_async):
        result = result_of(function)
        assert result.is_error
        assert "ValueError: in the middle" in result.text


def test_a_generator_of_parts_gives_parts() -> None:
    def pictures() -> Iterator[Any]:
        yield "look"
        yield ImagePart(data="aGk=")

    assert result_of(pictures).content == (TextPart("look"), ImagePart(data="aGk="))


def test_an_async_generator_is_stopped_at_its_deadline() -> None:
    @tool(timeout=0.05)
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    result = result_of(slow)
    assert result.is_error
    assert "took too long" in result.text


def test_an_exception_that_is_returned_is_a_failure_where_another_type_was_promised() -> None:
    def promised() -> str:
        return ValueError("bad")  # type: ignore[return-value]

    async def promised_async() -> int | None:
        return ValueError("bad")  # type: ignore[return-value]

    def given() -> ValueError:
        return ValueError("bad")

    for function in (promised, promised_async):
        result = result_of(function)
        assert result.is_error
        assert result.text == f"{function.__name__} failed: ValueError: bad"
    assert json.loads(result_of(given).text) == "ValueError: bad"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner, max_size=3)
            | st.builds(Note, inner, inner)
            | inner.map(lambda value: iter([value]))
            | st.tuples(inner, inner)
        ),
        max_leaves=8,
    )
)
def test_any_data_is_dumped_as_json_that_utf_8_can_hold(value: Any) -> None:
    text = dump(value)
    text.encode()
    json.loads(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"concurrency": "bogus"},
            "concurrency: expected one of 'read_only', 'exclusive', 'interactive', got 'bogus'",
        ),
        ({"concurrency": None}, "concurrency"),
        ({"concurrency": ["exclusive"]}, "concurrency"),
        ({"timeout": 0}, "timeout: expected more than 0 seconds, got 0"),
        ({"timeout": -1.5}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"name": ""}, "a name must be 1 to 64 letters"),
        ({"name": "a b"}, "a name must be 1 to 64 letters"),
        ({"name": "a\n"}, "a name must be 1 to 64 letters"),
        ({"name": "x" * 65}, "a name must be 1 to 64 letters"),
        ({"name": 5}, "a name must be 1 to 64 letters"),
        ({"description": 5}, "description: expected a string"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ToolDefinitionError) as refused:
        tool(**options)(generated)
    assert words in str(refused.value)


@pytest.mark.parametrize("thing", [5, "name", None, classmethod(generated), [generated]])
def test_what_cannot_be_called_is_no_tool(thing: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="cannot be a tool"):
        Tool(thing)
    with pytest.raises(ToolDefinitionError, match="cannot be a tool"):
        Toolbox([thing])


@pytest.mark.parametrize("function", [print, dict.get, type("C", (), {"__call__": None, "__name__": "c"})()])
def test_a_function_whose_parameters_have_no_names_is_no_tool(function: Any) -> None:
    with pytest.raises(ToolDefinitionError):
        tool(name="x")(function)


def test_null_is_taken_where_the_default_is_none() -> None:
    def implicit(x: int = None, y: "list[int]" = None) -> str:  # type: ignore[assignment]  # noqa: RUF013, UP037
        return f"{x} {y}"

    schema = tool(implicit).input_schema["properties"]["x"]
    assert {"type": "null"} in schema["anyOf"]
    assert result_of(implicit, {"x": None, "y": None}).text == "None None"
    assert result_of(implicit, {"x": 5.0}).text == "5 None"


def test_a_default_that_the_type_would_not_take_is_no_part_of_the_schema() -> None:
    @tool
    def odd(a: float = float("inf"), b: int = "auto", c: str = LONE, d: int = 3) -> str:  # type: ignore[assignment]
        return f"{a}{b}{d}"

    shown = {name: each.get("default") for name, each in odd.input_schema["properties"].items()}
    assert shown == {"a": None, "b": None, "c": CLEAN, "d": 3}
    assert result_of(odd).text == "infauto3"
