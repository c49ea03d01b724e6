"""A model that repeats itself in vain learns so, and ends its run when it goes on."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.runs.repeats import Repeats, noticed, since_last_words, without_notice
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import RunFailed, ToolError, ToolLoop
from protocol.items import AssistantItem, Item, ToolCall, ToolResult, UserItem
from protocol.manifest import PodManifest


@tool
async def same() -> str:
    """Give the same answer."""
    return "as ever"


@tool
async def fail(n: int = 0) -> str:
    """Fail."""
    raise ToolError(f"no {n}")


@tool
async def fine(n: int = 0) -> str:
    """Do."""
    return f"done {n}"


def played(script: list[Any], **settings: Any) -> tuple[list[str], ToolLoop | None]:
    """The results of a run's calls, and the error it ended with."""

    async def main() -> tuple[list[str], ToolLoop | None]:
        async with PodSystem() as system:
            client = ScriptedClient(script)
            pod = await system.spawn(PodManifest.of(**settings), client=client, tools=[same, fail, fine])
            failed = None
            try:
                await pod.run("go")
            except RunFailed as error:
                failed = error
            results = [i.text for i in await pod.history() if isinstance(i, ToolResult)]
        if failed is None:
            return results, None
        cause = failed.cause
        assert isinstance(cause, ToolLoop)
        assert failed.failure.details["kind"] == cause.kind == "tool_loop"
        return results, cause

    return asyncio.run(main())


def test_the_same_call_with_the_same_result_is_noted_from_the_third_time_and_ends_the_run_at_the_eighth() -> (
    None
):
    results, error = played([call("same") for _ in range(8)])
    assert results[:2] == ["as ever"] * 2
    assert [("times" in text, text.startswith("as ever")) for text in results[2:7]] == [(True, True)] * 5
    assert results[7] == "as ever"
    assert error is not None
    assert (error.tool, error.times) == ("same", 8)


@pytest.mark.parametrize("name", ["fail", "nonesuch"])
def test_a_tool_that_fails_time_after_time_ends_the_run_whatever_its_arguments(name: str) -> None:
    results, error = played([call(name, {"n": n}) for n in range(4)], max_repeats=4)
    assert ["in a row" in text for text in results] == [False, False, True, False]
    assert error is not None
    assert error.times == 4


def test_arguments_that_do_not_parse_count() -> None:
    _, error = played([call("fine", "{") for _ in range(3)], max_repeats=3)
    assert error is not None


def test_a_run_that_makes_headway_is_left_alone() -> None:
    script = [each for n in range(10) for each in (call("fine", {"n": n}), call("same"))]
    results, error = played([*script, say("done")], max_repeats=3)
    assert error is None
    assert {text for text in results if "as ever" in text} == {"as ever"}


def test_calls_that_go_round_in_circles_are_found() -> None:
    script = [each for _ in range(3) for each in (call("fine"), call("same"))]
    _, error = played(script[:5], max_repeats=3)
    assert error is not None


def test_a_success_ends_a_row_of_failures() -> None:
    script = [each for n in range(5) for each in (call("fail", {"n": n}), call("fail", {"n": -n - 1}))]
    mixed = [each for n, one in enumerate(script) for each in (one, call("fine", {"n": n}))]
    _, error = played([*mixed, say("done")], max_repeats=2)
    assert error is None


def test_one_answer_with_many_failing_calls_is_one_failure() -> None:
    once = call("fail", {"n": 0}, id="0")
    for n in range(1, 9):
        once = once + call("fail", {"n": n}, id=str(n))
    results, error = played([once, say("done")], max_repeats=3)
    assert error is None
    assert not any("in a row" in text for text in results)


def test_no_limit_is_zero() -> None:
    results, error = played([*[call("same") for _ in range(12)], say("done")], max_repeats=0)
    assert error is None
    assert set(results) == {"as ever"}


