"""OpenAI's Responses: what is asked, and what is read of answers as the vendor documents them and llama-server gives."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from client_kit import answer_from
from hypothesis import given
from hypothesis import strategies as st
from llm_recordings import WHERE, assembled, recording, recordings
from llm_server import RawServer, error_reply, reply, stream_reply
from responses_kit import (
    CALL,
    MESSAGE,
    REASONING,
    REFUSAL,
    SEARCH,
    SECRET,
    USAGE,
    encoded,
    event_bytes,
    events_of,
    response_of,
)
from wire_fuzz import Seed, read

from actors.llm.base import Answer, CallEnd, Request, ThinkingChunk
from actors.llm.http.presets import PRESETS
from actors.llm.responses.answer import ResponsesAnswer
from actors.llm.responses.client import ResponsesClient
from actors.llm.responses.dialect import Dialect, adapted
from actors.llm.responses.request import body_of
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import ManifestError, ModelError
from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    SystemItem,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    UserItem,
    VendorPart,
)
from protocol.manifest import PodManifest
from protocol.tools import ToolSpec
from protocol.usage import Usage

HERE = "responses:here"
PLAIN = Dialect()


def answer_of(*pieces: bytes, most: int | None = None) -> Answer:
    """What becomes of an answer that comes in these pieces. Raises ModelError."""
    return assembled(read(ResponsesAnswer(WHERE, origin=HERE, most=most), list(pieces), streamed=True))


def whole_answer_of(body: bytes, most: int | None = None) -> Answer:
    return assembled(read(ResponsesAnswer(WHERE, origin=HERE, most=most), [body], streamed=False))


# -- answers as the vendor's reference has them -----------------------------------------------------


def test_an_answer_has_its_reasoning_its_words_and_its_calls_in_order() -> None:
    answer = answer_of(*event_bytes(REASONING, MESSAGE, CALL))
    thought, said = answer.item.content
    assert isinstance(thought, ThinkingPart)
    assert thought.text == "They ask for Oslo.\n\nCall it."
    assert thought.vendor == {
        "type": "reasoning",
        "summary": REASONING["summary"],
        "encrypted_content": REASONING["encrypted_content"],
    }
    assert said == TextPart("I look it up: ¿dónde?")
    (call,) = answer.item.calls
    assert (call.id, call.name, call.arguments) == ("call_abc", "get_weather", {"town": "Oslo"})
    assert (answer.stop_reason, answer.model) == ("tool_use", "gpt-5-2025-08-07")
    assert answer.usage == Usage(75, 30, 32)
    assert answer.item.origin == HERE


def test_a_whole_answer_and_its_stream_say_the_same() -> None:
    items = (SECRET, MESSAGE, CALL, SEARCH)
    assert whole_answer_of(json.dumps(response_of(*items)).encode()) == answer_of(*event_bytes(*items))


def test_an_end_that_has_all_of_the_answer_is_enough() -> None:
    (last,) = encoded({"type": "response.completed", "response": response_of(REASONING, MESSAGE, CALL)})
    assert answer_of(last) == answer_of(*event_bytes(REASONING, MESSAGE, CALL))


def test_outputs_that_come_only_whole_are_read_as_those_in_pieces() -> None:
    events = events_of(REASONING, MESSAGE, CALL)
    rest = [each for each in events if "delta" not in each["type"] and "part" not in each["type"]]
    assert answer_of(*encoded(*rest)) == answer_of(*event_bytes(REASONING, MESSAGE, CALL))


def test_reasoning_that_shows_nothing_is_kept_for_its_server() -> None:
    answer = answer_of(*event_bytes(SECRET, MESSAGE))
    assert answer.item.content[0] == VendorPart(
        {"type": "reasoning", "summary": [], "encrypted_content": SECRET["encrypted_content"]}
    )
    worthless = {"id": "rs_3", "type": "reasoning", "summary": []}
    assert answer_of(*event_bytes(worthless, MESSAGE)).item.content == (TextPart("I look it up: ¿dónde?"),)


def test_what_only_the_vendor_knows_is_kept_whole() -> None:
    assert answer_of(*event_bytes(SEARCH, MESSAGE)).item.content[0] == VendorPart(SEARCH)


def test_a_refusal_is_one() -> None:
    answer = answer_of(*event_bytes(REFUSAL))
    assert (answer.item.text, answer.stop_reason, answer.item.refused) == (
        "I would rather not.",
        "refusal",
        True,
    )


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("max_output_tokens", "max_tokens"), ("content_filter", "content_filter"), (None, "max_tokens")],
)
def test_an_answer_that_is_incomplete_says_why(reason: str | None, stop: str) -> None:
    end = response_of(MESSAGE, status="incomplete", reason=reason)
    assert answer_of(*event_bytes(MESSAGE, end=end)).stop_reason == stop


def test_a_call_that_was_cut_is_no_whole_one() -> None:
    cut = {**CALL, "arguments": '{"town":"Os', "status": "incomplete"}
    end = response_of(cut, status="incomplete", reason="max_output_tokens")
    (call,) = answer_of(*event_bytes(cut, end=end)).item.calls
    assert call.invalid == '{"town":"Os'


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "server_error", "message": "The model failed"}, "server"),
        ({"code": "rate_limit_exceeded", "message": "Rate limit reached. Try again in 7s."}, "rate_limit"),
        (
            {"code": "context_length_exceeded", "message": "Your input exceeds the context window"},
            "context_overflow",
        ),
    ],
)
def test_an_answer_that_fails_says_why(error: dict[str, Any], kind: str) -> None:
    begun = events_of(MESSAGE)[:6]
    failed = response_of(status="failed", usage=None, error=error)
    for last in (
        {"type": "response.failed", "response": failed},
        {"type": "error", **error},
        {"type": "error", "error": error},
    ):
        with pytest.raises(ModelError, match=error["message"][:12]) as raised:
            answer_of(*encoded(*begun, last))
        assert raised.value.kind == kind
    with pytest.raises(ModelError) as raised:
        whole_answer_of(json.dumps(failed).encode())
    assert raised.value.kind == kind


def test_a_stream_that_ends_before_its_end_is_no_answer() -> None:
    pieces = event_bytes(REASONING, MESSAGE, CALL)
    for cut in range(len(pieces)):
        with pytest.raises(ModelError) as raised:
            answer_of(*pieces[:cut])
        assert raised.value.kind == "protocol"


def test_arguments_that_come_twice_and_differ_are_not_run() -> None:
    events = events_of(CALL)
    del events[4]  # a piece of the arguments
    with pytest.raises(ModelError, match="twice, with different content"):
        answer_of(*encoded(*events))


@pytest.mark.parametrize("again", ["", '{ "town": "Oslo" }'])
def test_arguments_that_come_twice_and_mean_the_same_are_run(again: str) -> None:
    events = events_of(CALL)
    (done,) = [each for each in events if each["type"] == "response.output_item.done"]
    done["item"] = {**CALL, "arguments": again}
    (call,) = answer_of(*encoded(*events)).item.calls
    assert (call.arguments, call.invalid) == ({"town": "Oslo"}, None)


def test_a_call_whose_arguments_stand_only_in_their_own_last_event_is_run_with_them() -> None:
    events = [each for each in events_of(CALL) if not each["type"].endswith("arguments.delta")]
    for event in events:
        if event["type"] == "response.output_item.done":
            event["item"] = {**CALL, "arguments": ""}
        elif event["type"] == "response.completed":
            event["response"] = response_of({**CALL, "arguments": ""})
    (call,) = answer_of(*encoded(*events)).item.calls
    assert (call.arguments, call.invalid) == ({"town": "Oslo"}, None)


def test_arguments_that_come_before_their_call_are_its_own() -> None:
    *begin, added, first, second = events_of(CALL)[:5]
    rest = events_of(CALL)[5:]
    answer = answer_of(*encoded(*begin, first, added, second, *rest))
    assert answer.item == answer_of(*event_bytes(CALL)).item


def test_arguments_that_are_no_text_but_the_object_itself_are_read() -> None:
    call = {**CALL, "arguments": {"town": "Oslo"}}
    assert whole_answer_of(json.dumps(response_of(call)).encode()).item.calls[0].arguments == {"town": "Oslo"}


@pytest.mark.parametrize("kept", [3, 4])
def test_what_is_missing_of_an_output_is_taken_from_the_end_of_the_answer(kept: int) -> None:
    """``kept``: an output's beginning, or that and its first piece."""
    for item in (MESSAGE, CALL):
        *events, end = events_of(item)
        answer = answer_of(*encoded(*events[: kept + ("content" in item)], end))
        assert answer.item == answer_of(*event_bytes(item)).item
        if item is CALL:
            assert answer.item.calls[0].arguments == {"town": "Oslo"}


