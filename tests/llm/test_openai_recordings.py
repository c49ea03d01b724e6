"""What a real llama-server sent is read right, whole and split anywhere."""

import json

import msgspec
import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_recordings import (
    answer_of,
    assembled,
    blocks_of,
    check_read,
    check_split_at_every_byte,
    recording,
    recordings,
    split_at,
    whole_answer_of,
)

from actors.llm.base import End
from actors.llm.errors import classify
from protocol.errors import ModelError
from protocol.usage import Usage

STREAMS = [name for name in recordings(status=200, streamed=True) if name != "concurrent_cut"]
WHOLE = [
    name
    for name in recordings(status=200, streamed=False)
    if not name.startswith(("models", "apikey_x_api_key"))
]
REFUSALS = recordings(status=400)


def plainly_read(body: bytes) -> tuple[str, str, list[tuple[str, str, str]], Usage | None]:
    """Text, reasoning, calls and usage by the plainest reading there is, to compare with."""
    text, thought, calls, usage = "", "", {}, None
    for line in body.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if chunk.get("usage"):
            sent = chunk["usage"]
            cached = sent["prompt_tokens_details"]["cached_tokens"]
            usage = Usage(sent["prompt_tokens"], sent["completion_tokens"], cached)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            thought += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                known = calls.setdefault(call["index"], ["", "", ""])
                known[0] += call.get("id", "")
                known[1] += call["function"].get("name", "")
                known[2] += call["function"].get("arguments", "")
    return text, thought, [tuple(call) for _, call in sorted(calls.items())], usage


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_gives_its_text_calls_and_usage(name):
    body = recording(name).body
    answer = answer_of(body)
    text, thought, calls, usage = plainly_read(body)
    check_read(answer, text, thought, calls)
    assert answer.usage == usage


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_split_at_every_byte_gives_the_same(name):
    check_split_at_every_byte(blocks_of, recording(name).body)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=times(25))
@given(st.sampled_from(STREAMS), st.lists(st.floats(0, 1), max_size=20))
def test_a_recorded_stream_split_anywhere_gives_the_same(name, cuts):
    body = recording(name).body
    assert blocks_of(*split_at(body, cuts)) == blocks_of(body)


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_whole_answer_gives_its_text_calls_and_usage(name):
    body = recording(name).body
    answer = whole_answer_of(body)
    sent = msgspec.json.decode(body)
    message = sent["choices"][0]["message"]
    assert answer.item.text == (message.get("content") or "")
    assert [call.name for call in answer.item.calls] == [
        call["function"]["name"] for call in message.get("tool_calls", [])
    ]
    assert answer.usage is not None
    assert answer.usage.input_tokens == sent["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == sent["usage"]["completion_tokens"]


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_cut_before_its_finish_reason_is_an_error(name):
    body = recording(name).body
    at = body.index(b'"finish_reason":"')
    with pytest.raises(ModelError) as caught:
        blocks_of(body[:at])
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_without_its_done_mark_is_complete(name):
    body = recording(name).body
    assert blocks_of(body.removesuffix(b"data: [DONE]\n\n")) == blocks_of(body)


def test_the_recording_that_was_cut_in_the_middle_is_an_error():
    with pytest.raises(ModelError, match="before it was complete"):
        blocks_of(recording("concurrent_cut").body)


def test_a_call_cut_by_max_tokens_leaves_no_call():
    answer = answer_of(recording("tools_cut_stream").body)
    assert answer.item.calls == ()
    assert answer.stop_reason == "max_tokens"


def test_an_answer_that_fills_the_context_stops_with_max_tokens():
    answer = answer_of(recording("overflow_midway_stream").body)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.total_tokens == 4096


def test_comments_while_a_prompt_is_read_give_no_blocks():
    blocks = blocks_of(recording("slow_prompt_ping_stream").body)
    assert isinstance(blocks[-1], End)
    assert assembled(blocks).item.text == answer_of(recording("slow_prompt_ping_stream").body).item.text


KINDS = {
    "apikey_none": "auth",
    "apikey_wrong": "auth",
    "err_404": "not_found",
    "err_405": "not_found",
    "err_bad_grammar": "invalid_request",
    "err_bad_json": "invalid_request",
    "err_bad_type": "invalid_request",
    "err_content_number": "invalid_request",
    "err_image": "invalid_request",
    "err_no_messages": "invalid_request",
    "err_overflow": "context_overflow",
    "err_overflow_stream": "context_overflow",
    "err_tool_choice": "invalid_request",
    "json_schema_bad": "invalid_request",
    "json_schema_badref": "invalid_request",
    "loading_chat": "overloaded",
    "loading_chat_stream": "overloaded",
    "loading_models": "overloaded",
    "router_bad_model": "not_found",
    "router_no_model": "invalid_request",
    "tools_bad_args_history": "invalid_request",
}


@pytest.mark.parametrize("name", [name for name in REFUSALS if not name.startswith("apikey_x_api")])
def test_a_recorded_refusal_is_classified(name):
    sent = recording(name)
    error = classify(sent.status, sent.headers, sent.body, where="127.0.0.1:8080")
    assert error.kind == KINDS[name]
    assert error.retryable == (error.kind == "overloaded")
    assert error.status == sent.status
    assert msgspec.json.decode(sent.body)["error"]["message"] in error.message
    assert "127.0.0.1:8080" in error.message


def test_a_recorded_overflow_says_how_much_did_not_fit():
    sent = recording("err_overflow")
    error = classify(sent.status, sent.headers, sent.body)
    assert (error.prompt_tokens, error.context_window) == (36011, 4096)
