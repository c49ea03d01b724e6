"""What servers send twice, elsewhere or in words of their own is taken as it was meant."""

import json

import pytest
from llm_recordings import answer_of, events

from actors.llm.base import Answer
from actors.llm.http.answers import failure_of, stop_of
from protocol.errors import ModelError
from protocol.items import ToolCall
from protocol.usage import Usage


def delta(finish: str | None = None, **fields: object) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def call(index: int | None, id_: str | None, name: str | None, arguments: str) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    sent = {"index": index, "id": id_, "function": {k: v for k, v in function.items() if v is not None}}
    return {key: value for key, value in sent.items() if value is not None}


def calls_of(*pieces: dict[str, object]) -> tuple[ToolCall, ...]:
    return answer_of(events(*(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls"))).item.calls


FILE_A = ToolCall("c1", "look", {"path": "a"})


@pytest.mark.parametrize("index", [0, None])
def test_a_call_that_is_sent_whole_once_more_is_one_call(index: int | None):
    again = call(index, "c1", "look", '{"path":"a"}')
    assert calls_of(again, again) == (FILE_A,)
    assert calls_of(call(index, "c1", "look", '{"pa'), call(index, None, None, 'th":"a"}'), again) == (
        FILE_A,
    )


def test_the_same_call_under_another_id_is_another():
    one, other = call(0, "c1", "look", '{"path":"a"}'), call(1, "c2", "look", '{"path":"a"}')
    assert calls_of(one, other) == (FILE_A, ToolCall("c2", "look", {"path": "a"}))


def test_a_call_whose_index_changes_goes_on_under_its_id():
    assert calls_of(call(0, "c1", "look", '{"pa'), call(1, "c1", None, 'th":"a"}')) == (FILE_A,)


def test_blanks_around_a_tools_name_are_no_part_of_it():
    assert calls_of(call(0, "c1", " look\n", '{"path":"a"}')) == (FILE_A,)
    spoken = answer_of(
        events(delta(content="hello"), delta(tool_calls=[call(0, "c1", "  ", "{}")]), delta("stop"))
    )
    assert (spoken.item.text, spoken.item.calls) == ("hello", ())


def test_arguments_that_were_written_as_json_twice_are_read_twice_and_no_further():
    once = json.dumps({"path": "a"})
    assert calls_of(call(0, "c1", "look", json.dumps(once))) == (FILE_A,)
    [thrice] = calls_of(call(0, "c1", "look", json.dumps(json.dumps(once))))
    assert thrice.invalid == json.dumps(json.dumps(once))
    [words] = calls_of(call(0, "c1", "look", '"a.txt"'))
    assert words.invalid == '"a.txt"'


def test_a_bare_line_end_in_arguments_is_one():
    assert calls_of(call(0, "c1", "write", '{"text":"a\nb"}')) == (ToolCall("c1", "write", {"text": "a\nb"}),)


def test_a_message_that_repeats_what_came_in_pieces_is_not_said_twice():
    whole = {"role": "assistant", "content": "hello"}
    last = json.dumps({"choices": [{"index": 0, "message": whole, "finish_reason": "stop"}]})
    assert answer_of(events(delta(content="hel"), delta(content="lo"), last)).item.text == "hello"
    assert answer_of(events(last)).item.text == "hello"


@pytest.mark.parametrize(
    "event",
    [
        '{"choices":[{"index":0,"delta":{"content":"he\tllo"}}]}',
        '{"choices":[{"index":0,"delta":{"content":"he\\tllo"},"logprobs":{"top":NaN}}]}',
        '{"choices":[{"index":0,"delta":{"content":"he\\tllo"}}],"usage":{"prompt_tokens":Infinity}}',
    ],
)
def test_bare_control_characters_and_numbers_that_are_none_fail_no_answer(event: str):
    answer: Answer = answer_of(events(event, delta("stop")))
    assert (answer.item.text, answer.usage) == ("he\tllo", None)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("content_filter: RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("sensitive", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("MAX_TOKENS", "max_tokens"),
        ("max_output_tokens", "max_tokens"),
        ("stop_sequence", "end_turn"),
        ("eos", "end_turn"),
        ("", "end_turn"),
    ],
)
def test_the_end_of_an_answer_is_known_by_every_vendors_word(sent: str, reason: str):
    assert stop_of(sent) == reason
    assert failure_of(sent, "h:1") is None


@pytest.mark.parametrize(
    "sent",
    [
        "insufficient_system_resource",
        "network_error",
        "abort",
        "ERROR",
        "function_call_filter: MALFORMED_FUNCTION_CALL",
        "function_call_filter: UNEXPECTED_TOOL_CALL",
        "MALFORMED_RESPONSE",
    ],
)
def test_an_answer_that_the_server_gave_up_can_be_asked_for_again(sent: str):
    with pytest.raises(ModelError, match="gave up") as caught:
        answer_of(events(delta(content="hel"), delta(sent)))
    assert (caught.value.kind, caught.value.retryable) == ("server", True)


def test_an_answer_that_ran_into_the_end_of_the_context_is_an_overflow():
    with pytest.raises(ModelError, match="the context is full") as caught:
        answer_of(events(delta(content="hel"), delta("model_context_window_exceeded")))
    assert caught.value.kind == "context_overflow"


@pytest.mark.parametrize("word", ["null", "None"])
def test_a_finish_reason_that_is_null_in_words_is_none(word: str):
    on = [delta(word, content="hel"), delta(word, content="lo")]
    assert answer_of(events(*on, delta("stop"))).item.text == "hello"
    with pytest.raises(ModelError, match="before it was complete"):
        answer_of(events(*on))


def used(sent: dict[str, object]) -> Usage | None:
    last = json.dumps({"choices": [], "usage": sent})
    return answer_of(events(delta("stop", content="x"), last)).usage


@pytest.mark.parametrize(
    ("sent", "output"),
    [
        # xAI
        ({"total_tokens": 14428, "completion_tokens_details": {"reasoning_tokens": 2809}}, 4308),
        # Google's chat completions, which report no details
        ({"total_tokens": 14428}, 4308),
        # OpenAI
        ({"total_tokens": 11619, "completion_tokens_details": {"reasoning_tokens": 900}}, 1499),
        ({"total_tokens": None}, 1499),
        ({"total_tokens": 7}, 1499),
    ],
)
def test_reasoning_that_a_server_counts_in_the_total_alone_is_output(sent: dict[str, object], output: int):
    assert used({"prompt_tokens": 10120, "completion_tokens": 1499, **sent}) == Usage(10120, output)


@pytest.mark.parametrize(
    ("sent", "read", "written"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 3}}, 12, 3),
        ({"prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 3}}, 0, 3),
        ({"prompt_tokens_details": {"cached_tokens": 0, "cache_creation_tokens": 3}}, 0, 3),
        ({"cached_tokens": 12}, 12, None),
        ({"cache_read_input_tokens": 12, "cache_creation_input_tokens": 3}, 12, 3),
    ],
)
def test_what_a_cache_takes_and_gives_is_found_wherever_a_server_puts_it(
    sent: dict[str, object], read: int, written: int | None
):
    usage = used({"prompt_tokens": 20, "completion_tokens": 1, **sent})
    assert usage == Usage(20, 1, read, written)
