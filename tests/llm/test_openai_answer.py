"""Answers are read right from every kind of server that speaks OpenAI's format."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_recordings import answer_of, blocks_of, events, whole_answer_of

from actors.llm.base import CallEnd, CallStart, End, TextChunk, ThinkingChunk, UsageReport
from protocol.errors import ModelError
from protocol.items import TextPart, ThinkingPart, ToolCall
from protocol.usage import Usage


def delta(finish: str | None = None, **fields: object) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def call(
    index: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: object = None
) -> dict:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    sent = {"index": index, "id": call_id, "type": "function", "function": function}
    return {key: value for key, value in sent.items() if value is not None}


def calls(*pieces: dict, finish: str | None = None) -> str:
    return delta(finish, tool_calls=list(pieces))


STOP = delta("stop")


def test_text_comes_as_it_is_said():
    assert blocks_of(events(delta(content="Hel"), delta(content="lo"), STOP)) == [
        TextChunk("Hel"),
        TextChunk("lo"),
        End("end_turn"),
    ]


def test_content_in_the_finish_chunk_is_not_lost():
    assert answer_of(events(delta("stop", content="all"))).item.text == "all"


def test_bug_the_stop_reason_is_the_servers_own():
    wanted = {
        "stop": "end_turn",
        "length": "max_tokens",
        "content_filter": "content_filter",
        "tool_calls": "tool_use",
        "function_call": "tool_use",
    }
    for sent, reason in wanted.items():
        assert answer_of(events(delta(sent, content="x"))).stop_reason == reason


def test_a_finish_reason_that_is_empty_in_the_middle_ends_nothing():
    answer = answer_of(events(delta("", content="a"), delta(None, content="b"), STOP))
    assert answer.item.text == "ab"


def test_bug_finish_reason_stop_together_with_calls_is_a_tool_use():
    assert answer_of(events(calls(call(0, "a", "f", "{}")), STOP)).stop_reason == "tool_use"


def test_length_wins_over_calls():
    answer = answer_of(events(calls(call(0, "a", "f", '{"x":1}')), delta("length")))
    assert answer.stop_reason == "max_tokens"
    assert answer.item.calls == (ToolCall("a", "f", {"x": 1}),)


def test_bug_calls_are_kept_apart_by_index_though_later_pieces_have_no_id():
    answer = answer_of(
        events(
            calls(call(0, "a", "first", "")),
            calls(call(1, "b", "second", "")),
            calls(call(0, arguments='{"n":')),
            calls(call(1, arguments='{"m":')),
            calls(call(0, arguments="1}"), call(1, arguments="2}")),
            delta("tool_calls"),
        )
    )
    assert answer.item.calls == (ToolCall("a", "first", {"n": 1}), ToolCall("b", "second", {"m": 2}))


def test_bug_a_server_that_repeats_id_and_name_does_not_begin_the_call_again():
    blocks = blocks_of(
        events(
            calls(call(0, "a", "f", '{"x"')),
            calls(call(0, "a", "f", ":1}")),
            calls(call(0, "a", "f", "")),
            delta("tool_calls"),
        )
    )
    assert [block for block in blocks if isinstance(block, CallStart)] == [CallStart(0, "a", "f")]
    assert [block for block in blocks if isinstance(block, CallEnd)] == [CallEnd(0)]


def test_bug_calls_end_in_the_order_of_their_index():
    blocks = blocks_of(
        events(
            calls(call(2, "c", "f", "{}")),
            calls(call(0, "a", "f", "{}")),
            calls(call(1, "b", "f", "{}")),
            STOP,
        )
    )
    assert [block for block in blocks if isinstance(block, CallEnd)] == [CallEnd(0), CallEnd(1), CallEnd(2)]


def test_a_new_id_at_a_used_index_is_a_new_call_as_ollama_sends_them():
    answer = answer_of(
        events(
            calls(call(0, "a", "f", '{"n":1}')),
            calls(call(0, "b", "f", '{"n":2}')),
            calls(call(0, "c", "g", "{}")),
            STOP,
        )
    )
    assert answer.item.calls == (
        ToolCall("a", "f", {"n": 1}),
        ToolCall("b", "f", {"n": 2}),
        ToolCall("c", "g"),
    )


def test_whole_calls_at_one_index_without_ids_are_calls_of_their_own():
    answer = answer_of(
        events(calls(call(0, "", "f", '{"n":1}')), calls(call(0, "", "f", '{"n":2}')), delta("tool_calls"))
    )
    assert [each.arguments for each in answer.item.calls] == [{"n": 1}, {"n": 2}]


def test_calls_without_an_index_are_kept_apart_by_their_ids():
    answer = answer_of(events(calls(call(None, "a", "f", "{}"), call(None, "b", "g", "{}")), STOP))
    assert [each.id for each in answer.item.calls] == ["a", "b"]


def test_pieces_without_index_or_id_belong_to_the_last_call():
    answer = answer_of(
        events(calls(call(None, "a", "f", '{"x"')), calls(call(None, None, None, ":1}")), delta("tool_calls"))
    )
    assert answer.item.calls == (ToolCall("a", "f", {"x": 1}),)


def test_an_empty_id_is_replaced_by_one_that_is_unique():
    answer = answer_of(events(calls(call(0, "", "f", "{}"), call(1, "", "g", "{}")), STOP))
    ids = [each.id for each in answer.item.calls]
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", each) for each in ids)
    assert len(set(ids)) == 2


def test_the_same_id_at_two_indices_does_not_stay_the_same():
    answer = answer_of(events(calls(call(0, "a", "f", "{}"), call(1, "a", "g", "{}")), STOP))
    assert len({each.id for each in answer.item.calls}) == 2


def test_a_name_that_comes_late_or_empty_again_is_set_once():
    answer = answer_of(
        events(
            calls(call(0, "a", None, '{"x"')),
            calls(call(0, "", "read", ":")),
            calls(call(0, "", "", "1}")),
            delta("tool_calls"),
        )
    )
    assert answer.item.calls == (ToolCall("a", "read", {"x": 1}),)


NAMELESS = {
    "empty strings": {"tool_calls": [call(0, "", "", "")]},
    "nulls": {"tool_calls": [{"index": 0, "id": None, "type": None, "function": {"name": None}}]},
    "no function": {"tool_calls": [{"index": 0}]},
    "an id alone": {"tool_calls": [call(0, "a", None, "{}")]},
    "a function_call of empty strings": {"function_call": {"name": "", "arguments": ""}},
    "a function_call of nulls": {"function_call": {"name": None, "arguments": None}},
    "an empty function_call": {"function_call": {}},
}


@pytest.mark.parametrize("entry", NAMELESS.values(), ids=NAMELESS)
@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_an_entry_that_never_gets_a_name_is_no_call_and_the_text_is_the_answer(entry, finish):
    answer = answer_of(events(delta(content="hello", **entry), delta(finish)))
    assert (answer.item.text, answer.item.calls) == ("hello", ())
    sent = {"choices": [{"message": {"content": "hello", **entry}, "finish_reason": finish}]}
    assert whole_answer_of(json.dumps(sent).encode()).item == answer.item


@pytest.mark.parametrize("entry", NAMELESS.values(), ids=NAMELESS)
@pytest.mark.parametrize("thought", [{}, {"reasoning_content": "hm"}])
def test_an_answer_of_nothing_but_a_nameless_entry_is_an_error_that_says_so(entry, thought):
    with pytest.raises(ModelError, match="without a tool name") as caught:
        answer_of(events(delta(**thought, **entry), delta("tool_calls")))
    assert (caught.value.kind, caught.value.retryable) == ("protocol", True)


def test_arguments_for_a_tool_that_was_never_named_are_not_passed_over():
    with pytest.raises(ModelError, match="without a tool name"):
        answer_of(events(delta(content="I look."), calls(call(0, "a", None, '{"x":1}')), delta("tool_calls")))


def test_a_call_that_was_cut_before_its_name_is_no_call():
    answer = answer_of(events(delta(content="I"), calls(call(0, "a", None, "")), delta("length")))
    assert (answer.item.text, answer.item.calls, answer.stop_reason) == ("I", (), "max_tokens")


def test_a_nameless_entry_beside_a_call_is_no_call():
    answer = answer_of(events(calls(call(0, "a", "f", "{}"), call(1, "", "", "")), delta("tool_calls")))
    assert answer.item.calls == (ToolCall("a", "f"),)


PIECES = ['{"', "to", '": "bob', '"}']


def test_a_call_repeated_as_function_call_is_one_call():
    stream = [
        delta(tool_calls=[call(0, "a", "pay", piece)], function_call={"name": "pay", "arguments": piece})
        for piece in PIECES
    ]
    assert answer_of(events(*stream, delta("tool_calls"))).item.calls == (
        ToolCall("a", "pay", {"to": "bob"}),
    )
    function = {"name": "pay", "arguments": "".join(PIECES)}
    message = {"tool_calls": [{"id": "a", "function": function}], "function_call": function}
    sent = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    assert whole_answer_of(json.dumps(sent).encode()).item.calls == (ToolCall("a", "pay", {"to": "bob"}),)


@pytest.mark.parametrize("first", ["tool_calls", "function_call"])
def test_a_call_repeated_in_chunks_of_its_own_is_one_call(first):
    new = [calls(call(0, "a", "pay", piece)) for piece in PIECES]
    old = [delta(function_call={"name": "pay", "arguments": piece}) for piece in PIECES]
    stream = [*new, *old] if first == "tool_calls" else [*old, *new]
    assert answer_of(events(*stream, delta("tool_calls"))).item.calls == (
        ToolCall("a", "pay", {"to": "bob"}),
    )


def test_a_function_call_beside_an_empty_entry_is_the_call():
    stream = delta(tool_calls=[call(0, "", "", "")], function_call={"name": "pay", "arguments": "{}"})
    answer = answer_of(events(stream, delta("function_call")))
    assert [(each.name, each.arguments) for each in answer.item.calls] == [("pay", {})]


@pytest.mark.parametrize("name", [None, "", "look"])
def test_an_id_that_changes_after_the_first_piece_does_not_part_a_call(name):
    stream = [
        calls(call(0, "A", "look", "{")),
        calls(call(0, "B", name, '"path"')),
        calls(call(0, "C", name, ': "a.txt"}')),
        calls(call(0, "D", None, "")),
    ]
    answer = answer_of(events(*stream, delta("tool_calls")))
    assert answer.item.calls == (ToolCall("A", "look", {"path": "a.txt"}),)


def test_an_id_that_changes_before_the_arguments_began_does_not_part_a_call():
    stream = [calls(call(0, "A", "look", "")), calls(call(0, "B", None, '{"path": "a.txt"}'))]
    answer = answer_of(events(*stream, delta("tool_calls")))
    assert answer.item.calls == (ToolCall("A", "look", {"path": "a.txt"}),)


def test_calls_of_one_list_without_an_index_stay_apart_though_their_ids_are_equal():
    sent = {
        "choices": [{"message": {"tool_calls": [call(None, "a", "f", "{}"), call(None, "a", "g", "{}")]}}]
    }
    answer = whole_answer_of(json.dumps(sent).encode())
    assert [each.name for each in answer.item.calls] == ["f", "g"]
    assert len({each.id for each in answer.item.calls}) == 2


def test_bug_arguments_that_are_no_json_come_back_as_they_were():
    answer = answer_of(events(calls(call(0, "a", "f", "{not json")), delta("tool_calls")))
    assert answer.item.calls == (ToolCall("a", "f", {}, "{not json"),)


def test_a_call_cut_by_length_has_no_end_and_the_whole_ones_before_it_do():
    blocks = blocks_of(
        events(calls(call(0, "a", "f", "{}")), calls(call(1, "b", "g", '{"x": "y')), delta("length"))
    )
    assert [block for block in blocks if isinstance(block, CallEnd)] == [CallEnd(0)]


def test_a_call_cut_before_its_arguments_began_is_no_call_without_arguments():
    answer = answer_of(events(calls(call(0, "a", "f", "")), delta("length")))
    assert answer.item.calls == (ToolCall("a", "f", {}, ""),)


def test_bug_null_ids_object_arguments_and_listed_content_are_read():
    sent = {
        "choices": [
            {
                "message": {
                    "content": [{"type": "text", "text": "Look: "}, {"type": "text", "text": "done"}],
                    "tool_calls": [{"id": None, "function": {"name": "f", "arguments": {"x": [1]}}}],
                },
                "finish_reason": "tool_calls",
            }
        ]
    }
    answer = whole_answer_of(json.dumps(sent).encode())
    assert answer.item.text == "Look: done"
    assert answer.item.calls[0].arguments == {"x": [1]}


def test_bug_text_beside_calls_of_a_whole_answer_is_kept():
    sent = {
        "choices": [
            {
                "message": {"content": "I look.", "tool_calls": [call(None, "a", "f", "{}")]},
                "finish_reason": "tool_calls",
            }
        ]
    }
    answer = whole_answer_of(json.dumps(sent).encode())
    assert answer.item.text == "I look."
    assert answer.item.calls == (ToolCall("a", "f"),)


def test_two_calls_of_a_whole_answer_stay_two_though_the_first_is_broken():
    sent = {
        "choices": [{"message": {"tool_calls": [call(None, None, "f", "{"), call(None, None, "g", "{}")]}}]
    }
    answer = whole_answer_of(json.dumps(sent).encode())
    assert [(each.name, each.invalid) for each in answer.item.calls] == [("f", "{"), ("g", None)]


def test_a_message_without_role_with_empty_usage_and_another_model_is_read():
    sent = {
        "model": "other",
        "usage": {},
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
    }
    answer = whole_answer_of(json.dumps(sent).encode())
    assert (answer.item.text, answer.model, answer.usage) == ("hi", "other", None)


def test_the_old_function_call_is_read_as_a_call():
    answer = answer_of(
        events(
            delta(function_call={"name": "f", "arguments": '{"x"'}),
            delta(function_call={"arguments": ":1}"}),
            delta("function_call"),
        )
    )
    assert [(each.name, each.arguments) for each in answer.item.calls] == [("f", {"x": 1})]


@pytest.mark.parametrize("spelling", ["reasoning_content", "reasoning", "reasoning_text"])
def test_reasoning_in_any_spelling_is_no_part_of_the_text(spelling):
    answer = answer_of(events(delta(**{spelling: "hm"}), delta(content="yes"), STOP))
    assert answer.item.content == (ThinkingPart("hm"), TextPart("yes"))


def test_reasoning_given_in_two_spellings_at_once_is_taken_once():
    answer = answer_of(events(delta(reasoning_content="hm", reasoning="hm"), STOP))
    assert answer.item.content == (ThinkingPart("hm"),)


def test_reasoning_between_texts_keeps_its_place():
    blocks = blocks_of(
        events(delta(content="a"), delta(reasoning="hm"), delta(content="b"), delta(content="c"), STOP)
    )
    assert blocks[:4] == [TextChunk("a", 0), ThinkingChunk("hm", 1), TextChunk("b", 2), TextChunk("c", 2)]


def test_reasoning_in_listed_content_is_reasoning():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
    ]
    assert answer_of(events(delta(content=parts), STOP)).item.content == (ThinkingPart("hm"), TextPart("yes"))


def test_a_refusal_is_text_that_ends_as_a_refusal():
    answer = answer_of(events(delta(refusal="No."), STOP))
    assert (answer.item.text, answer.stop_reason) == ("No.", "refusal")


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_a_call_beside_a_refusal_does_not_make_it_an_answer(finish):
    answer = answer_of(events(delta(refusal="No.", tool_calls=[call(0, "a", "f", "{}")]), delta(finish)))
    assert (answer.item.text, answer.stop_reason) == ("No.", "refusal")


@pytest.mark.parametrize("thought", [{}, {"reasoning_content": "hm"}])
def test_an_answer_that_ends_for_its_calls_and_holds_none_is_an_error_that_says_so(thought):
    with pytest.raises(ModelError, match="neither a call nor text") as caught:
        answer_of(events(delta(**thought), delta("tool_calls")))
    assert (caught.value.kind, caught.value.retryable) == ("protocol", True)
    assert answer_of(events(delta(content="I looked."), delta("tool_calls"))).item.text == "I looked."


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([STOP, json.dumps({"choices": [], "usage": USAGE})], id="a chunk without choices"),
        pytest.param(
            [STOP, json.dumps({"choices": [{"index": 0, "delta": {}}], "usage": USAGE})], id="an empty delta"
        ),
        pytest.param(
            [json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})],
            id="the finish chunk",
        ),
        pytest.param(
            [json.dumps({"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]})],
            id="the choice",
        ),
        pytest.param(
            [
                json.dumps({"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 7}}),
                json.dumps(
                    {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
                ),
            ],
            id="in two halves",
        ),
    ],
)
def test_bug_usage_is_found_wherever_a_server_puts_it(chunks):
    assert answer_of(events(delta(content="x"), *chunks)).usage == Usage(7, 3)


@pytest.mark.parametrize(
    "sent",
    [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": None}],
)
def test_usage_that_nobody_reported_is_unknown_and_not_zero(sent):
    stop = json.loads(STOP) | {"usage": sent}
    assert answer_of(events(delta(content="x"), json.dumps(stop))).usage is None


@pytest.mark.parametrize(
    "sent",
    [
        {"prompt_tokens_details": {"cached_tokens": 5}},
        {"prompt_cache_hit_tokens": 5},
        {"cache_read_input_tokens": 5},
    ],
)
def test_cached_tokens_are_found_in_any_spelling(sent):
    chunk = json.dumps({"choices": [], "usage": USAGE | sent})
    assert answer_of(events(STOP, chunk)).usage == Usage(7, 3, 5)


def test_the_same_usage_sent_again_is_reported_once():
    chunk = json.dumps({"choices": [{"delta": {"content": "x"}}], "usage": USAGE})
    blocks = blocks_of(events(chunk, chunk, STOP))
    assert [block for block in blocks if isinstance(block, UsageReport)] == [UsageReport(Usage(7, 3))]


def test_bug_a_stream_without_its_done_mark_ends_once():
    blocks = blocks_of(events(calls(call(0, "a", "f", "{}")), STOP, done=False))
    assert [type(block).__name__ for block in blocks] == ["CallStart", "CallChunk", "CallEnd", "End"]


@pytest.mark.parametrize("done", [True, False])
def test_bug_a_stream_that_never_said_why_it_stopped_is_an_error(done):
    with pytest.raises(ModelError, match="before it was complete") as caught:
        blocks_of(events(delta(content="half"), done=done))
    assert (caught.value.kind, caught.value.retryable) == ("protocol", True)


def test_an_empty_stream_is_an_error_that_guesses_why():
    with pytest.raises(ModelError, match=r"no answer at all.*does not fit the context"):
        blocks_of(b"")


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ('{"error":{"message":"Overloaded","type":"overloaded_error"}}', "overloaded"),
        ('{"error":{"message":"slow down","code":429}}', "rate_limit"),
        ('{"error":{"message":"broke","code":"500","type":"None"}}', "server"),
        ('{"error":"it broke"}', "server"),
        (
            '{"object":"error","message":"prompt is too long","type":"BadRequestError","code":400}',
            "context_overflow",
        ),
        ('{"detail":"Internal Server Error"}', "server"),
        ('[{"error":{"code":503,"message":"high demand","status":"UNAVAILABLE"}}]', "overloaded"),
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_raised_behind_what_came_before(event, kind):
    with pytest.raises(ModelError) as caught:
        blocks_of(events(delta(content="half"), event, STOP))
    assert caught.value.kind == kind


def test_an_event_named_error_is_one_whatever_it_holds():
    with pytest.raises(ModelError, match="out of memory"):
        blocks_of(
            events(delta(content="half"), done=False)
            + b'event: error\ndata: {"message":"out of memory"}\n\n',
            b"",
        )
    with pytest.raises(ModelError, match="out of memory"):
        blocks_of(b"event: error\ndata: out of memory\n\n")


def test_a_finish_reason_error_is_an_error():
    with pytest.raises(ModelError, match="gave up"):
        blocks_of(events(delta("error", content="half")))


@pytest.mark.parametrize("event", ["garbage", '{"choices": [', '{"choices": {}}', '{"choices": [3]}'])
def test_an_event_that_cannot_be_read_is_an_error_and_not_passed_over(event):
    with pytest.raises(ModelError) as caught:
        blocks_of(events(delta(content="a"), event, STOP))
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize(
    "event",
    [
        "garbage",
        '{"choices": [',
        '{"choices": [3]}',
        '{"error": "the meter broke"}',
        '{"choices": [{"error": {}, "finish_reason": "error"}]}',
    ],
)
def test_nothing_that_comes_behind_the_finish_reason_fails_a_finished_answer(event):
    assert answer_of(events(delta(content="a"), STOP, event)).item.text == "a"


HALVES = {
    "a byte of another encoding": (b'"caf\xe9"', "caf\ufffd"),
    "half a character": (b'"hi \xf0\x9f"', "hi \ufffd"),
    "half a surrogate pair": (b'"hi \\ud83d!"', "hi \ufffd!"),
    "the other half": (b'"\\ude00"', "\ufffd"),
    "two halves in their places": (b'"\\ud83d\\ude00"', "\U0001f600"),
}


@pytest.mark.parametrize(("sent", "text"), HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("field", [b"content", b"reasoning_content", b"refusal"])
def test_broken_characters_are_replaced_and_the_rest_stands(sent, text, field):
    broken = b'{"choices":[{"index":0,"delta":{"' + field + b'":' + sent + b"}}]}"
    answer = answer_of(events(broken, delta(content="."), STOP))
    assert "".join(part.text for part in answer.item.content) == text + "."
    whole = b'{"choices":[{"message":{"content":' + sent + b'},"finish_reason":"stop"}]}'
    assert whole_answer_of(whole).item.text == text


def test_a_surrogate_pair_split_over_two_pieces_is_its_character():
    pieces = [b'{"choices":[{"delta":{"content":"%b"}}]}' % text for text in (rb"hi \ud83d", rb"\ude00!")]
    assert answer_of(events(*pieces, STOP)).item.text == "hi \U0001f600!"


def test_half_a_pair_that_nothing_follows_is_replaced():
    half = b'{"choices":[{"delta":{"content":"hi \\ud83d"}}]}'
    assert answer_of(events(half, STOP)).item.text == "hi \ufffd"
    answer = answer_of(events(half, delta(reasoning="hm"), delta(content="!"), STOP))
    assert answer.item.content == (TextPart("hi \ufffd"), ThinkingPart("hm"), TextPart("!"))


@pytest.mark.parametrize("pieces", [(rb"{\"path\": \"a\ud83d\"}",), (rb"{\"path\": \"a\ud83d", rb"\"}")])
def test_half_a_pair_in_arguments_is_replaced(pieces):
    chunk = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"%b"}}]}}]}'
    answer = answer_of(events(*(chunk % piece for piece in pieces), STOP))
    assert answer.item.calls == (ToolCall("c", "f", {"path": "a\ufffd"}),)


def test_half_a_pair_as_an_escape_within_the_arguments_is_replaced():
    answer = answer_of(
        events(calls(call(0, "c", "f", r'{"path": "a\ud83d", "\ude00": "\ud83d\ude00"}')), STOP)
    )
    assert answer.item.calls == (ToolCall("c", "f", {"path": "a\ufffd", "\ufffd": "\U0001f600"}),)


def test_broken_characters_in_names_and_ids_are_replaced():
    chunk = rb'{"model":"m\ud83d","choices":[{"delta":{"tool_calls":[{"index":0,"id":"\ud83d","function":{"name":"f\ude00","arguments":{"a\ud83d":1}}}]}}]}'
    answer = answer_of(events(chunk, STOP))
    assert answer.item.calls == (ToolCall("\ufffd", "f\ufffd", {"a\ufffd": 1}),)
    assert answer.model == "m\ufffd"


def test_half_an_event_at_the_end_is_none():
    finished = events(delta(content="hello"), STOP, done=False)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
    for end in range(len(usage)):
        assert answer_of(finished, usage[:end]).item.text == "hello"
    assert answer_of(finished, usage).usage == Usage(7, 3)
    for mark in (b"data: [DONE", b"data: [DONE]", b"data: [DONE]\n"):
        assert answer_of(finished, mark).item.text == "hello"


def test_half_an_event_of_an_answer_that_goes_on_is_an_answer_that_can_be_asked_for_again():
    stream = events(delta(content="hello"), delta(content="more"), done=False)
    for end in range(len(stream) - 2):
        with pytest.raises(ModelError) as caught:
            blocks_of(stream[:end])
        assert (caught.value.kind, caught.value.retryable) == ("protocol", True), end


def test_a_whole_answer_that_was_cut_can_be_asked_for_again():
    sent = b'{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}'
    for end in range(1, len(sent)):
        with pytest.raises(ModelError, match="before it was complete") as caught:
            whole_answer_of(sent[:end])
        assert caught.value.retryable


def test_blocks_before_an_error_are_given_first():
    from actors.llm.http.sse import SSEParser  # noqa: PLC0415
    from actors.llm.openai.answer import ChatAnswer  # noqa: PLC0415

    answer = ChatAnswer("here")
    blocks = answer.feed(
        SSEParser().feed(events(delta(content="half"), '{"error":"no"}', delta(content="lost")))
    )
    assert blocks == [TextChunk("half")]
    assert answer.failure is not None


def test_of_several_answers_the_first_is_taken():
    second = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]})
    assert answer_of(events(delta(content="yes"), second, STOP)).item.text == "yes"


def test_what_comes_behind_the_done_mark_is_not_read():
    assert answer_of(events(delta(content="a"), STOP) + events(delta(content="b"))).item.text == "a"


_texts = st.text(max_size=20)
_arguments = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)


@given(st.lists(st.tuples(_texts, _arguments), min_size=1, max_size=4), st.data())
def test_calls_cut_into_any_pieces_and_mixed_come_out_whole(wanted, data):
    pieces = []
    for index, (name, arguments) in enumerate(wanted):
        text = json.dumps(arguments)
        at = data.draw(st.integers(0, len(text)))
        pieces.append([call(index, f"id{index}", f"f{name}", text[:at]), call(index, None, None, text[at:])])
    order = data.draw(st.permutations(range(len(pieces))))
    stream = [calls(pieces[index][0]) for index in order] + [
        calls(pieces[index][1]) for index in reversed(order)
    ]
    answer = answer_of(events(*stream, delta("tool_calls")))
    assert answer.item.calls == tuple(
        ToolCall(f"id{index}", f"f{name}".strip(), arguments)
        for index, (name, arguments) in enumerate(wanted)
    )


_names = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "tool_calls",
        "function",
        "function_call",
        "index",
        "id",
        "name",
        "arguments",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "error",
        "model",
        "reasoning",
        "thinking",
        "text",
    ]
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(0, 5)
    | st.sampled_from(["", "{", "{}", "stop"])
)
_anything = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner), max_leaves=8
)
_delta = st.fixed_dictionaries(
    {},
    optional={
        "content": _anything,
        "reasoning": _anything,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": _leaves,
                    "id": _leaves,
                    "function": st.fixed_dictionaries({}, optional={"name": _leaves, "arguments": _anything}),
                },
            ),
            max_size=3,
        ),
    },
)
_chunk = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {}, optional={"delta": _delta, "message": _delta, "finish_reason": _leaves}
            ),
            max_size=2,
        ),
        "usage": _anything,
        "model": _leaves,
    },
)


@given(st.lists(_chunk | _anything, max_size=6), st.booleans())
def test_whatever_a_server_sends_ends_in_an_answer_or_a_clear_error(chunks, done):
    try:
        answer = answer_of(events(*(json.dumps(chunk) for chunk in chunks), done=done))
    except ModelError:
        return
    ids = [each.id for each in answer.item.calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    assert all(each.name for each in answer.item.calls)
