"""What a function becomes as a tool, and what the toolbox makes of every way a call can end."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.thread_pool import ToolThreads
from actors.tools.toolbox import Toolbox
from protocol.errors import ScopeRefused, ToolCancelled, ToolDefinitionError, ToolError
from protocol.items import ImagePart, TextPart, ToolCall, ToolResult
from protocol.scope import Scope

if TYPE_CHECKING:
    from decimal import Decimal


def context(**facts: Any) -> ToolContext:
    return ToolContext(**{"pwd": Path("/"), "scope": Scope(), "pod": "p", "call_id": "c1", **facts})


def run(function: Any, arguments: dict[str, Any] | None = None, **options: Any) -> ToolResult:
    toolbox = Toolbox([function], **options)
    (spec,) = toolbox.specs
    call = ToolCall("c1", spec.name, arguments or {})
    return asyncio.run(toolbox.run(call, context()))


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@tool(concurrency="read_only", timeout=5)
def distance(  # noqa: D417
    start: Point,
    mode: Literal["walk", "fly"],
    steps: Annotated[int, Meta(ge=1, description="how many")] = 3,
    note: str | None = None,
    *,
    ctx: ToolContext,
) -> str:
    """How far it is.

    A second paragraph.

    Args:
        start: where from,
            as a point
        mode (str): how to go
        steps: this loses against Meta

    Returns:
        The way.

    """
    return f"{start.x} {mode} {steps} {note} {ctx.pod}"


@tool
def sphinx(a: int, b: str = "x") -> None:
    """Do it.

    :param a: the first,
        longer
    :param str b: the second
    :type b: str
    """


def test_the_description_is_the_docstring_without_its_words_about_arguments():
    assert distance.description == "How far it is.\n\nA second paragraph.\n\nReturns:\n    The way."
    assert sphinx.description == "Do it."


def test_the_schema_comes_from_annotations_and_the_docstring():
    schema = distance.input_schema
    properties = schema["properties"]
    assert schema["required"] == ["start", "mode"]
    assert schema["additionalProperties"] is False
    assert properties["start"]["description"] == "where from, as a point"
    assert properties["mode"] == {"description": "how to go", "enum": ["fly", "walk"]}
    assert properties["steps"] == {"type": "integer", "minimum": 1, "description": "how many", "default": 3}
    assert "ctx" not in properties
    assert schema["$defs"]["Point"]["required"] == ["x"]


def test_sphinx_words_about_arguments_are_read_too():
    properties = sphinx.input_schema["properties"]
    assert properties["a"]["description"] == "the first, longer"
    assert properties["b"]["description"] == "the second"


def test_a_decorated_function_is_still_called_as_the_plain_function():
    assert distance(Point(1), "fly", ctx=context()) == "1 fly 3 None p"
    assert distance.__doc__.startswith("How far")
    assert (distance.concurrency, distance.timeout) == ("read_only", 5)


def test_a_bare_function_becomes_an_exclusive_tool():
    def plain(a: int) -> int:
        return a + 1

    (made,) = Toolbox([plain])
    assert made.concurrency == "exclusive"
    assert run(plain, {"a": 1}).text == "2"


def test_arguments_arrive_typed_and_what_was_left_out_has_the_functions_own_default():
    result = run(distance, {"start": {"x": 4}, "mode": "walk"})
    assert result.text == "4 walk 3 None p"


def test_the_context_is_injected_by_annotation_or_by_name():
    def annotated(where: ToolContext | None = None) -> str:
        return where.call_id

    def named(ctx) -> str:
        return ctx.call_id

    assert annotated.__name__ == "annotated"
    assert Tool(annotated).input_schema["properties"] == {}
    assert run(annotated).text == "c1"
    assert run(named).text == "c1"


def test_a_path_is_a_string_to_the_model():
    def named(path: Path, other: Path | None = None) -> str:
        return f"{path.name} {other}"

    assert Tool(named).input_schema["properties"]["path"] == {"type": "string"}
    assert run(named, {"path": "/a/b"}).text == "b None"
    assert run(named, {"path": "/a/b", "other": "/c"}).text == "b /c"


def test_partials_bound_methods_and_callable_objects_are_tools():
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self, by: int) -> int:
            """Add."""
            self.n += by
            return self.n

        async def __call__(self, by: int) -> int:
            return self.add(by)

    counter = Counter()
    assert run(counter.add, {"by": 2}).text == "2"
    assert run(tool(name="again")(counter), {"by": 2}).text == "4"
    assert run(tool(name="more")(functools.partial(counter.add, by=3)), {}).text == "7"


def odd_varargs(*a: int): ...
def odd_keywords(**a: int): ...
def odd_positional(a: int, /): ...
def odd_type(a: threading.Thread): ...
def odd_name(a: Decimal): ...
def odd_method(self, a: int): ...


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (odd_varargs, "no schema"),
        (odd_keywords, "no schema"),
        (odd_positional, "by name"),
        (odd_type, "Thread"),
        (odd_name, "Decimal"),
        (odd_method, "bound method"),
        (lambda: 1, "name"),
    ],
)
def test_a_function_that_no_schema_can_express_is_refused_with_the_reason(function, word):
    with pytest.raises(ToolDefinitionError, match=word):
        tool(function)


def test_a_timeout_must_be_positive():
    with pytest.raises(ToolDefinitionError, match="timeout"):
        tool(timeout=0)(odd_name)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ToolDefinitionError, match="two tools have the name 'distance'"):
        Toolbox([distance, tool(name="distance")(sphinx)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (b"caf\xc3\xa9 \xff", "café �"),
        (None, ""),
        ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
        ([], "[]"),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Path("/a"), '"/a"'),
        ("lone \udcff surrogate", "lone \ufffd surrogate"),
        (TextPart("a part"), "a part"),
    ],
)
def test_what_a_tool_returns_becomes_text(value, text):
    def give() -> Any:
        return value

    async def give_later() -> Any:
        return value

    assert run(give).text == text
    assert run(give_later).text == text
    assert not run(give).is_error


def test_parts_are_given_on_as_they_are():
    picture = ImagePart(data="aGk=")

    def show() -> list[Any]:
        return [TextPart("look"), picture]

    assert run(show).content == (TextPart("look"), picture)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ToolCall("c", "distanze"), "there is no tool 'distanze', did you mean 'distance'?"),
        (ToolCall("c", "zzz"), "the tools are: distance, sphinx"),
        (ToolCall("c", "sphinx", {}, '{"a": 1, "b'), "not a complete JSON object; nothing was run. Send"),
        (ToolCall("c", "sphinx"), "invalid arguments for sphinx: missing argument 'a'"),
        (ToolCall("c", "sphinx", {"a": "1"}), "sphinx: a: expected `int`, got `str`"),
        (ToolCall("c", "sphinx", {"a": 1, "d": 1}), "unknown argument 'd'; the arguments are: a, b"),
        (ToolCall("c", "distance", {"start": {"x": "q"}, "mode": "fly"}), "start.x: expected `int`"),
        (ToolCall("c", "distance", {"start": {}, "mode": "fly"}), "start: missing argument 'x'"),
        (ToolCall("c", "distance", {"start": {"x": 1}, "mode": "fly", "steps": 0}), "steps: expected"),
    ],
)
def test_a_call_that_cannot_be_run_gets_a_result_that_says_why(call, words):
    result = asyncio.run(Toolbox([distance, sphinx]).run(call, context()))
    assert result.is_error
    assert result.call_id == "c"
    assert words in result.text


def test_of_very_many_tools_only_some_are_named_where_one_is_not_there():
    tools = [Tool(sphinx, name=f"tool_{n}") for n in range(3_000)]
    result = asyncio.run(Toolbox(tools).run(ToolCall("c", "zzz"), context()))
    assert result.text.endswith("tool_98, tool_99, and 2,900 more")


def test_a_tool_errors_words_reach_the_model_with_their_hint():
    async def refuse() -> None:
        raise ToolError("no such thing", hint="look elsewhere")

    result = run(refuse)
    assert result.is_error
    assert result.text == "no such thing (look elsewhere)"


@pytest.mark.parametrize("error", [ValueError("bad value"), SystemExit(3), asyncio.CancelledError("own")])
def test_whatever_a_tool_raises_becomes_a_result_and_the_log_gets_the_traceback(error, caplog):
    def plain() -> None:
        raise error

    async def later() -> None:
        raise error

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        for function in (plain, later):
            result = run(function)
            assert result.is_error
            assert result.text == f"{function.__name__} failed: {type(error).__name__}: {error}"
            assert "Traceback" not in result.text
    assert "Traceback" in caplog.text


def plainly_decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as most people write it, over whatever function."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_an_async_function_behind_a_plain_decorator_is_awaited_on_the_loop():
    loops = []

    @tool
    @plainly_decorated
    async def work(a: int) -> int:
        loops.append(asyncio.get_running_loop())
        return a

    async def main() -> ToolResult:
        result = await Toolbox([work]).run(ToolCall("c", "work", {"a": 5}), context())
        assert loops == [asyncio.get_running_loop()]
        return result

    assert asyncio.run(main()).text == "5"


def test_what_a_plain_function_returns_to_be_awaited_has_the_tools_time_and_its_errors():
    @plainly_decorated
    async def hangs() -> None:
        await asyncio.Event().wait()

    @plainly_decorated
    async def fails() -> None:
        raise ValueError("no")

    result = run(tool(timeout=0.01)(hangs))
    assert result.is_error
    assert "took too long" in result.text
    assert run(fails).text == "fails failed: ValueError: no"


def test_the_function_within_a_partial_gives_name_words_and_types():
    def measure(a: int, unit: str = "m") -> str:
        """Measure something."""
        return f"{a} {unit}"

    made = Tool(functools.partial(functools.partial(measure, unit="km")))
    assert (made.name, made.description) == ("measure", "Measure something.")
    assert made.input_schema["properties"] == {
        "a": {"type": "integer"},
        "unit": {"type": "string", "default": "km"},
    }
    assert run(made, {"a": 3}).text == "3 km"
    assert "expected `int`" in run(made, {"a": "x"}).text


def test_a_partial_of_an_object_that_is_called_asynchronously_is_awaited():
    class Fetcher:
        async def __call__(self, a: int) -> int:
            return a

    assert run(Tool(functools.partial(Fetcher()), name="fetch"), {"a": 1}).text == "1"


def test_a_class_that_is_a_tool_has_the_types_of_its_parameters():
    made = Tool(dataclasses.make_dataclass("Point", [("x", int)]))
    assert made.input_schema["properties"] == {"x": {"type": "integer"}}


Json = list["Json"] | int


def test_a_refused_type_is_reported_with_the_name_of_its_parameter():
    def odd(fine: int, thread: threading.Thread) -> None: ...
    def deep(data: Json) -> None: ...

    with pytest.raises(ToolDefinitionError, match="tool odd: thread has a type that JSON cannot express"):
        Tool(odd)
    with pytest.raises(ToolDefinitionError, match="tool deep: data has a type that JSON cannot express"):
        Tool(deep)


def test_an_async_tool_that_takes_too_long_is_stopped():
    stopped = []

    @tool(timeout=0.01)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    result = run(slow)
    assert result.text == "slow took too long: not done after 0.01 s, so it was stopped"
    assert result.is_error
    assert stopped


def test_a_tools_own_timeout_error_is_not_taken_for_ours():
    @tool(timeout=5)
    async def inner() -> None:
        raise TimeoutError("upstream")

    assert run(inner).text == "inner failed: TimeoutError: upstream"


def test_a_thread_that_takes_too_long_learns_it_from_the_cancel_flag_and_the_model_from_the_result():
    left = threading.Event()

    @tool(timeout=0.01)
    def slow(ctx: ToolContext) -> None:
        ctx.cancel.wait(10)
        left.set()
        ctx.cancel.raise_if_cancelled()

    result = run(slow)
    assert "not done after 0.01 s; it may still be running in its thread" in result.text
    assert left.wait(60)


@pytest.mark.parametrize("as_thread", [True, False])
async def test_cancelling_a_call_raises_the_flag_and_leaves_as_cancelled(as_thread):
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    ctx = context()

    def plain(ctx: ToolContext) -> None:
        loop.call_soon_threadsafe(begun.set)
        ctx.cancel.wait(10)

    async def later() -> None:
        begun.set()
        await asyncio.Event().wait()

    function: Callable[..., Any] = plain if as_thread else later
    toolbox = Toolbox([tool(name="t")(function)])
    task = asyncio.create_task(toolbox.run(ToolCall("c", "t"), ctx))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ctx.cancel.cancelled


def test_a_cancelled_tool_leaves_by_an_error_of_its_own():
    ctx = context()
    ctx.cancel.raise_if_cancelled()
    ctx.cancel.set()
    with pytest.raises(ToolCancelled):
        ctx.cancel.raise_if_cancelled()


def test_plain_functions_run_beside_the_loop_with_the_callers_context_variables():
    import contextvars  # noqa: PLC0415

    who = contextvars.ContextVar("who", default="nobody")

    def look() -> str:
        assert threading.current_thread() is not threading.main_thread()
        return who.get()

    who.set("me")
    assert run(look).text == "me"


def test_a_context_path_is_checked_by_the_scope(tmp_path):
    ctx = context(pwd=tmp_path, scope=Scope.readable(tmp_path))
    assert ctx.path("a/../b") == tmp_path / "b"
    with pytest.raises(ScopeRefused, match="you may read it"):
        ctx.path("b", "write")


def test_progress_from_a_thread_reaches_who_listens():
    reported: list[str] = []

    def work(ctx: ToolContext) -> None:
        ctx.progress("half")

    asyncio.run(Toolbox([work]).run(ToolCall("c", "work"), context(progress=reported.append)))
    assert reported == ["half"]


def test_a_hundred_calls_of_a_pool_of_two_all_end():
    toolbox = Toolbox([tool(name="double")(lambda n: n * 2)], threads=ToolThreads(2))

    async def main() -> list[ToolResult]:
        calls = [ToolCall(str(n), "double", {"n": n}) for n in range(100)]
        return await asyncio.gather(*(toolbox.run(call, context()) for call in calls))

    assert [int(r.text) for r in asyncio.run(main())] == [n * 2 for n in range(100)]


def test_specs_are_built_once():
    toolbox = Toolbox([distance])
    assert toolbox.specs[0] is distance.spec
    assert msgspec.json.encode(distance.spec)
    assert toolbox.get("distance") is distance
    assert toolbox.get("other") is None
    assert "distance" in repr(toolbox)
    assert len(toolbox) == 1