async def test_words_of_a_user_begin_anew() -> None:
    client = ScriptedClient([call("same"), call("same"), say("a"), call("same"), call("same"), say("b")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(max_repeats=3), client=client, tools=[same])
        await pod.run("1")
        assert (await pod.run("2")).outcome == "finished"


async def test_repetitions_before_a_pause_count_in_the_next_life() -> None:
    store = MemoryStore()
    pods: list[Any] = []

    @tool
    async def pause() -> str:
        """Have the pod pause."""
        pods[0].pause()
        await asyncio.Event().wait()
        return ""

    async with PodSystem(store) as system:
        client = ScriptedClient([call("same"), call("same"), call("pause")])
        pod = await system.spawn(PodManifest.of(max_repeats=3), client=client, tools=[same, pause])
        pods.append(pod)
        result = await pod.run("go")
        assert result.outcome == "paused"
    async with PodSystem(store) as system:
        client = ScriptedClient([call("same")])
        manifest = PodManifest.of(max_repeats=3)
        pod = await system.spawn(manifest, client=client, tools=[same], resume=result.session_id)
        with pytest.raises(RunFailed, match="3 times"):
            await pod.resume()


# -- the pure part -------------------------------------------------------------------------------

names = st.sampled_from(["a", "b"])
outcomes = st.tuples(names, st.integers(0, 1), st.integers(0, 1), st.booleans())
answers = st.lists(st.lists(outcomes, min_size=1, max_size=3) | st.just("words"), max_size=12)


def history(plan: list[Any]) -> list[Item]:
    items: list[Item] = [UserItem.of("go")]
    for number, calls in enumerate(plan):
        if calls == "words":
            items.append(UserItem.of("more"))
            continue
        made = [
            ToolCall(f"{number}.{n}", name, {"x": argument}) for n, (name, argument, _, _) in enumerate(calls)
        ]
        items.append(AssistantItem((), tuple(made)))
        for one, (_, _, text, error) in zip(made, calls, strict=True):
            items.append(ToolResult.of(one, str(text), is_error=error))
    return items


@given(answers)
def test_what_the_model_is_shown_changes_nothing_of_what_is_counted(plan: list[Any]) -> None:
    plain, published = Repeats(), Repeats()
    for item in history(plan):
        repeated = plain.add(item)
        shown: Item = item
        if repeated is not None and isinstance(item, ToolResult):
            shown = noticed(item, repeated, 99)
            assert without_notice(shown) == item  # type: ignore[arg-type]
        assert published.add(shown) == repeated


@given(answers)
def test_the_items_since_the_last_words_say_all(plan: list[Any]) -> None:
    items = history(plan)
    assert Repeats(items).worst == Repeats(since_last_words(items)).worst


@given(answers)
def test_no_count_is_higher_than_the_number_of_answers_since_the_last_words(plan: list[Any]) -> None:
    items = history(plan)
    worst = Repeats(items).worst
    made = sum(isinstance(item, AssistantItem) for item in since_last_words(items))
    assert worst is None or 1 <= worst.times <= made


@given(st.integers(1, 20))
def test_equal_calls_are_counted_exactly(count: int) -> None:
    worst = Repeats(history([[("a", 0, 0, False)]] * count)).worst
    assert worst is not None
    assert worst.times == count


@pytest.mark.parametrize(
    "words",  # which stand in sessions of earlier versions too
    [
        "not run: the run ended before this call was started",
        "interrupted, outcome unknown: the tool may or may not have taken effect; check before calling it again",
    ],
)
def test_what_stands_in_the_place_of_a_result_is_no_failure(words: str) -> None:
    one = ToolCall("1", "a")
    repeats = Repeats([UserItem.of("go"), AssistantItem((), (one,))])
    assert repeats.add(ToolResult.of(one, words, is_error=True)) is None


@given(answers, st.randoms(use_true_random=False))
def test_results_that_come_in_another_order_are_counted_alike(plan: list[Any], chance: random.Random) -> None:
    ordered, came = Repeats(), Repeats()
    for turn in plan:
        first, *results = history([turn])[1:]
        ordered.add(first)
        came.add(first)
        published = {id(item): ordered.add(item) for item in results}
        chance.shuffle(results)
        assert {id(item): came.add(item) for item in results} == published
        assert (came.worst and came.worst.times) == (ordered.worst and ordered.worst.times)


def test_looking_at_what_goes_on_in_the_background_is_no_loop_unless_it_fails() -> None:
    def looks(result: str, *, is_error: bool) -> list[int]:
        follows, times = Repeats(), []
        for number in range(6):
            asked = ToolCall(f"c{number}", "shell_output", {"id": "1"})
            follows.add(AssistantItem(calls=(asked,)))
            repeated = follows.add(ToolResult.of(asked, result, is_error=is_error))
            times.append(0 if repeated is None else repeated.times)
        return times

    assert looks("still running", is_error=False) == [0] * 6
    assert looks("there is no such id", is_error=True) == [1, 2, 3, 4, 5, 6]
