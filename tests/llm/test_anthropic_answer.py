"""Answers are read right from every kind of server that speaks Anthropic's messages."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages_kit import (
    END,
    HELLO,
    answer_of,
    argued,
    blocks_of,
    called,
    closed,
    event,
    opened,
    signed,
    start,
    stopped,
    text,
    thought,
    whole_answer_of,
)

from actors.llm.anthropic.answer import MessagesAnswer
from actors.llm.base import CallChunk, CallEnd, CallStart, End, TextChunk, ThinkingChunk, UsageReport
from actors.llm.http.sse import SSEParser
from protocol.errors import ModelError
from protocol.items import TextPart, ThinkingPart, ToolCall
from protocol.usage import Usage


def failure_of(*pieces: bytes) -> ModelError:
    with pytest.raises(ModelError) as caught:
        blocks_of(*pieces)
    return caught.value


# -- text and its end ----------------------------------------------------------------------------


def test_text_comes_as_it_is_said_with_usage_at_both_ends():
    assert blocks_of(HELLO) == [
        UsageReport(Usage(7)),
        TextChunk("Hel"),
        TextChunk("lo"),
        UsageReport(Usage(7, 3)),
        End("end_turn", "claude"),
    ]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("end_turn", "end_turn"),
        ("stop_sequence", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("a_reason_of_next_year", "end_turn"),
    ],
)
def test_the_stop_reason_is_the_servers_own(sent, reason):
    assert answer_of(start(), text("x"), stopped(sent), END).stop_reason == reason


def test_a_context_that_is_full_in_the_middle_of_an_answer_is_an_overflow():
    error = failure_of(start(), text("x"), stopped("model_context_window_exceeded"), END)
    assert (error.kind, error.retryable) == ("context_overflow", False)
    assert "context is full" in error.message


def test_text_before_an_overflow_was_given_out_already():
    answer = MessagesAnswer("w")
    stream = start() + text("x") + stopped("model_context_window_exceeded") + END
    assert TextChunk("x") in answer.feed(SSEParser().feed(stream))
    with pytest.raises(ModelError):
        answer.close()


def test_message_stop_alone_proves_success():
    assert answer_of(start(), text("x"), END).stop_reason == "end_turn"


def test_a_stop_reason_alone_proves_success():
    assert answer_of(start(), text("x"), stopped("max_tokens")).stop_reason == "max_tokens"


def test_a_stop_reason_that_is_null_in_the_middle_ends_nothing():
    assert failure_of(start(), stopped(None), text("x")).kind == "protocol"


def test_a_stream_that_ends_without_a_stop_reason_is_an_error():
    error = failure_of(start(), opened(0, "text"), text("x"), closed())
    assert (error.kind, error.retryable) == ("protocol", True)
    assert "before it was complete" in error.message


def test_a_stream_of_nothing_is_an_error_that_says_so():
    for stream in (b"", b": ping\n\n", event("ping")):
        assert "no answer at all" in failure_of(stream).message


def test_pings_comments_and_events_of_later_versions_are_passed_over():
    later = event("content_block_thaw", index=0) + b": alive\n\n" + event("ping")
    assert answer_of(later, HELLO.replace(END, later + END)).item.text == "Hello"


def test_what_comes_behind_the_end_is_not_looked_at():
    assert answer_of(HELLO, b"data: [DONE]\n\n", text("more")).item.text == "Hello"
    assert answer_of(HELLO.replace(END, b""), b"data: [DONE]\n\n").item.text == "Hello"


def test_an_event_that_is_not_json_is_an_error_of_protocol():
    assert failure_of(start(), b"data: <html>\n\n").kind == "protocol"
    assert failure_of(start(), b'data: {"type": \n\n').kind == "protocol"


# -- blocks that overlap -------------------------------------------------------------------------


def test_blocks_that_overlap_are_kept_apart_by_their_index():
    answer = answer_of(
        start(),
        opened(0, "text"),
        called(1, "read", "a"),
        called(2, "list", "b"),
        argued('{"p', 1),
        text("I ", 0),
        argued('{"d"', 2),
        argued('ath": "x"}', 1),
        text("look.", 0),
        argued(":1}", 2),
        closed(2),
        closed(0),
        closed(1),
        stopped("tool_use"),
        END,
    )
    assert answer.item.content == (TextPart("I look."),)
    assert answer.item.calls == (ToolCall("a", "read", {"path": "x"}), ToolCall("b", "list", {"d": 1}))


def test_blocks_keep_the_order_they_began_in():
    answer = answer_of(
        start(),
        opened(0, "thinking"),
        opened(1, "text"),
        text("b", 1),
        thought("a", 0),
        signed("s", 0),
        stopped(),
        END,
    )
    assert answer.item.content == (ThinkingPart("a", "s"), TextPart("b"))


def test_two_blocks_that_a_server_numbers_the_same_are_two():
    answer = answer_of(
        start(),
        opened(0, "thinking"),
        thought("a"),
        closed(),
        opened(0, "text"),
        text("b"),
        closed(),
        stopped(),
    )
    assert answer.item.content == (ThinkingPart("a"), TextPart("b"))


def test_a_call_that_moves_to_another_index_once_there_is_text_is_one_call():
    """llama-server does that: its calls are numbered behind a text that may begin after them."""
    answer = answer_of(
        start(),
        called(0, "read"),
        argued('{"a"'),
        opened(0, "text"),
        text("x", 0),
        argued(":1}", 1),
        stopped(),
    )
    assert answer.item.calls == (ToolCall("t1", "read", {"a": 1}, after=0),)
    assert answer.item.text == "x"


def test_text_without_a_beginning_is_text():
    assert answer_of(text("a"), text("b"), thought("c"), stopped()).item.content == (
        TextPart("ab"),
        ThinkingPart("c"),
    )


def test_arguments_of_a_call_that_never_began_are_an_error():
    assert "never started" in failure_of(start(), argued("{}"), stopped()).message


def test_text_that_stands_in_the_beginning_of_its_block_is_not_lost():
    assert answer_of(start(), opened(0, "text", text="a"), text("b"), stopped()).item.text == "ab"


# -- reasoning -----------------------------------------------------------------------------------


def test_reasoning_keeps_its_signature_for_replay():
    blocks = blocks_of(
        start(),
        opened(0, "thinking", thinking="", signature=""),
        thought("hm"),
        signed("EqQB"),
        stopped(),
        END,
    )
    assert blocks[:-1] == [ThinkingChunk("hm"), ThinkingChunk(signature="EqQB")]


def test_a_signature_in_pieces_is_one():
    answer = answer_of(
        start(), opened(0, "thinking"), thought("hm"), signed("Eq"), signed("QB"), stopped(), END
    )
    assert answer.item.content == (ThinkingPart("hm", "EqQB"),)


def test_reasoning_that_is_not_shown_has_its_signature_alone():
    answer = answer_of(start(), opened(0, "thinking"), signed("EqQB"), stopped(), END)
    assert answer.item.content == (ThinkingPart("", "EqQB"),)


def test_redacted_reasoning_is_kept_as_it_came():
    answer = answer_of(start(), opened(0, "redacted_thinking", data="b64"), closed(), stopped(), END)
    assert answer.item.content == (ThinkingPart("", None, "b64"),)


def test_citations_are_passed_over():
    cited = event("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {"url": "u"}})
    assert answer_of(start(), opened(0, "text"), text("a"), cited, stopped(), END).item.text == "a"


def test_tools_that_the_vendor_runs_itself_are_no_calls_of_ours():
    answer = answer_of(
        start(),
        opened(0, "server_tool_use", id="s", name="web_search", input={}),
        argued('{"query": "x"}', 0),
        closed(0),
        opened(1, "web_search_tool_result", tool_use_id="s", content=[]),
        opened(2, "text"),
        text("found", 2),
        stopped(),
        END,
    )
    assert (answer.item.text, answer.item.calls, answer.stop_reason) == ("found", (), "end_turn")


# -- calls ---------------------------------------------------------------------------------------


def test_a_call_is_reported_as_it_comes():
    blocks = blocks_of(
        start(), called(0, "read", input={}), argued(""), argued('{"a":1}'), closed(), stopped("tool_use")
    )
    assert blocks == [
        CallStart(0, "t1", "read", in_order=True),
        CallChunk(0, '{"a":1}'),
        CallEnd(0),
        End("tool_use", "claude"),
    ]


def test_a_call_without_arguments_has_none():
    answer = answer_of(start(), called(0, "list", input={}), argued(""), closed(), stopped("tool_use"), END)
    assert answer.item.calls == (ToolCall("t1", "list"),)


def test_arguments_that_came_whole_with_their_call_are_not_lost():
    answer = answer_of(start(), called(0, "read", input={"a": 1}), closed(), stopped("tool_use"), END)
    assert answer.item.calls == (ToolCall("t1", "read", {"a": 1}),)


def test_arguments_that_are_no_json_object_are_kept_as_the_text_they_are():
    answer = answer_of(start(), called(0, "read"), argued('["a"]'), closed(), stopped("tool_use"), END)
    assert answer.item.calls == (ToolCall("t1", "read", {}, '["a"]'),)


@pytest.mark.parametrize("pieces", [(), ("",), ("{}",), ("{",), ('{"path": "a',)])
@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_a_call_that_was_cut_is_not_complete(pieces, reason):
    blocks = blocks_of(start(), called(0, "read"), *map(argued, pieces), closed(), stopped(reason), END)
    assert CallEnd(0) not in blocks
    (call,) = answer_of(
        start(), called(0, "read"), *map(argued, pieces), closed(), stopped(reason)
    ).item.calls
    assert call.invalid is not None


def test_whole_calls_of_an_answer_that_was_cut_are_whole():
    answer = answer_of(
        start(),
        called(0, "list", "a"),
        closed(0),
        called(1, "read", "b"),
        argued('{"path":', 1),
        stopped("max_tokens"),
        END,
    )
    assert [call.invalid for call in answer.item.calls] == [None, '{"path":']


def test_a_call_that_was_whole_when_the_text_behind_it_was_cut_is_whole():
    answer = answer_of(
        start(), called(0, "list"), closed(0), opened(1, "text"), text("and", 1), stopped("max_tokens"), END
    )
    assert answer.item.calls == (ToolCall("t1", "list", after=0),)


def test_a_whole_call_at_the_end_of_an_answer_that_was_cut_is_whole():
    answer = answer_of(start(), called(0, "read"), argued('{"a":1}'), stopped("max_tokens"), END)
    assert answer.item.calls == (ToolCall("t1", "read", {"a": 1}),)


def test_the_presence_of_calls_decides_whatever_the_stop_reason_says():
    answer = answer_of(start(), called(0, "read"), argued('{"a":1}'), stopped("end_turn"), END)
    assert answer.stop_reason == "tool_use"


def test_ids_that_are_empty_or_reported_twice_are_made_anew():
    answer = answer_of(
        start(), called(0, "a", ""), called(1, "b", "x"), called(2, "c", "x"), stopped("tool_use"), END
    )
    ids = [call.id for call in answer.item.calls]
    assert ids[1] == "x"
    assert len(set(ids)) == 3
    assert all(ids)


# -- usage ---------------------------------------------------------------------------------------


def usage_of(first: dict, *later: dict) -> Usage | None:
    return answer_of(start(**first), text("x"), *(stopped(**each) for each in later), END).usage


def test_the_whole_prompt_is_counted_whatever_part_came_from_the_cache():
    sent = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}
    assert usage_of({**sent, "output_tokens": 1}, {"output_tokens": 5}) == Usage(111, 5, 100, 10)


def test_what_was_written_to_the_cache_for_an_hour_is_kept_apart():
    split = {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}
    sent = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_creation": split}
    assert usage_of(sent, {"output_tokens": 5}) == Usage(11, 5, None, 10, cache_write_1h_tokens=6)


def test_a_later_count_replaces_the_earlier_one():
    later = {"output_tokens": 5}, {"output_tokens": 9, "input_tokens": 20}
    assert usage_of({"input_tokens": 7}, *later) == Usage(20, 9)


def test_usage_that_comes_in_message_delta_alone_is_known():
    zeros = {"input_tokens": 0, "output_tokens": 0}
    assert usage_of(zeros, {"input_tokens": 12, "output_tokens": 3}) == Usage(12, 3)


def test_zeros_that_follow_a_count_do_not_undo_it():
    assert usage_of({"input_tokens": 12}, {"input_tokens": 0, "output_tokens": 3}) == Usage(12, 3)


def test_usage_that_nobody_reported_is_unknown_and_not_zero():
    zeros = {"input_tokens": 0, "output_tokens": 0}
    assert usage_of({}) is None
    assert usage_of(zeros, zeros) is None


def test_the_length_of_an_answer_is_unknown_until_it_has_ended():
    assert usage_of({"input_tokens": 12, "output_tokens": 1}) == Usage(12)


def test_usage_is_not_reported_twice():
    sent = {"input_tokens": 12, "output_tokens": 3}
    blocks = blocks_of(start(**sent), stopped(None, **sent), stopped(**sent), END)
    assert [block.usage for block in blocks if isinstance(block, UsageReport)] == [Usage(12), Usage(12, 3)]


# -- errors in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "rate_limit"),
        ("authentication_error", "auth"),
        ("permission_error", "auth"),
        ("billing_error", "billing"),
        ("not_found_error", "not_found"),
        ("request_too_large", "context_overflow"),
        ("invalid_request_error", "invalid_request"),
        ("timeout_error", "timeout"),
        ("api_error", "server"),
    ],
)
def test_an_error_after_success_is_classified_by_its_type(sent, kind):
    error = failure_of(start(), text("x"), event("error", error={"type": sent, "message": "sorry"}), END)
    assert error.kind == kind
    assert "sorry" in error.message


def test_an_error_event_without_its_wrapping_is_an_error():
    bare = b'event: error\ndata: {"code":500,"message":"slot is gone","type":"server_error"}\n\n'
    assert failure_of(start(), bare).kind == "server"


def test_what_was_said_before_an_error_was_given_out():
    answer = MessagesAnswer("w")
    stream = (
        start() + text("x") + event("error", error={"type": "overloaded_error", "message": ""}) + text("y")
    )
    assert answer.feed(SSEParser().feed(stream)) == [TextChunk("x")]
    assert answer.failure is not None


# -- whole answers -------------------------------------------------------------------------------


def whole(*content: dict, stop: str | None = "end_turn", **usage: int) -> dict:
    return {"type": "message", "model": "claude", "content": content, "stop_reason": stop, "usage": usage}


def test_a_whole_answer_is_read_like_a_stream():
    answer = whole_answer_of(
        whole(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "b64"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "read", "input": {"a": 1}},
            {"type": "tool_use", "id": "t2", "name": "list", "input": {}},
            stop="tool_use",
            input_tokens=3,
            cache_read_input_tokens=4,
            output_tokens=5,
        )
    )
    assert answer.item.content == (
        ThinkingPart("hm", "s"),
        ThinkingPart("", None, "b64"),
        TextPart("I look."),
    )
    assert answer.item.calls == (ToolCall("t1", "read", {"a": 1}), ToolCall("t2", "list"))
    assert (answer.stop_reason, answer.usage, answer.model) == ("tool_use", Usage(7, 5, 4), "claude")


@pytest.mark.parametrize("stop", [None, ""])
def test_a_whole_answer_without_a_stop_reason_has_come_to_its_end(stop):
    assert whole_answer_of(whole({"type": "text", "text": "x"}, stop=stop)).stop_reason == "end_turn"


def test_an_empty_call_at_the_end_of_a_whole_answer_that_was_cut_is_not_valid():
    call = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}
    assert whole_answer_of(whole(call, stop="max_tokens")).item.calls[0].invalid is not None
    assert whole_answer_of(whole(call, stop="tool_use")).item.calls[0].invalid is None


def test_an_error_as_a_whole_answer_with_status_200_is_an_error():
    with pytest.raises(ModelError) as caught:
        whole_answer_of({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    assert caught.value.kind == "overloaded"


def test_an_error_with_status_200_and_no_member_error_is_one():
    with pytest.raises(ModelError, match="404 NOT_FOUND"):
        whole_answer_of({"code": 500, "msg": "404 NOT_FOUND", "success": False})


@pytest.mark.parametrize(
    "body", [b"{}", b'{"type":"message"}', b'{"choices":[]}', b"[]", b'{"content": 3}', b'{"a']
)
def test_a_whole_answer_that_is_none_is_an_error_of_protocol(body):
    with pytest.raises(ModelError) as caught:
        whole_answer_of(body)
    assert caught.value.kind == "protocol"


# -- typed answers -------------------------------------------------------------------------------


def test_the_arguments_of_the_answer_tool_are_the_text_of_the_answer():
    stream = (
        start(),
        called(0, "final_answer"),
        argued('{"n"'),
        argued(": 1}"),
        closed(),
        stopped("tool_use"),
        END,
    )
    assert blocks_of(*stream, answer_tool="final_answer") == [
        TextChunk('{"n"'),
        TextChunk(": 1}"),
        End("end_turn", "claude"),
    ]
    assert answer_of(*stream).stop_reason == "tool_use"  # to whoever did not ask for it it is a call


def test_a_typed_answer_that_came_whole_is_text_too():
    call = {"type": "tool_use", "id": "t1", "name": "final_answer", "input": {"n": 1}}
    answer = whole_answer_of(whole(call, stop="tool_use"), answer_tool="final_answer")
    assert (answer.item.text, answer.item.calls, answer.stop_reason) == ('{"n":1}', (), "end_turn")


def test_a_typed_answer_beside_a_call_waits_for_the_call():
    answer = answer_of(
        start(),
        called(0, "read", "a"),
        argued('{"p":1}', 0),
        called(1, "final_answer", "b"),
        argued('{"n":1}', 1),
        stopped("tool_use"),
        END,
        answer_tool="final_answer",
    )
    assert (len(answer.item.calls), answer.stop_reason) == (1, "tool_use")


def test_a_typed_answer_that_was_cut_says_so():
    answer = answer_of(
        start(),
        called(0, "final_answer"),
        argued('{"n"'),
        stopped("max_tokens"),
        END,
        answer_tool="final_answer",
    )
    assert (answer.item.text, answer.stop_reason) == ('{"n"', "max_tokens")


# -- anything at all -----------------------------------------------------------------------------

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "x", "tool_use", "text"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "id"]), inner)
    ),
    max_leaves=4,
)
_events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message_start", "content_block_start", "content_block_delta", "message_delta", "x"]
        )
    },
    optional={
        "index": _values,
        "delta": st.dictionaries(
            st.sampled_from(["type", "text", "partial_json", "thinking", "signature", "stop_reason"]), _values
        ),
        "content_block": st.dictionaries(
            st.sampled_from(["type", "text", "id", "name", "input", "data", "thinking"]), _values
        ),
        "message": _values,
        "usage": _values,
        "error": _values,
    },
)


@given(st.lists(_events, max_size=8))
def test_whatever_a_server_sends_gives_blocks_or_a_model_error(sent):
    stream = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in sent)
    with contextlib.suppress(ModelError):
        answer_of(stream)


@given(
    _values, _values, st.lists(_values | st.dictionaries(st.sampled_from(["type", "input", "text"]), _values))
)
def test_whatever_a_server_sends_as_a_whole_gives_blocks_or_a_model_error(usage, stop, content):
    with contextlib.suppress(ModelError):
        whole_answer_of({"content": content, "usage": usage, "stop_reason": stop, "model": stop})


# -- what is broken ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", None])
@pytest.mark.parametrize("stop", ["end_turn", "tool_use"])
def test_a_call_that_never_gets_a_name_is_no_call_and_the_text_is_the_answer(name, stop):
    answer = answer_of(
        start(), opened(0, "text"), text("hello"), called(1, name, input={}), stopped(stop), END
    )
    assert (answer.item.text, answer.item.calls) == ("hello", ())


def test_an_answer_of_nothing_but_a_nameless_call_is_an_error_that_says_so():
    error = failure_of(start(), opened(0, "thinking"), thought("hm"), called(1, ""), stopped("tool_use"), END)
    assert (error.kind, error.retryable) == ("protocol", True)
    assert "without a tool name" in error.message


@pytest.mark.parametrize("thinks", [[], [opened(0, "thinking"), thought("hm")]])
def test_an_answer_that_ends_for_its_calls_and_holds_none_is_an_error_that_says_so(thinks):
    error = failure_of(start(), *thinks, stopped("tool_use"), END)
    assert (error.kind, error.retryable) == ("protocol", True)
    assert "neither a call nor text" in error.message


@pytest.mark.parametrize("given", [{"input": {"x": 1}}, {}])
def test_arguments_for_a_tool_that_was_never_named_are_not_passed_over(given):
    pieces = [] if given else [argued('{"x":1}', 1)]
    begun = [start(), opened(0, "text"), text("I look."), called(1, "", **given), *pieces]
    assert "without a tool name" in failure_of(*begun, stopped("tool_use"), END).message
    assert answer_of(*begun, stopped("max_tokens"), END).item.text == "I look."


@pytest.mark.parametrize(
    "broken", [b"data: garbage\n\n", b'data: {"type": \n\n', event("error", error={"type": "api_error"})]
)
def test_nothing_that_comes_behind_the_stop_reason_fails_a_finished_answer(broken):
    assert answer_of(HELLO.replace(END, broken)).item.text == "Hello"


def test_half_an_event_at_the_end_is_none():
    body = HELLO.removesuffix(END)
    for end in range(len(END)):
        assert answer_of(body, END[:end]).item.text == "Hello"
    until = HELLO.index(b"event: message_delta")
    for end in range(until):
        assert failure_of(HELLO[:end]).retryable


def test_a_whole_answer_that_was_cut_can_be_asked_for_again():
    sent = json.dumps(whole({"type": "text", "text": "hello"})).encode()
    for end in range(1, len(sent)):
        with pytest.raises(ModelError, match="before it was complete") as caught:
            whole_answer_of(sent[:end])
        assert caught.value.retryable


def raw_delta(sent: bytes, index: int = 0) -> bytes:
    return b'data: {"type":"content_block_delta","index":%d,"delta":{%b}}\n\n' % (index, sent)


def test_broken_characters_are_replaced_and_the_rest_stands():
    answer = answer_of(
        start(),
        opened(0, "thinking"),
        raw_delta(rb'"thinking":"h\ud83d"'),
        opened(1, "text"),
        raw_delta(b'"text":"caf\xe9 "', 1),
        raw_delta(rb'"text":"hi \ud83d"', 1),
        called(2, "f"),
        raw_delta(rb'"partial_json":"{\"path\": \"\ud83d"', 2),
        raw_delta(rb'"text":"\ude00!"', 1),
        raw_delta(rb'"partial_json":"\ude00\ud83d\"}"', 2),
        stopped("tool_use"),
        END,
    )
    assert answer.item.content == (ThinkingPart("h\ufffd"), TextPart("caf\ufffd hi \U0001f600!"))
    assert answer.item.calls == (ToolCall("t1", "f", {"path": "\U0001f600\ufffd"}),)


def test_broken_characters_in_names_ids_and_given_arguments_are_replaced():
    call = rb'{"type":"tool_use","id":"t\ud83d","name":"f\ude00","input":{"a\ud83d":"\ude00"}}'
    answer = whole_answer_of(b'{"type":"message","content":[%b],"stop_reason":"tool_use"}' % call)
    assert answer.item.calls == (ToolCall("t\ufffd", "f\ufffd", {"a\ufffd": "\ufffd"}),)
