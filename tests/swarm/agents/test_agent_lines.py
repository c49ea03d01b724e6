"""The lines of ``events.jsonl`` and ``stdout.log``, whatever is recorded."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.swarm.agents.stream_json import StreamJson
from actors.swarm.flat_lines import FlatLines
from polypod import (
    AgentIdle,
    AgentOutput,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    AssistantItem,
    AssistantMessage,
    Event,
    Failure,
    RunEnd,
    RunStart,
    TextDelta,
    ThinkingPart,
    ToolCall,
    ToolResult,
    ToolResulted,
    Usage,
    UserItem,
    UserMessage,
)

ID = "a-1"
number = iter(range(1, 1_000_000))


def make(kind: type[Any], **fields: Any) -> Any:
    return kind(ID, "s", next(number), 100.0, "r", **fields)


CALL = ToolCall("c1", "read", {"path": "x"})
said = st.builds(lambda text: make(AssistantMessage, item=AssistantItem.of(text)), st.text(max_size=9))
in_between = st.one_of(
    said,
    st.builds(lambda text: make(TextDelta, text=text), st.text(max_size=9)),
    st.builds(lambda text: make(UserMessage, item=UserItem.of(text)), st.text(max_size=9)),
    st.builds(lambda text: make(AgentOutput, stream="stderr", text=text), st.text(max_size=9)),
    st.just(make(AssistantMessage, item=AssistantItem((), (CALL,)))),
    st.just(make(ToolResulted, item=ToolResult.of(CALL, "seen"))),
    st.builds(lambda _: make(RunStart), st.none()),
    st.builds(lambda _: make(RunEnd, outcome="finished"), st.none()),
    st.builds(lambda _: make(AgentIdle), st.none()),
)
ends = st.builds(
    lambda reason, error: make(AgentStopped, reason=reason, error=error),
    st.sampled_from(["exit", "killed", "shutdown", "cancelled"]),
    st.sampled_from([None, Failure("AgentFailed", "it broke")]),
)
lives = st.lists(st.tuples(st.booleans(), st.lists(in_between, max_size=8), ends), min_size=1, max_size=4)


def stream() -> StreamJson:
    return StreamJson(ID, "s", "/work", "pod")


@given(lives)
def test_each_life_has_one_result_line_which_is_its_last(
    lives: list[tuple[bool, list[Event], Event]],
) -> None:
    lines = stream()
    for is_up, middle, end in lives:
        life = [make(AgentRestarted), *([make(AgentStarted, runner="pod", task="x")] if is_up else [])]
        printed = [line["type"] for event in (*life, *middle, end) for line in lines.of(event)]
        assert printed.count("result") == 1
        assert printed[-1] == "result"


@given(st.lists(in_between, max_size=12))
def test_who_joins_the_assistant_lines_sees_the_text_once(middle: list[Event]) -> None:
    printed = [line for event in middle for line in stream().of(event)]
    texts = [
        block["text"]
        for line in printed
        if line["type"] == "assistant"
        for block in line["message"]["content"]
        if block["type"] == "text"
    ]
    assert "".join(texts) == "".join(each.item.text for each in middle if isinstance(each, AssistantMessage))
    assert all(line["type"] != "assistant" or len(texts_of(line)) <= 1 for line in printed)


def texts_of(line: dict[str, Any]) -> list[str]:
    return [each["text"] for each in line["message"]["content"] if each["type"] == "text"]


@given(lives)
def test_every_line_has_what_its_readers_look_for(lives: list[tuple[bool, list[Event], Event]]) -> None:
    lines, flat = stream(), FlatLines()
    for _, middle, end in lives:
        for event in (make(AgentStarted, runner="pod", task="x"), *middle, end):
            for line in lines.of(event):
                assert line["session_id"] == "s"
                assert line["uuid"]
                json.dumps(line)
            for line in flat.of(event):
                assert line["type"] == line["type"].lower()
                assert line["time"] == 100.0
                json.dumps(line)


def test_an_answer_with_reasoning_and_a_call_is_one_line_of_claude_code() -> None:
    item = AssistantItem((ThinkingPart("hm"), *AssistantItem.of("I look").content), (CALL,))
    usage = Usage(100, 5, cache_read_tokens=60, cache_write_tokens=30)
    [line] = stream().of(make(AssistantMessage, item=item, usage=usage, model="m"))
    message = line["message"]
    assert [each["type"] for each in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2] == {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "x"}}
    assert message["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 60,
        "output_tokens": 5,
    }


def test_an_api_error_is_no_success() -> None:
    lines = stream()
    for event in (
        make(AgentStarted, runner="claude", task="x"),
        make(RunStart),
        make(AssistantMessage, item=AssistantItem.of("API Error: 429")),
        make(RunEnd, outcome="failed", error=Failure("AgentFailed", "API Error: 429")),
    ):
        lines.of(event)
    [line] = lines.of(make(AgentStopped, reason="exit", code=0))
    assert (line["subtype"], line["is_error"], line["result"]) == (
        "error_during_execution",
        True,
        "API Error: 429",
    )


def test_a_result_sums_up_the_tasks_of_its_life() -> None:
    lines = stream()
    end = make(RunEnd, outcome="finished", usage=Usage(10, 1), cost=0.5, seconds=2.0)
    for event in (make(AgentStarted, runner="pod", task="x"), make(RunStart), end, make(RunStart), end):
        lines.of(event)
    [line] = lines.of(make(AgentStopped, reason="exit", code=0))
    assert (line["subtype"], line["total_cost_usd"], line["duration_api_ms"]) == ("success", 1.0, 4000)
    assert line["usage"]["output_tokens"] == 2


def test_flat_lines_are_those_that_programs_know() -> None:
    flat = FlatLines()
    events = [
        make(AgentStarted, runner="pod", task="x", cwd="/w"),
        make(RunStart),
        make(UserMessage, item=UserItem.of("two\nlines")),
        make(AssistantMessage, item=AssistantItem(AssistantItem.of("I look").content, (CALL,))),
        make(ToolResulted, item=ToolResult.of(CALL, "seen")),
        make(RunEnd, outcome="finished"),
        make(AgentOutput, stream="stdout", text="chatter"),
        make(AgentStopped, reason="exit", code=0),
    ]
    lines = [line for event in events for line in flat.of(event)]
    assert [line["type"] for line in lines] == [
        *("agent_started", "turn_start", "user_message", "assistant_message", "tool_call", "tool_result"),
        *("turn_end", "stdout", "agent_stopped"),
    ]
    assert lines[1]["step"] == lines[6]["step"] == 1
    assert lines[2]["content"] == [{"type": "text", "text": "two\nlines"}]
    assert lines[4]["args"] == {"path": "x"}
    assert lines[8] == {"type": "agent_stopped", "time": 100.0, "reason": "exit", "code": 0, "error": None}