def test_a_call_that_has_only_begun_is_not_run_without_its_arguments() -> None:
    begun = events_of(CALL)[:3]
    end = {"type": "response.completed", "response": response_of()}
    (call,) = answer_of(*encoded(*begun, end)).item.calls
    assert call.invalid is not None


def test_calls_of_one_id_get_ids_of_their_own() -> None:
    answer = answer_of(*event_bytes(CALL, {**CALL, "id": "fc_2"}))
    one, other = answer.item.calls
    assert one.id == "call_abc"
    assert other.id != one.id
    assert other.arguments == one.arguments


def test_halves_of_a_character_in_two_pieces_are_one() -> None:
    parts = [r'"a\ud83d"', r'"\ude00b"']
    events = [
        b'data: {"type":"response.output_text.delta","output_index":0,"delta":%b}\n\n' % each.encode()
        for each in parts
    ]
    (end,) = encoded({"type": "response.completed", "response": response_of()})
    assert answer_of(*events, end).item.text == "a😀b"


@given(st.data())
def test_nothing_depends_on_how_the_network_splits_an_answer(data: st.DataObject) -> None:
    body = b"".join(event_bytes(REASONING, MESSAGE, CALL))
    marks = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[a:b] for a, b in itertools.pairwise([0, *marks, len(body)])]
    assert answer_of(*pieces) == answer_of(body)


