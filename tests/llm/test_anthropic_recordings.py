"""What a real llama-server sent as Anthropic's messages is read right, whole and split anywhere."""

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_recordings import check_read, check_split_at_every_byte, recording, recordings, split_at
from messages_kit import answer_of, blocks_of, whole_answer_of

from actors.llm.base import End
from actors.llm.errors import classify
from protocol.errors import ModelError
from protocol.items import ThinkingPart
from protocol.usage import Usage

STREAMS = recordings(status=200, streamed=True, kind="anthropic")
WHOLE = [
    *(
        name
        for name in recordings(status=200, streamed=False, kind="anthropic")
        if "count_tokens" not in name
    ),
    "apikey_x_api_key_right",
]


def plainly_read(body: bytes) -> tuple[str, str, list[tuple[str, str, str]], str, Usage]:
    """Text, reasoning, calls, stop reason and usage by the plainest reading there is, to compare with."""
    said, thought, calls, stop, usage = "", "", {}, "", {}
    for line in body.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        sent = json.loads(line[6:])
        match sent["type"]:
            case "message_start":
                usage |= sent["message"]["usage"]
            case "content_block_start" if sent["content_block"]["type"] == "tool_use":
                block = sent["content_block"]
                calls[sent["index"]] = [block["id"], block["name"], ""]
            case "content_block_delta":
                said += sent["delta"].get("text", "")
                thought += sent["delta"].get("thinking", "")
                if "partial_json" in sent["delta"]:
                    calls[sent["index"]][2] += sent["delta"]["partial_json"]
            case "message_delta":
                stop = sent["delta"]["stop_reason"]
                usage |= sent["usage"]
    read = usage["cache_read_input_tokens"]
    total = Usage(usage["input_tokens"] + read, usage["output_tokens"], read)
    return said, thought, [tuple(call) for _, call in sorted(calls.items())], stop, total


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_gives_its_text_calls_and_usage(name):
    body = recording(name).body
    answer = answer_of(body)
    said, thought, calls, stop, usage = plainly_read(body)
    check_read(answer, said, thought, calls)
    assert answer.stop_reason == stop
    assert answer.usage == usage


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_split_at_every_byte_gives_the_same(name):
    check_split_at_every_byte(blocks_of, recording(name).body)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(STREAMS), st.lists(st.floats(0, 1), max_size=20))
def test_a_recorded_stream_split_anywhere_gives_the_same(name, cuts):
    body = recording(name).body
    assert blocks_of(*split_at(body, cuts)) == blocks_of(body)


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_whole_answer_gives_its_text_calls_and_usage(name):
    body = recording(name).body
    answer = whole_answer_of(body)
    sent = msgspec.json.decode(body)
    kinds = {
        kind: [each for each in sent["content"] if each["type"] == kind] for kind in ("text", "tool_use")
    }
    assert answer.item.text == "".join(each["text"] for each in kinds["text"])
    assert [(call.id, call.name) for call in answer.item.calls] == [
        (each["id"], each["name"]) for each in kinds["tool_use"]
    ]
    read = sent["usage"]["cache_read_input_tokens"]
    assert answer.usage == Usage(sent["usage"]["input_tokens"] + read, sent["usage"]["output_tokens"], read)
    assert answer.stop_reason == sent["stop_reason"]


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_cut_before_its_stop_reason_is_an_error(name):
    body = recording(name).body
    at = body.index(b"event: message_delta")
    with pytest.raises(ModelError, match="before it was complete") as caught:
        blocks_of(body[:at])
    assert (caught.value.kind, caught.value.retryable) == ("protocol", True)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_without_its_message_stop_is_complete(name):
    body = recording(name).body
    at = body.index(b"event: message_stop")
    assert blocks_of(body[:at]) == blocks_of(body)


@pytest.mark.parametrize("name", ["anthropic_tools_cut", "anthropic_tools_cut_stream"])
def test_a_recorded_call_that_max_tokens_cut_is_no_empty_call(name):
    sent = recording(name)
    answer = answer_of(sent.body) if sent.streamed else whole_answer_of(sent.body)
    (call,) = answer.item.calls
    assert call.invalid is not None
    assert answer.stop_reason == "max_tokens"


def test_recorded_parallel_calls_that_overlap_are_all_whole():
    answer = answer_of(recording("parallel_anthropic_tools_stream").body)
    assert [call.name for call in answer.item.calls] == ["read_file"] * 3
    assert all(call.arguments.keys() == {"path", "limit"} for call in answer.item.calls)


def test_recorded_reasoning_without_a_signature_is_kept_as_text_alone():
    part = answer_of(recording("think_anthropic_stream").body).item.content[0]
    assert isinstance(part, ThinkingPart)
    assert part.text
    assert part.signature is None


def test_a_recorded_stream_that_waited_for_its_slot_gives_its_answer():
    blocks = blocks_of(recording("queued_ping_anthropic_stream").body)
    assert isinstance(blocks[-1], End)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("anthropic_err_overflow", "context_overflow"),
        ("anthropic_err_overflow_stream", "context_overflow"),
        ("anthropic_err_bad_json", "invalid_request"),
        ("anthropic_err_no_messages", "server"),
        ("apikey_x_api_key_wrong", "auth"),
    ],
)
def test_a_recorded_refusal_is_classified(name, kind):
    sent = recording(name)
    error = classify(sent.status, sent.headers, sent.body, where="127.0.0.1:8080")
    assert error.kind == kind
    assert msgspec.json.decode(sent.body)["error"]["message"] in error.message


def test_a_recorded_overflow_says_how_much_did_not_fit():
    sent = recording("anthropic_err_overflow_stream")
    error = classify(sent.status, sent.headers, sent.body)
    assert (error.prompt_tokens, error.context_window) == (36033, 4096)
