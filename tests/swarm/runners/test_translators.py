"""What real programs printed, as events: every recording, cut anywhere, and garbled."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.swarm.runners.claude_format import ClaudeTranslator
from actors.swarm.runners.codex_format import CodexTranslator
from actors.swarm.runners.lines import LineTranslator
from actors.swarm.runners.stream import Recorder
from polypod import (
    AgentOutput,
    Alert,
    AssistantMessage,
    Event,
    Retry,
    RunEnd,
    StreamRestart,
    TextDelta,
    ToolResulted,
    ToolStart,
    Usage,
    UsageUpdate,
    UserMessage,
)
from tests.swarm.runner_kit import names, one
from tests.swarm.runners.recordings import NAMES, ends, events_of, plain, printed, read, texts, translator_of

HELLO = "Hello from the fake model."
#: How each recorded run ended, with the kind of its error; None where the program never said.
ENDS: dict[str, tuple[str, str] | None] = {
    "claude_e401_retries1": ("failed", "auth"),
    "claude_e429_retries1": ("failed", "rate_limit"),
    "claude_interrupted": ("cancelled", ""),
    "claude_max_turns": ("limit_reached", ""),
    "claude_overflow": ("failed", "context_overflow"),
    "codex_cutstream": ("failed", ""),
    "codex_e401": ("failed", "auth"),
    "codex_e429": ("failed", "rate_limit"),
    "codex_midstream": ("failed", ""),
    "codex_overflow": ("failed", "context_overflow"),
    "gemini_cutstream": ("failed", ""),
    "gemini_e401": ("failed", "auth"),
    "gemini_e429": None,
    "gemini_midstream": ("failed", ""),
    "gemini_overflow": ("failed", "context_overflow"),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_their_api_is_never_reported_as_success(name: str):
    found = [event for event in events_of(name) if isinstance(event, RunEnd)]
    expected = ENDS.get(name, ("finished", ""))
    if expected is None:
        assert not found
        return
    outcome, kind = expected
    assert found[0].outcome == outcome
    assert (found[0].error is not None) == (outcome in {"failed", "limit_reached"})
    if found[0].error is not None:
        assert found[0].error.details.get("kind", "") == kind


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENDS])
def test_the_answer_of_a_run_that_went_well_is_there_once(name: str):
    events = events_of(name)
    runs, said = [[]], ""  # type: ignore[var-annotated]
    for event in events:
        if isinstance(event, RunEnd):
            runs.append([])
        elif isinstance(event, AssistantMessage) and event.item.text:
            runs[-1].append(event.item.text.strip())
            said = event.item.text
    assert said.strip() == HELLO
    for run in runs[:-1]:  # a text before each call of a tool, and one at the end
        assert set(run) == {HELLO}
        assert len(run) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_a_tool_has_its_result(name: str):
    events = events_of(name)
    started = [event.call_id for event in events if isinstance(event, ToolStart)]
    made = [call.id for event in events if isinstance(event, AssistantMessage) for call in event.item.calls]
    got = [event.item for event in events if isinstance(event, ToolResulted)]
    assert started == made == [item.call_id for item in got]
    assert all(item.name for item in got)
    failing = name in {"claude_toolfail", "claude_toolw_denied", "claude_interrupted"}
    failing |= name in {"codex_toolfail", "gemini_badtool"}
    assert [item.is_error for item in got] == [failing] * len(got)


def test_what_a_tool_gave_is_in_its_result():
    for name in ("claude_tool", "codex_tool", "gemini_tool"):
        assert one(events_of(name), ToolResulted).item.text.strip() == "hi-from-tool"
    assert one(events_of("codex_toolfail"), ToolResulted).item.text == "some-output\nexit code 3"


# -- usage -----------------------------------------------------------------------------------------


def test_usage_is_of_the_whole_prompt_and_of_one_run():
    ends = [event for event in events_of("claude_two_results") if isinstance(event, RunEnd)]
    assert [end.usage for end in ends] == [Usage(2110, 17, 2000, 100)] * 2
    assert [round(end.cost or 0, 6) for end in ends] == [0.0021] * 2
    assert one(events_of("codex_tool"), RunEnd).usage == Usage(200, 14, 160, 0)
    assert one(events_of("gemini_tool"), RunEnd).usage == Usage(200, 14, 160)


def test_usage_of_codex_is_of_its_conversation_and_without_what_is_known_of_before():
    for before, expected in (
        (Usage(150, 4, 60), Usage(50, 10, 100, 0)),
        (Usage(), Usage(200, 14, 160, 0)),
        (Usage(900, 90), Usage(200, 14, 160, 0)),  # it has begun to count anew
        (None, Usage()),
    ):
        recorder = Recorder("a-1")
        recorder.begin_run("hi")
        events = read(CodexTranslator(recorder, used=before), [printed("codex_tool")])
        assert one(events, RunEnd).usage == expected


def test_usage_counts_what_was_asked_for_again_without_streaming():
    end = next(event for event in events_of("claude_fallback") if isinstance(event, RunEnd))
    assert end.usage == Usage(2110, 7, 2000, 100)


@pytest.mark.parametrize("name", ["claude_e401_retries1", "codex_e401", "gemini_e401", "gemini_midstream"])
def test_usage_that_is_not_known_is_null(name: str):
    events = events_of(name)
    end = one(events, RunEnd)
    assert (end.usage, end.cost) == (Usage(), None)
    assert not [event for event in events if isinstance(event, UsageUpdate)]


# -- retries ---------------------------------------------------------------------------------------


def test_retries_of_theirs_are_no_errors():
    for name, attempts in {
        "claude_e429_retries1": [1],
        "codex_e429": [1, 2, 3, 4, 5],
        "gemini_e429": [1, 2, 3],
    }.items():
        retries = [event for event in events_of(name) if isinstance(event, Retry)]
        assert [event.attempt for event in retries] == attempts
        assert {event.error.details.get("kind") for event in retries} == {"rate_limit"}


def test_text_that_is_printed_again_is_not_doubled():
    events = events_of("gemini_midstream")
    assert [event.item.text for event in events if isinstance(event, AssistantMessage)] == ["Hello "]
    assert one(events, AssistantMessage).item.cut
    assert len([event for event in events if isinstance(event, StreamRestart)]) == 3
    assert [event.attempt for event in events if isinstance(event, TextDelta)] == [1, 2, 3, 4]


def test_what_was_shown_of_an_answer_that_broke_off_is_void():
    events = events_of("claude_fallback")
    kinds = [each for each in names(events) if each in {"TextDelta", "StreamRestart", "AssistantMessage"}]
    assert kinds == ["TextDelta", "StreamRestart", "AssistantMessage"] * 2
    assert not [event for event in events_of("claude_text_partial") if isinstance(event, StreamRestart)]


# -- claude: many runs on one connection -----------------------------------------------------------


def test_words_that_joined_a_run_are_in_its_end_and_those_that_came_too_late_begin_the_next():
    assert ends(events_of("claude_joined")) == ["finished"]
    events = events_of("claude_too_late")
    assert ends(events) == ["finished", "finished"]
    assert [each for each in names(events) if each in {"RunStart", "RunEnd"}] == [
        "RunEnd",
        "RunStart",
        "RunEnd",
    ]


def test_a_question_for_a_permission_is_handed_on():
    translator = translator_of("claude_permission")
    read(translator, [printed("claude_permission")])
    [ask] = translator.take_asked()
    assert ask.question["tool_name"] == "Bash"
    assert not translator.take_asked()


def test_sub_agents_of_claude_show_only_as_tools():
    line = {"type": "assistant", "parent_tool_use_id": "toolu_1", "message": {"content": [{"type": "text"}]}}
    assert not translator_of("claude_text").feed(json.dumps(line).encode() + b"\n")


def test_a_warning_of_codex_is_an_alert():
    assert "fallback metadata" in one(events_of("codex_text"), Alert).text


@pytest.mark.parametrize("name", NAMES)
def test_a_program_says_by_what_it_is_resumed(name: str):
    translator = translator_of(name)
    assert not translator.is_ready
    read(translator, [printed(name)])
    assert translator.is_ready
    assert re.fullmatch(r"[0-9a-f-]{36}", translator.session or "")


# -- our own lines ---------------------------------------------------------------------------------

AGENT = [
    {"type": "agent_ready", "time": 1.0, "version": "1", "session": "s-1"},
    {"type": "user_message", "content": "hi"},
    {"type": "turn_start", "step": 1},
    {"type": "text_delta", "text": "Hel"},
    {"type": "tool_call", "id": "c1", "name": "shell", "arguments": {"command": "ls"}},
    {"type": "tool_result", "id": "c1", "content": "a.txt"},
    {"type": "turn_end", "stop": "tool_use"},
    {"type": "usage", "input_tokens": 3, "output_tokens": 2},
    {"type": "assistant_message", "content": [{"type": "text", "text": "Hello"}]},
    {"type": "turn_end", "step": 1},
    {"type": "agent_stopped", "reason": "idle"},
]


def agent_lines(lines: list[dict[str, object]], sent: str = "hi") -> list[Event]:
    translator = translator_of("agent")
    translator.sent.append(sent)  # type: ignore[attr-defined]
    return read(translator, [json.dumps(line).encode() + b"\n" for line in lines])


def test_lines_of_our_own_make_a_run():
    events = agent_lines(AGENT)
    assert names(events) == [
        *("TurnStart", "TextDelta", "AssistantMessage", "ToolStart", "ToolResulted"),
        *("UsageUpdate", "AssistantMessage", "RunEnd"),
    ]
    assert one(events, RunEnd).usage == Usage(3, 2)
    assert texts(events) == ["Hello"]


def test_between_the_tools_of_a_turn_no_run_ends():
    assert ends(agent_lines(AGENT[:7])) == []


@pytest.mark.parametrize("name", ["error", "message"])
def test_an_error_is_read_by_either_name_and_fails_its_run(name: str):
    events = agent_lines([{"type": "error", name: "busy"}, {"type": "turn_end", "step": 1}])
    assert one(events, Alert).text == "busy"
    assert ends(events) == ["failed"]
    events = agent_lines([{"type": "turn_end", "step": 1, "error": {"message": "no model"}}])
    assert "no model" in (one(events, RunEnd).error or "")


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ({"outcome": "cancelled"}, "cancelled"),
        ({"outcome": "limit_reached", "error": "no more steps"}, "limit_reached"),
        ({"outcome": "refused", "error": None}, "refused"),
        ({"outcome": "failed"}, "failed"),
        ({"outcome": "finished", "error": "it lies"}, "failed"),
        ({"outcome": "wonderful"}, "finished"),
        ({}, "finished"),
    ],
)
def test_a_turn_ends_as_its_line_says(end: dict[str, object], outcome: str):
    assert ends(agent_lines([{"type": "turn_end", "step": 1, **end}])) == [outcome]


def test_what_another_sent_to_a_program_is_recorded_whole():
    events = agent_lines([{"type": "user_message", "content": "one\ntwo"}])
    assert one(events, UserMessage).item.text == "one\ntwo"


def test_a_line_of_a_type_that_is_not_known_is_kept():
    line = {"type": "weather", "sun": True}
    assert json.loads(one(agent_lines([line]), AgentOutput).text) == line


# -- lines that are cut and garbled ----------------------------------------------------------------


@given(st.data())
def test_bytes_may_be_cut_anywhere(data: st.DataObject):
    name = data.draw(st.sampled_from(NAMES))
    whole = printed(name)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert plain(read(translator_of(name), pieces)) == plain(read(translator_of(name), [whole]))


@given(st.data())
def test_garbled_bytes_raise_nothing_and_end_no_run_twice(data: st.DataObject):
    name = data.draw(st.sampled_from(NAMES))
    whole = bytearray(printed(name))
    for _ in range(data.draw(st.integers(1, 20))):
        if whole:
            where = data.draw(st.integers(0, len(whole) - 1))
            whole[where : where + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=4))
    events = read(translator_of(name), [bytes(whole)])
    starts = names(events).count("RunStart") + 1
    assert len(ends(events)) <= starts


def mixed(value: object, data: st.DataObject) -> object:
    """``value`` with some of what is in it of another type."""
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}))
    if isinstance(value, dict):
        return {key: mixed(inner, data) if key != "type" else inner for key, inner in value.items()}
    if isinstance(value, list):
        return [mixed(inner, data) for inner in value]
    return value


@given(st.data())
def test_values_of_other_types_raise_nothing(data: st.DataObject):
    name = data.draw(st.sampled_from(NAMES))
    lines = [mixed(json.loads(line), data) for line in printed(name).splitlines()]
    plain(read(translator_of(name), [json.dumps(line).encode() + b"\n" for line in lines]))


@given(st.data())
def test_our_own_lines_may_have_values_of_other_types_too(data: st.DataObject):
    lines = [mixed(line, data) for line in AGENT]
    plain(read(translator_of("agent"), [json.dumps(line).encode() + b"\n" for line in lines]))


@pytest.mark.parametrize("name", ["claude_text", "codex_text", "gemini_text"])
def test_a_malformed_line_is_shown_and_passed_over(name: str):
    lines = printed(name).split(b"\n")
    bad = [
        b"\x00\xff{",
        b'{"type":"assist',
        b"[1]",
        b'{"no":"type"}',
        b'{"type":7}',
        b"npm warn \xe2\x80\xa8 old",
    ]
    for each in bad:
        events = read(translator_of(name), [b"\n".join([lines[0], each, *lines[1:]])])
        assert one(events, AgentOutput).stream == "stdout"
        assert ends(events) == ["finished"]
        assert one(events, AssistantMessage).item.text.strip() == HELLO


def test_a_line_that_is_too_long_is_passed_over_wherever_it_is_cut():
    for size in (1, 7, 1000):
        whole = b"x" * 500 + b"\n" + printed("codex_text")
        translator = translator_of("codex_text", limit=400)
        events = read(translator, [whole[at : at + size] for at in range(0, len(whole), size)])
        assert "400 bytes" in one(events, AgentOutput).text
        assert ends(events) == ["finished"]


def test_a_last_line_without_an_end_counts():
    assert ends(read(translator_of("codex_text"), [printed("codex_text").rstrip(b"\n")])) == ["finished"]


def test_a_result_without_a_run_ends_nothing():
    translator: LineTranslator = translator_of("claude_text")
    read(translator, [printed("claude_text")])
    assert isinstance(translator, ClaudeTranslator)
    translator.unanswered = 0
    assert not ends(read(translator, [printed("claude_text")]))