# -- answers of llama-server ------------------------------------------------------------------------


def plainly(body: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """What a recorded stream says by its end alone: text, reasoning, calls."""
    last = next(line for line in reversed(body.splitlines()) if line.startswith(b"data: {"))
    output = json.loads(last[6:])["response"]["output"]
    texts = [part["text"] for each in output if each["type"] == "message" for part in each["content"]]
    thoughts = [part["text"] for each in output if each["type"] == "reasoning" for part in each["content"]]
    calls = [(each["name"], each["arguments"]) for each in output if each["type"] == "function_call"]
    return "".join(texts), "".join(thoughts), calls


STREAMS = recordings(status=200, streamed=True, kind="responses")


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_says_in_pieces_what_its_end_says(name: str) -> None:
    body = recording(name).body
    answer = answer_of(body)
    text, thought, calls = plainly(body)
    assert answer.item.text == text
    assert "".join(part.text for part in answer.item.content if isinstance(part, ThinkingPart)) == thought
    assert [
        (call.name, call.invalid or json.dumps(call.arguments, separators=(",", ":")))
        for call in answer.item.calls
    ] == calls
    assert answer.usage is not None
    assert answer.usage.input_tokens
    assert answer.model == "tiny"


@pytest.mark.parametrize("name", recordings(status=200, streamed=False, kind="responses"))
def test_a_recorded_whole_answer_is_read(name: str) -> None:
    body = recording(name).body
    answer = whole_answer_of(body)
    assert answer.usage is not None
    assert answer.item.text or answer.item.calls or answer.item.content
    assert answer.item.text == "".join(
        part["text"]
        for each in json.loads(body)["output"]
        if each["type"] == "message"
        for part in each["content"]
    )


def test_a_server_that_does_not_say_that_it_cut_an_answer_is_seen_through() -> None:
    cut = recording("responses_cut_stream").body
    assert answer_of(cut).stop_reason == "end_turn"
    assert answer_of(cut, most=3).stop_reason == "max_tokens"
    answer = answer_of(recording("responses_tools_cut_stream").body, most=22)
    assert answer.stop_reason == "max_tokens"
    assert [call.invalid for call in answer.item.calls] == ["{"]


def test_several_calls_of_one_answer_are_kept_apart_by_their_ids() -> None:
    answer = answer_of(recording("responses_parallel_stream").body)
    assert len(answer.item.calls) > 1
    assert len({call.id for call in answer.item.calls}) == len(answer.item.calls)


# -- requests ---------------------------------------------------------------------------------------

WEATHER = ToolSpec(
    "get_weather", "The weather.", {"type": "object", "properties": {"town": {"type": "string"}}}
)


def sent(
    items: list[Item], dialect: Dialect = PLAIN, origin: str | None = HERE, **request: Any
) -> dict[str, Any]:
    """The body of a request, decoded."""
    made: dict[str, Any] = json.loads(body_of(Request(items, **request), "gpt-5", dialect, origin=origin))
    return made


def test_a_request_keeps_nothing_at_the_server_and_asks_for_reasoning_that_can_go_back() -> None:
    body = sent([UserItem.of("hi")], system="Be brief.", tools=(WEATHER,), max_tokens=100, temperature=0.5)
    assert body == {
        "model": "gpt-5",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "temperature": 0.5,
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "The weather.",
                "parameters": WEATHER.input_schema,
                "strict": False,
            }
        ],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    }


