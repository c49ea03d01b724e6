"""What a server gives with an answer and wants back goes back to that kind of server, and to no other."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import RawServer, error_reply, stream_reply
from messages_kit import WHERE
from protocol_strategies import json_values, texts
from strict_server import answer_from

from actors.llm.anthropic.answer import MessagesAnswer
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.anthropic.dialect import Dialect as MessagesDialect
from actors.llm.anthropic.request import body_of as anthropic_body
from actors.llm.base import Assembler, Request
from actors.llm.http.sse import SSEParser
from actors.llm.openai.answer import ChatAnswer
from actors.llm.openai.client import OpenAIClient
from actors.llm.openai.dialect import Dialect, adapted
from actors.llm.openai.request import body_of as openai_body
from actors.llm.vendor import merged, origin_of
from protocol.items import AssistantItem, Item, TextPart, ThinkingPart, ToolCall, ToolResult, UserItem
from protocol.wire import decode_item, encode

HERE, OTHER = "openai:here", "openai:other"
MESSAGES = "anthropic:here"


def item_of(answer: Any, events: list[dict[str, Any]], *, named: bool = False) -> AssistantItem:
    """The item of a stream, as a log gives it back."""
    blocks = []
    stream = b"".join(
        (b"event: %b\n" % event["type"].encode() if named else b"")
        + b"data: "
        + json.dumps(event).encode()
        + b"\n\n"
        for event in events
    )
    blocks += answer.feed(SSEParser().feed(stream))
    assert answer.failure is None
    assembler = Assembler()
    for block in [*blocks, *answer.close()]:
        assembler.feed(block)
    item = decode_item(encode(assembler.answer().item))
    assert isinstance(item, AssistantItem)
    return item


def delta(finish: str | None = None, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": members, "finish_reason": finish}]}


def call(
    vendor: dict[str, Any] | None = None, arguments: str = '{"path":"a"}', **more: Any
) -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    return {"index": 0, "id": "c1", "type": "function", "function": function, **(vendor or {}), **more}


def message_sent(item: AssistantItem, origin: str, dialect: Dialect = Dialect()) -> dict[str, Any]:  # noqa: B008
    history: list[Item] = [UserItem.of("go"), item, *(ToolResult.of(each, "x") for each in item.calls)]
    messages = json.loads(openai_body(Request(history), "m", dialect, origin=origin))["messages"]
    return next(each for each in messages if each["role"] == "assistant")


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning", "reasoning_text"])
def test_reasoning_goes_back_under_the_name_it_came_with(member: str):
    events = [
        delta(**{member: "I "}),
        delta(**{member: "look."}),
        delta(tool_calls=[call()]),
        delta("tool_calls"),
    ]
    item = item_of(ChatAnswer("w", origin=HERE), events)
    shown = message_sent(item, HERE)
    assert shown[member] == "I look."
    assert shown["tool_calls"][0]["id"] == "c1"
    for origin in (OTHER, MESSAGES):
        assert "I look." not in json.dumps(message_sent(item, origin))


def test_thought_signatures_of_calls_and_of_text_go_back():
    signed = {"extra_content": {"google": {"thought_signature": "CpcB"}}}
    events = [
        delta(content="I see."),
        delta(content="", **signed),
        delta(tool_calls=[call(signed)]),
        delta("stop"),
    ]
    item = item_of(ChatAnswer("w", origin=HERE), events)
    shown = message_sent(item, HERE)
    assert shown["extra_content"] == signed["extra_content"]
    assert shown["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert "CpcB" not in json.dumps(message_sent(item, OTHER))


def test_pieces_of_reasoning_details_become_the_entries_they_are_pieces_of():
    pieces = [
        {"type": "reasoning.text", "text": "Let", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": " me see.", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "signature": "Et8B", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "xx", "id": "c1", "index": 1},
    ]
    events = [delta(reasoning=piece.get("text"), reasoning_details=[piece]) for piece in pieces]
    item = item_of(ChatAnswer("w", origin=HERE), [*events, delta(tool_calls=[call()]), delta("stop")])
    assert message_sent(item, HERE)["reasoning_details"] == [
        {**pieces[0], "text": "Let me see.", "signature": "Et8B"},
        pieces[3],
    ]


def test_parts_of_content_that_hold_reasoning_go_back_as_such_parts():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
    ]
    item = item_of(ChatAnswer("w", origin=HERE), [delta(content=parts), delta("stop")])
    assert message_sent(item, HERE)["content"] == parts
    assert message_sent(item, OTHER)["content"] == "yes"


_members = st.dictionaries(
    st.sampled_from(["extra_content", "provider_specific_fields", "thinking_blocks", "x_1"]),
    json_values.filter(lambda value: value not in (None, "", [], {})),
    max_size=3,
)


@given(_members, _members, texts, st.sampled_from(["reasoning_content", "reasoning"]))
def test_whatever_a_whole_answer_holds_is_in_the_next_request_to_its_server_alone(
    of_message, of_call, text, member
):
    message = {
        "role": "assistant",
        "content": None,
        member: text,
        "tool_calls": [call(of_call)],
        **of_message,
    }
    answer, assembler = ChatAnswer("w", origin=HERE), Assembler()
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    for block in [*answer.whole(json.dumps(body).encode()), *answer.close()]:
        assembler.feed(block)
    item = decode_item(encode(assembler.answer().item))
    assert isinstance(item, AssistantItem)
    shown = message_sent(item, HERE)
    assert {name: shown.get(name) for name in of_message} == of_message
    assert {name: shown["tool_calls"][0].get(name) for name in of_call} == of_call
    assert (shown.get(member) or "") == text
    assert message_sent(item, OTHER).keys() <= {"role", "content", "tool_calls"}
    assert message_sent(item, OTHER)["tool_calls"][0].keys() == {"id", "type", "function"}


@given(st.lists(_members, max_size=4))
def test_merging_changes_nothing_that_was_given(pieces):
    before = msgspec.json.encode(pieces)
    shown: Any = {}
    for piece in pieces:
        shown = merged(shown, piece)
    assert msgspec.json.encode(pieces) == before


# -- Anthropic's format ----------------------------------------------------------------------------

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"url": "u"}]}
CITED = {"type": "web_search_result_location", "url": "u", "encrypted_index": "Eo8B"}


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": each} for each in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def messages_item(*blocks: dict[str, Any], reason: str = "end_turn") -> AssistantItem:
    end = [{"type": "message_delta", "delta": {"stop_reason": reason}}, {"type": "message_stop"}]
    start = {"type": "message_start", "message": {"model": "m", "usage": {}}}
    return item_of(MessagesAnswer(WHERE, origin=MESSAGES), [start, *blocks, *end], named=True)


def blocks_sent(item: AssistantItem, origin: str, **dialect: bool) -> list[dict[str, Any]]:
    history: list[Item] = [UserItem.of("go"), item, *(ToolResult.of(each, "x") for each in item.calls)]
    body = anthropic_body(Request(history), "m", MessagesDialect(**dialect), caching=None, origin=origin)
    return [
        each
        for message in json.loads(body)["messages"]
        if message["role"] == "assistant"
        for each in message["content"]
    ]


def test_blocks_of_the_vendors_own_tools_go_back_whole_and_in_their_place():
    began = {**SEARCH, "input": {}}
    item = messages_item(
        *block(0, {"type": "text", "text": "I search."}),
        *block(1, began, {"type": "input_json_delta", "partial_json": '{"query": "x"}'}),
        *block(2, FOUND),
        *block(
            3,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "It is."},
            {"type": "citations_delta", "citation": CITED},
        ),
        reason="pause_turn",
    )
    cited = {"type": "text", "text": "It is.", "citations": [CITED]}
    assert blocks_sent(item, MESSAGES) == [{"type": "text", "text": "I search."}, SEARCH, FOUND, cited]
    assert [each["type"] for each in blocks_sent(item, "anthropic:other")] == ["text", "text"]
    assert "Eo8B" not in json.dumps(blocks_sent(item, "anthropic:other"))


def test_reasoning_without_a_signature_goes_back_to_the_server_that_gave_it_so():
    thought = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"})
    item = messages_item(*thought, *block(1, {"type": "text", "text": "yes"}))
    assert blocks_sent(item, MESSAGES)[0] == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert [each["type"] for each in blocks_sent(item, "anthropic:other")] == ["text"]
    assert [each["type"] for each in blocks_sent(item, MESSAGES, unsigned=False)] == ["text"]


_blocks = st.lists(
    st.sampled_from(
        [
            {"type": "text", "text": "words"},
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "sealed"},
            {"type": "tool_use", "name": "look", "input": {"path": "a"}},
            SEARCH,
            FOUND,
        ]
    ),
    max_size=7,
).map(
    lambda blocks: [{**each, "id": f"toolu_{n}"} if "name" in each else each for n, each in enumerate(blocks)]
)


@given(_blocks)
def test_blocks_go_back_in_the_order_they_came_in_calls_among_them(blocks: list[dict[str, Any]]):
    item = messages_item(*(event for n, each in enumerate(blocks) for event in block(n, each)))
    if item.content or item.calls:
        calls = any(each["type"] == "tool_use" for each in blocks)
        spoke = any(each["type"] == "text" for each in blocks)
        paused = (
            bool(blocks) and blocks[-1]["type"] in {"server_tool_use", "web_search_tool_result"} and not calls
        )
        if calls or spoke or paused:
            assert blocks_sent(item, MESSAGES) == blocks
        others = [each["type"] for each in blocks_sent(item, "anthropic:other")]
        assert others == sorted(others)  # text, then calls, and nothing of the vendor's


def test_an_answer_says_where_its_calls_stood_only_where_something_came_behind_them():
    think = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    calls = [{"type": "tool_use", "id": f"t{n}", "name": "look", "input": {}} for n in range(2)]
    item = messages_item(*block(0, think), *block(1, calls[0]), *block(2, think), *block(3, calls[1]))
    assert [call.after for call in item.calls] == [1, None]
    assert blocks_sent(item, MESSAGES) == [think, calls[0], think, calls[1]]


def test_reasoning_of_an_old_log_that_names_no_server_goes_back_where_it_is_signed():
    item = AssistantItem((ThinkingPart("hm", "s"), ThinkingPart("", None, "sealed"), TextPart("yes")))
    assert [each["type"] for each in blocks_sent(item, MESSAGES)] == ["thinking", "redacted_thinking", "text"]


def test_old_logs_are_read():
    old = b'{"type":"assistant","content":[{"type":"text","text":"a"},{"type":"thinking","text":"b"}],"calls":[{"id":"1","name":"n","type":"call"}]}'
    item = decode_item(old)
    assert isinstance(item, AssistantItem)
    assert (item.origin, item.vendor, item.refused) == (None, None, False)


# -- what servers demand of answers that others gave ---------------------------------------------------

FOREIGN = AssistantItem((), (ToolCall("c1", "look"),))


def test_a_server_that_demands_reasoning_or_a_signature_of_every_call_gets_what_stands_for_none():
    words = "The `reasoning_content` in the thinking mode must be passed back to the API."
    dialect = adapted(Dialect(), words, Request([FOREIGN]))
    assert dialect == Dialect(blank_reasoning=True)
    assert message_sent(FOREIGN, HERE, dialect)["reasoning_content"] == ""
    words = "Function call is missing a thought_signature in functionCall parts."
    dialect = adapted(Dialect(), words, Request([FOREIGN]))
    assert dialect == Dialect(any_signature=True)
    assert "skip_thought_signature_validator" in json.dumps(message_sent(FOREIGN, HERE, dialect))


@pytest.mark.parametrize(
    "words",
    [
        "messages.1.assistant.reasoning: property 'messages.1.assistant.reasoning' is unsupported",
        "'messages.1' : for 'role:assistant' property 'reasoning' is unsupported",
        "body.messages.1.assistant.reasoning: Extra inputs are not permitted",
    ],
)
async def test_a_server_that_gives_reasoning_and_takes_none_back_is_sent_none_from_then_on(words: str):
    thought = b'data: {"choices":[{"index":0,"delta":{"reasoning":"hm","content":"ok"},"finish_reason":"stop"}]}\n\n'

    said = stream_reply(thought + b"data: [DONE]\n\n")
    async with RawServer(said, error_reply("400 Bad Request", words), said) as server:
        async with OpenAIClient(server.url, "m") as client:
            item = (await answer_from(client, Request([UserItem.of("a")]))).item
            history = [UserItem.of("a"), item, UserItem.of("b")]
            await answer_from(client, Request(history, scratch={}))
            await answer_from(client, Request(history, scratch={}))
        assert [b'"reasoning"' in each.body for each in server.received] == [False, True, False, False]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("https://h/v1", "m"), ("https://h/", "n"), True),
        (("https://h/v1", "m"), ("https://h:8000/v1", "m"), False),
        (("https://h/v1", "anthropic/m"), ("https://h/v1", "anthropic/n"), True),
        (("https://h/v1", "anthropic/m"), ("https://h/v1", "google/m"), False),
        (("https://user:secret@h/v1", "m"), ("https://h/v1", "m"), True),
    ],
)
def test_a_kind_of_server_is_its_host_and_the_vendor_behind_it(one, other, same):
    assert (origin_of("openai", *one) == origin_of("openai", *other)) is same
    assert origin_of("openai", *one) != origin_of("anthropic", *one)
    assert "secret" not in origin_of("openai", *one)


def test_clients_name_themselves_in_what_they_answer():
    for kind, name in ((OpenAIClient, "openai:h"), (AnthropicClient, "anthropic:h")):
        assert kind("https://h", "m")._origin(Request([])) == name
