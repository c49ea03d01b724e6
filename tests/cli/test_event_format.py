"""Event format: every event and entry has one, and it says what matters."""

from typing import Any

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from protocol_strategies import structs

from actors.cli.display import event_format as lines
from protocol import events
from protocol.entries import ENTRIES, ItemsKept, MemoryPointer, Parent, SessionOpened
from protocol.errors import Failure
from protocol.items import AssistantItem, ToolCall, ToolResult, UserItem
from protocol.usage import Usage

WHERE: dict[str, Any] = {"pod": "p", "session_id": "s", "seq": 1, "at": 0.0}
CALL = ToolCall("1", "read", {"path": "a.txt"})


@settings(max_examples=times(4), suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("kind", events.TRANSIENT_EVENTS)
@given(data=st.data())
def test_every_transient_event_is_one_line_in_a_known_tone(kind: Any, data: Any):
    tone, text = lines.event_line(data.draw(structs(kind)))
    assert tone in lines.TONES
    assert "\n" not in text


@settings(max_examples=times(4), suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("kind", ENTRIES)
@given(data=st.data())
def test_every_entry_is_one_line_in_a_known_tone(kind: Any, data: Any):
    tone, text = lines.entry_line(data.draw(structs(kind)))
    assert tone in lines.TONES
    assert "\n" not in text


def said(event: events.Event) -> str:
    return lines.event_line(event).text


def test_a_result_names_its_call_its_size_and_its_time():
    result = ToolResult.of(CALL, "é" * 600)
    assert lines.result_line(result, CALL, 0.003) == ("tool", "✓ read(path='a.txt') → 1.2 kB, 3 ms")


def test_a_result_that_was_cut_says_where_the_whole_is():
    result = ToolResult.of(CALL, "x", kept="/tmp/whole")
    assert lines.result_line(result, CALL, None).text == "✓ read(path='a.txt') → 1 B, whole in /tmp/whole"


def test_a_refused_call_says_why():
    result = ToolResult.of(CALL, "outside of\nthe scope", is_error=True)
    assert lines.result_line(result, CALL, 0.1) == ("error", "✗ read(path='a.txt') → outside of the scope")


def test_a_call_that_was_no_json_shows_what_it_was():
    assert lines.call_words(ToolCall("1", "read", {}, '{"path": ')) == 'read({"path":)'


def test_an_answer_shows_its_words_and_then_its_calls():
    item = AssistantItem.of("Let me look.", (CALL,))
    assert said(events.AssistantMessage(**WHERE, item=item)) == "Let me look. ▸ read(path='a.txt')"


def test_words_of_a_user_say_how_they_came():
    item = UserItem.of("hi")
    assert said(events.UserMessage(**WHERE, item=item)) == "hi"
    assert said(events.UserMessage(**WHERE, item=item, source="steer")) == "(steer) hi"


def test_the_end_of_a_run_says_outcome_cost_and_cause():
    ended = events.RunEnd(
        **WHERE, outcome="limit_reached", steps=2, usage=Usage(5, 1), error=Failure("X", "too long")
    )
    assert said(ended) == "run limit reached, 2 requests, 5 tokens in, 1 out: too long"


def test_a_retry_says_when_and_why():
    retry = events.Retry(**WHERE, attempt=1, wait=2.0, error=Failure("ModelError", "busy", "wait"))
    assert said(retry) == "trying again in 2.0 s: busy"


def test_a_session_knows_where_it_comes_from():
    parent = Parent("compacted_from", "s0", "00", 7)
    opened = SessionOpened(session_id="s", seq=1, at=0.0, pod="p", manifest=Raw(b"{}"), parent=parent)
    assert lines.entry_line(opened).text == "session opened for pod p, compacted from s0"
    assert lines.entry_line(ItemsKept(seq=1, at=0.0, items=(UserItem.of("a"),))).text == "1 item taken over"
    assert lines.entry_line(MemoryPointer(seq=1, at=0.0, pointer=3)).text == "memory has read 3 items"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"approved": True, "by": "person", "arguments": {}}, "approved by a person, with changed arguments"),
        ({"approved": False, "by": "person", "note": "not her"}, "denied by a person: not her"),
        ({"approved": False, "by": "steer", "note": "stop"}, "denied by a steering message: stop"),
        ({"approved": False, "by": "run"}, "not run: its run is over"),
    ],
)
def test_the_line_of_an_answer_says_what_a_person_said_or_that_nobody_did(said: dict[str, Any], line: str):
    assert lines.event_line(events.ApprovalResolved(**WHERE, approval_id="a", **said)).text.endswith(line)