def test_reasoning_goes_back_to_its_server_before_what_it_led_to() -> None:
    item = answer_of(*event_bytes(REASONING, MESSAGE, SECRET, CALL)).item
    result = ToolResult.of(item.calls[0], "rain")
    back = sent([UserItem.of("weather?"), item, result])["input"][1:]
    assert [each["type"] for each in back] == [
        "reasoning",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert back[0]["encrypted_content"] == REASONING["encrypted_content"]
    assert all("id" not in each for each in back)
    assert back[3] == {
        "type": "function_call",
        "call_id": "call_abc",
        "name": "get_weather",
        "arguments": '{"town":"Oslo"}',
    }
    assert back[4] == {"type": "function_call_output", "call_id": "call_abc", "output": "rain"}


def test_the_phase_of_a_message_goes_back_to_its_server_with_it() -> None:
    said, final = ({**MESSAGE, "id": f"msg_{n}", "phase": n} for n in ("commentary", "final_answer"))
    item = answer_of(*event_bytes(said, CALL, final)).item
    whole = whole_answer_of(json.dumps(response_of(said, CALL, final)).encode()).item
    assert item == whole
    history = [UserItem.of("weather?"), item, ToolResult.of(item.calls[0], "rain")]
    back = sent(history)["input"]
    assert [each.get("phase") for each in back if each.get("role") == "assistant"] == [
        "commentary",
        "final_answer",
    ]
    assert all("phase" not in each for each in sent(history, origin="responses:other")["input"])
    two = answer_of(*event_bytes(said, final)).item
    assert [each.get("phase") for each in sent([two, UserItem.of("?")])["input"]] == [
        "commentary",
        "final_answer",
        None,
    ]


def test_two_messages_of_one_answer_are_two_paragraphs() -> None:
    other = {**MESSAGE, "id": "msg_2"}
    text = MESSAGE["content"][0]["text"]
    assert answer_of(*event_bytes(MESSAGE, other)).item.text == f"{text}\n\n{text}"
    whole = whole_answer_of(json.dumps(response_of(MESSAGE, CALL, other)).encode())
    assert whole.item.text == f"{text}\n\n{text}"


def test_a_message_of_a_phase_that_says_nothing_is_left_out() -> None:
    empty = {**MESSAGE, "content": [], "phase": "commentary"}
    assert answer_of(*event_bytes(empty, CALL)).item.content == ()


def test_what_a_cache_takes_and_what_only_the_total_counts_is_known() -> None:
    usage = {
        "input_tokens": 3438,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3435},
        "output_tokens": 1,
        "total_tokens": 3449,
    }
    end = response_of(MESSAGE, usage=usage)
    assert answer_of(*event_bytes(MESSAGE, end=end)).usage == Usage(3438, 11, 3, 3435)


def test_no_reasoning_goes_to_another_server_and_none_that_led_to_nothing() -> None:
    item = answer_of(*event_bytes(REASONING, MESSAGE)).item
    assert [each["type"] for each in sent([item, UserItem.of("?")], origin="responses:other")["input"]] == [
        "message",
        "message",
    ]
    alone = answer_of(*event_bytes(MESSAGE, REASONING)).item
    assert [each["type"] for each in sent([alone, UserItem.of("?")])["input"]] == ["message", "message"]
    without = sent([item, UserItem.of("?")], Dialect(reasoning=False))["input"]
    assert [each["type"] for each in without] == ["message", "message"]


def test_pictures_notices_and_what_nobody_answers_have_their_form() -> None:
    call = ToolCall("c1", "get_weather", {"town": "Oslo"})
    picture = UserItem((TextPart("look"), ImagePart(data="QUJD")))
    inputs = sent([picture, AssistantItem((), (call,)), SystemItem.of("Mind the time.")])["input"]
    assert inputs[0]["content"][1] == {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}
    assert inputs[2]["type"] == "function_call_output"
    assert "no result" in inputs[2]["output"]
    assert [part["text"] for part in inputs[3]["content"]] == ["[System notice]\n", "Mind the time."]
    blind = sent([picture], Dialect(images=False))["input"]
    assert "cannot see" in blind[0]["content"][1]["text"]


SHOT = [
    UserItem.of("look"),
    AssistantItem((), (ToolCall("c1", "shoot", {}), ToolCall("c2", "shoot", {}))),
    ToolResult("c1", "shoot", (TextPart("here: "), ImagePart(data="QUJD"))),
    ToolResult("c2", "shoot", (ImagePart(data="QUJD"),), is_error=True),
]


def test_a_result_has_its_pictures_where_the_server_takes_them_there() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}
    one, two = sent(SHOT)["input"][-2:]
    assert one["output"] == [{"type": "input_text", "text": "here: "}, image]
    assert two["output"] == [{"type": "input_text", "text": "Error: "}, image]
    *_, one, two, behind, last = sent(SHOT, Dialect(result_images=False))["input"]
    assert one["output"] == "here: [picture 1, shown below]"
    assert two["output"] == "Error: [picture 2, shown below]"
    assert (behind["role"], behind["content"][2], last["content"][2]) == ("user", image, image)
    assert last["content"][1]["text"] == "Picture 2, of the result of the tool shoot:"
    assert sent(SHOT, Dialect(images=False))["input"][-1]["output"].startswith("Error: [a picture")


@pytest.mark.parametrize(
    "words",
    [
        "Output of tool call should be 'Input text'",
        "Invalid type for 'input'.",
        "Invalid type for 'input[2].output': expected a string, but got an array instead.",
        "body.input.list[3].function_call_output.output: Input should be a valid string",
    ],
)
def test_a_server_whose_results_are_text_alone_is_sent_pictures_behind_them(words: str) -> None:
    assert adapted(Dialect(), words, Request(SHOT)) == Dialect(result_images=False)
    assert adapted(Dialect(result_images=False), words, Request(SHOT)) is None
    assert adapted(Dialect(), words, Request(SHOT[:2])) is None


def test_a_history_that_ends_with_the_models_words_asks_it_to_go_on() -> None:
    inputs = sent([UserItem.of("hi"), AssistantItem.of("so far")])["input"]
    assert "Go on" in inputs[-1]["content"][0]["text"]
    assert sent([])["input"][0]["role"] == "user"


def test_a_typed_answer_is_asked_for_by_its_schema_or_in_words() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    asked = sent([UserItem.of("hi")], output_schema=schema)
    assert asked["text"] == {
        "format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": False}
    }
    in_words = sent([UserItem.of("hi")], Dialect(json_schema=False), output_schema=schema)
    assert "text" not in in_words
    assert "JSON Schema" in in_words["input"][-1]["content"][0]["text"]


def test_a_form_beside_tools_is_asked_for_where_it_keeps_nobody_from_calling_them() -> None:
    asked: dict[str, Any] = {"output_schema": {"type": "object"}, "tools": (WEATHER,)}
    assert "text" in sent([UserItem.of("hi")], **asked)
    in_words = sent([UserItem.of("hi")], Dialect(format_beside_tools=False), **asked)
    assert "text" not in in_words
    assert "Call tools" in in_words["input"][-1]["content"][0]["text"]
    words = "text.format json_schema cannot be used with tools"
    assert adapted(Dialect(), words, Request([], **asked)) == Dialect(format_beside_tools=False)


async def test_a_form_of_answers_keeps_no_model_of_a_local_server_from_calling_tools() -> None:
    request = Request([UserItem.of("hi")], output_schema={"type": "object"}, tools=(WEATHER,))
    answer = stream_reply(b"".join(event_bytes(MESSAGE)))
    async with RawServer(answer) as server, ResponsesClient(server.url, "m") as client:
        await answer_from(client, request)
    assert "text" not in server.received[0].json


def test_a_longer_history_begins_with_the_bytes_of_the_shorter() -> None:
    scratch: dict[str, Any] = {}
    call = ToolCall("c1", "get_weather", {"town": "Oslo"})
    items: list[Item] = [
        UserItem.of("hi"),
        AssistantItem((TextPart("hm"),), (call,)),
        ToolResult.of(call, "rain"),
    ]
    items += [AssistantItem.of("It rains."), UserItem.of("and now?")]
    ends = [1, 3, 5]
    bodies = [body_of(Request(items[:end], scratch=scratch), "m", origin=HERE) for end in ends]
    for shorter, longer in itertools.pairwise(bodies):
        assert longer.startswith(shorter.removesuffix(b"]}"))
    assert bodies[-1] == body_of(Request(items), "m", origin=HERE)


_ITEMS = st.sampled_from(
    [
        UserItem.of("hi"),
        SystemItem.of("a notice"),
        AssistantItem.of("words"),
        AssistantItem((TextPart("call"),), (ToolCall("c1", "t", {"a": 1}), ToolCall("c2", "t", {}))),
        ToolResult("c1", "t", (TextPart("one"),)),
        ToolResult("c2", "t", (TextPart("two"),)),
        ToolResult("c1", "t", (TextPart("shot"), ImagePart(data="QUJD"))),
        answer_of(*event_bytes(REASONING, CALL)).item,
        ToolResult("call_abc", "get_weather", (TextPart("rain"),)),
        AssistantItem.of("refused", ()),
    ]
)


@given(st.lists(st.lists(_ITEMS, max_size=8), min_size=1, max_size=4), st.booleans())
def test_whatever_a_history_turns_into_is_sent_as_if_it_were_new(
    histories: list[list[Item]], within: bool
) -> None:
    scratch: dict[str, Any] = {}
    dialect = Dialect(result_images=within)
    for items in histories:
        kept = body_of(Request(list(items), scratch=scratch), "m", dialect, origin=HERE)
        assert kept == body_of(Request(list(items)), "m", dialect, origin=HERE)
        inputs = json.loads(kept)["input"]
        calls = [each["call_id"] for each in inputs if each["type"] == "function_call"]
        results = [each["call_id"] for each in inputs if each["type"] == "function_call_output"]
        assert sorted(calls) == sorted(results)
        assert len(set(calls)) == len(calls)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("Encrypted content is not supported with this model.", "encrypted"),
        ("Unknown parameter: 'include'.", "encrypted"),
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("Invalid value: text.format json_schema is not supported", "json_schema"),
        ("Item 'rs_1' of type 'reasoning' was provided without its required following item.", "reasoning"),
        ("item['content'] is empty", "reasoning"),
        ("This model does not support image input", "images"),
    ],
)
def test_what_a_server_refuses_is_learnt(words: str, field: str) -> None:
    learnt = adapted(Dialect(), words, Request(SHOT))
    assert learnt is not None
    assert getattr(learnt, field) is False
    assert adapted(learnt, words, Request(SHOT)) is None
    assert adapted(Dialect(), "no idea", Request(SHOT)) is None


# -- pods -------------------------------------------------------------------------------------------


@tool
def get_weather(town: str) -> str:
    """The weather."""
    return f"rain in {town}"


async def test_a_pod_calls_tools_and_sends_its_reasoning_back() -> None:
    first = stream_reply(b"".join(event_bytes(REASONING, CALL)))
    second = stream_reply(b"".join(event_bytes(MESSAGE)))
    async with RawServer(first, second) as server, PodSystem() as system:
        manifest = PodManifest.of(
            model={
                "scheme": "openai_responses",
                "model_id": "gpt-5",
                "base_url": server.url,
                "reasoning_effort": "low",
            }
        )
        pod = await system.spawn(manifest, tools=[get_weather])
        result = await pod.run("weather in Oslo?")
        assert result.text == "I look it up: ¿dónde?"
        assert result.usage == Usage(150, 60, 64)
    assert [request.path for request in server.received] == ["/v1/responses", "/v1/responses"]
    body = server.received[1].json
    assert body["reasoning"] == {"effort": "low"}
    assert [each["type"] for each in body["input"]] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert body["input"][1]["encrypted_content"] == REASONING["encrypted_content"]
    assert body["input"][3]["output"] == "rain in Oslo"


async def test_a_model_that_keeps_its_reasoning_to_itself_is_asked_again_without() -> None:
    refusal = error_reply("400 Bad Request", "Encrypted content is not supported with this model.")
    answer = stream_reply(b"".join(event_bytes(MESSAGE)))
    async with RawServer(refusal, answer, answer) as server, PodSystem() as system:
        manifest = PodManifest.of(
            model={"scheme": "openai_responses", "model_id": "gpt-4o", "base_url": server.url}
        )
        pod = await system.spawn(manifest)
        await pod.run("hi")
        await pod.run("hi")
    assert ["include" in request.json for request in server.received] == [True, False, False]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"max_tokens": 9}, {"max_output_tokens": 9}),
        ({"tool_choice": "get_weather"}, {"tool_choice": {"type": "function", "name": "get_weather"}}),
        ({"extra_body": {"reasoning": {"summary": "auto"}}}, {"reasoning": {"summary": "auto"}}),
    ],
)
async def test_settings_stand_in_the_request(settings: dict[str, Any], field: dict[str, Any]) -> None:
    async with RawServer(reply(json.dumps(response_of(MESSAGE)).encode())) as server, PodSystem() as system:
        manifest = PodManifest.of(model={"scheme": "openai_responses", "base_url": server.url, **settings})
        pod = await system.spawn(manifest, tools=[get_weather])
        await pod.run("hi")
    body = server.received[0].json
    assert {name: body.get(name) for name in field} == field


@pytest.mark.parametrize("settings", [{"seed": 1}, {"stop": "END"}, {"thinking_budget": 2000}])
async def test_a_setting_that_this_api_has_not_is_refused(settings: dict[str, Any]) -> None:
    async with PodSystem() as system:
        model = {"scheme": "openai_responses", "base_url": "http://127.0.0.1:9/v1", **settings}
        with pytest.raises(ManifestError, match=f"model.{next(iter(settings))}"):
            await system.spawn(PodManifest.of(model=model))


def test_the_vendors_key_is_that_of_its_other_api() -> None:
    assert PRESETS["openai_responses"].key_env == PRESETS["openai"].key_env


def test_the_kit_speaks_as_its_reference_does() -> None:
    kinds = [each["type"] for each in events_of(REASONING, MESSAGE, CALL)]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert USAGE["total_tokens"] == USAGE["input_tokens"] + USAGE["output_tokens"]
    seed = Seed("kit", "responses", streamed=True, body=b"".join(event_bytes(REASONING)))
    blocks = read(ResponsesAnswer(WHERE), [seed.body], streamed=True)
    assert any(isinstance(each, ThinkingChunk) for each in blocks)
    assert not any(isinstance(each, CallEnd) for each in blocks)
