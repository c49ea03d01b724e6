"""Requests are what the vendor takes, and of one history always begin with the same content."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.llm.anthropic.dialect import Dialect, adapted
from actors.llm.anthropic.request import (
    MAX_TOKENS,
    Caching,
    answer_tool_of,
    body_of,
    encode_some,
)
from actors.llm.base import Request
from actors.llm.legal import NO_RESULT, NOTICE_MARK
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
)
from protocol.tools import ToolSpec

EPHEMERAL = {"type": "ephemeral"}
CALL = ToolCall("c1", "read", {"path": "a"})
CALLED = (UserItem.of("go"), AssistantItem((), (CALL,)))
READ = ToolSpec("read", "Reads.", {"type": "object", "properties": {"path": {"type": "string"}}})
LIST = ToolSpec("list", "Lists.", {"type": "object"})


def sent(*items: Item, dialect: Dialect = Dialect(), **fields: Any) -> dict[str, Any]:  # noqa: B008
    settings = {key: fields.pop(key) for key in ("caching", "streaming", "extra") if key in fields}
    return json.loads(body_of(Request(list(items), **fields), "claude", dialect, **settings))


def messages(*items: Item, **fields: Any) -> list[dict[str, Any]]:
    """The messages of a request, without marks."""
    return sent(*items, caching=None, **fields)["messages"]


def user(text: str) -> UserItem:
    return UserItem.of(text)


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


# -- fields --------------------------------------------------------------------------------------


def test_a_request_has_what_was_asked_for_and_nothing_else():
    assert sent(user("hi"), caching=None) == {
        "model": "claude",
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "messages": [said("hi")],
    }


def test_limits_and_temperature_are_sent():
    shown = sent(user("hi"), max_tokens=5, temperature=0.0)
    assert (shown["max_tokens"], shown["temperature"]) == (5, 0.0)


def test_a_whole_answer_can_be_asked_for():
    assert sent(user("hi"), streaming=False)["stream"] is False


def test_fields_that_every_request_has_besides_are_sent_and_override_nothing():
    shown = sent(user("hi"), extra={"thinking": {"type": "adaptive"}, "max_tokens": 1})
    assert (shown["thinking"], shown["max_tokens"]) == ({"type": "adaptive"}, MAX_TOKENS)


def test_a_blank_system_prompt_is_not_sent_since_empty_texts_are_refused():
    for blank in (None, "", " \n"):
        assert "system" not in sent(user("hi"), system=blank)


def test_tools_are_sent_with_their_schemas():
    assert sent(user("hi"), tools=(READ,), caching=None)["tools"] == [
        {"name": "read", "description": "Reads.", "input_schema": READ.input_schema}
    ]


# -- history -------------------------------------------------------------------------------------


def test_text_and_all_calls_are_one_message_and_so_are_their_results():
    other = ToolCall("c2", "list")
    shown = messages(
        user("go"),
        AssistantItem.of("I look.", (CALL, other)),
        ToolResult.of(CALL, "text"),
        ToolResult.of(other, "none", is_error=True),
    )
    assert shown == [
        said("go"),
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "a"}},
                {"type": "tool_use", "id": "c2", "name": "list", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "text"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "none", "is_error": True},
            ],
        },
    ]


def test_words_that_follow_results_have_a_message_of_their_own():
    shown = messages(user("go"), AssistantItem((), (CALL,)), ToolResult.of(CALL, "x"), user("now?"))
    assert [message["role"] for message in shown] == ["user", "assistant", "user", "user"]
    assert shown[3] == said("now?")


def test_words_of_users_in_a_row_are_one_message():
    assert messages(user("a"), user("b")) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_words_of_the_runtime_are_marked_as_not_the_users_wherever_they_stand():
    shown = messages(SystemItem.of("summary"), user("hi"), AssistantItem.of("yes"), SystemItem.of("note"))
    assert shown[0]["content"] == [
        {"type": "text", "text": f"{NOTICE_MARK}summary"},
        {"type": "text", "text": "hi"},
    ]
    assert shown[2] == said(f"{NOTICE_MARK}note")


def test_a_history_that_begins_with_the_models_words_begins_with_a_user():
    shown = messages(AssistantItem.of("yes"), user("hi"))
    assert [message["role"] for message in shown] == ["user", "assistant", "user"]
    assert shown[0]["content"][0]["text"].startswith(NOTICE_MARK)


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_blank_texts_are_dropped_since_the_vendor_refuses_them(blank):
    shown = messages(
        user("go"),
        user(blank),
        SystemItem.of(blank),
        AssistantItem((TextPart(blank),), (CALL,)),
        ToolResult.of(CALL, blank),
        AssistantItem.of(blank),
        user("on"),
    )
    assert shown == [
        said("go"),
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "a"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1"}]},
        said("on"),
    ]


def test_a_failure_without_words_gets_some_since_the_vendor_wants_them():
    block = messages(*CALLED, ToolResult.of(CALL, "", is_error=True))[-1]["content"][0]
    assert block["is_error"]
    assert block["content"]


def test_arguments_that_were_no_json_are_never_sent_back():
    broken = ToolCall("c1", "read", {}, '{"path": "a')
    assert messages(user("go"), AssistantItem((), (broken,)))[1]["content"][0]["input"] == {}


def test_reasoning_goes_back_unchanged_where_it_is_signed():
    parts = (
        ThinkingPart("hm", "EqQB"),
        ThinkingPart("", None, "b64"),
        ThinkingPart("unsigned"),
        TextPart("yes"),
    )
    assert messages(user("go"), AssistantItem(parts, (CALL,)))[1]["content"][:3] == [
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "b64"},
        {"type": "text", "text": "yes"},
    ]


def test_pictures_are_sent_as_data_or_as_links():
    parts = [
        TextPart("look"),
        ImagePart("image/png", "AAAA"),
        ImagePart(url="https://example.org/x.png"),
        ImagePart(url="data:image/gif;base64,BBBB"),
    ]
    assert [block.get("source") for block in messages(UserItem.of(parts))[0]["content"]] == [
        None,
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "url", "url": "https://example.org/x.png"},
        {"type": "base64", "media_type": "image/gif", "data": "BBBB"},
    ]


def test_pictures_of_a_tool_are_part_of_its_result():
    result = ToolResult.of(CALL, [TextPart("here"), ImagePart("image/png", "AAAA")])
    (block,) = messages(*CALLED, result)[-1]["content"]
    assert [part["type"] for part in block["content"]] == ["text", "image"]


def test_a_failure_with_pictures_is_not_marked_as_one_since_the_vendor_refuses_that():
    result = ToolResult.of(CALL, [TextPart("late"), ImagePart("image/png", "AAAA")], is_error=True)
    (block,) = messages(*CALLED, result)[-1]["content"]
    assert "is_error" not in block
    assert [part.get("text") for part in block["content"]] == ["Error:", "late", None]


def test_ids_of_other_servers_take_the_form_that_the_vendor_takes():
    call = ToolCall("call:1/ü", "read")
    shown = messages(user("go"), AssistantItem((), (call,)), ToolResult.of(call, "x"))
    assert shown[1]["content"][0]["id"] == shown[2]["content"][0]["tool_use_id"] == "call_1__"


def test_half_characters_become_question_marks():
    assert messages(user("a\ud800b")) == [said("a?b")]


# -- marks ---------------------------------------------------------------------------------------


def marked(value: Any, path: str = "") -> list[str]:
    """The paths of all marks in a body, in the order that the vendor reads it."""
    found = []
    if isinstance(value, dict):
        if not path:
            value = {key: value[key] for key in ("tools", "system", "messages") if key in value}
        found += [path] if "cache_control" in value else []
        for key, inner in value.items():
            found += marked(inner, f"{path}/{key}") if key != "cache_control" else []
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += marked(inner, f"{path}/{number}")
    return found


def test_marks_stand_on_the_last_tool_the_system_prompt_and_the_end_of_the_history():
    shown = sent(user("go"), system="be kind", tools=(READ, LIST))
    assert marked(shown) == ["/tools/1", "/system/0", "/messages/0/content/0"]
    assert shown["system"][0]["cache_control"] == EPHEMERAL


def test_the_end_of_the_last_request_keeps_its_mark_so_that_the_cache_is_found_again():
    first = user("go")
    before = sent(first, tools=(READ,))
    calls = tuple([ToolCall(f"c{n}", "read") for n in range(30)])
    results = [ToolResult.of(call, "x") for call in calls]  # more blocks than the vendor looks back over
    after = sent(first, AssistantItem.of("I look.", calls), *results, tools=(READ,))
    assert marked(before) == ["/tools/0", "/messages/0/content/0"]
    assert marked(after) == ["/tools/0", "/messages/0/content/0", "/messages/2/content/29"]


def test_marks_need_no_memory_of_the_request_before():
    history = [user("go"), AssistantItem.of("yes"), user("on"), AssistantItem.of("no"), user("why")]
    scratch: dict[str, Any] = {}
    for length in (1, 3, 5):
        fresh = body_of(Request(history[:length]), "m")
        assert body_of(Request(history[:length], scratch=scratch), "m") == fresh
    assert marked(json.loads(fresh)) == ["/messages/2/content/0", "/messages/4/content/0"]


def test_a_mark_never_stands_on_reasoning():
    shown = sent(user("go"), AssistantItem((ThinkingPart("hm", "s"),)))
    assert marked(shown) == ["/messages/0/content/0"]


def test_what_is_kept_longer_comes_first():
    shown = sent(user("go"), system="s", tools=(READ,), caching=Caching("5m", "1h"))
    hour = {"type": "ephemeral", "ttl": "1h"}
    assert shown["tools"][0]["cache_control"] == shown["system"][0]["cache_control"] == hour
    assert shown["messages"][0]["content"][0]["cache_control"] == hour
    shown = sent(user("go"), system="s", caching=Caching("1h", "5m"))
    assert shown["system"][0]["cache_control"] == hour
    assert shown["messages"][0]["content"][0]["cache_control"] == EPHEMERAL


def test_no_mark_is_sent_where_none_is_wanted_or_understood():
    assert not marked(sent(user("go"), system="s", tools=(READ,), caching=None))
    assert not marked(sent(user("go"), system="s", tools=(READ,), dialect=Dialect(caching=False)))


# -- the prefix ----------------------------------------------------------------------------------

_texts = st.sampled_from(["", " ", "a", "ü\n", '"q"', "x" * 50])
_calls = st.lists(
    st.builds(ToolCall, st.sampled_from(["a", "b:1"]), st.just("read"), st.sampled_from([{}, {"p": 1}])),
    max_size=2,
).map(tuple)
_parts = st.lists(
    st.builds(TextPart, _texts)
    | st.builds(ThinkingPart, _texts, st.sampled_from([None, "sig"]))
    | st.just(ImagePart("image/png", "AAAA")),
    max_size=3,
).map(tuple)
_items = (
    st.builds(UserItem, _parts)
    | st.builds(SystemItem, _parts)
    | st.builds(AssistantItem, _parts, _calls)
    | st.builds(ToolResult, st.sampled_from(["a", "b:1"]), st.just("read"), _parts, st.booleans())
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "system": _texts,
        "tools": st.sampled_from([(), (READ,), (READ, LIST)]),
        "output_schema": st.just({"type": "object"}),
    },
)


def unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: unmarked(inner) for key, inner in value.items() if key != "cache_control"}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


def content_of(body: bytes) -> list[Any]:
    """What the vendor reads of a request, in its order and block by block, without marks."""
    shown = unmarked(json.loads(body))
    blocks = [(message["role"], block) for message in shown["messages"] for block in message["content"]]
    return [*shown.get("tools", []), *shown.get("system", []), *blocks]


@given(st.lists(_items, min_size=1, max_size=8), _fields)
@example(
    items=[
        AssistantItem((), (ToolCall("b:1", "read", {}),)),
        ToolResult("a", "read"),
        ToolResult("b:1", "read"),
    ],
    fields={},
)
def test_the_content_of_a_request_is_the_beginning_of_the_next_ones(items, fields):
    scratch: dict[str, Any] = {}
    before: list[Any] = []
    bytes_before = b""
    for length in range(1, len(items) + 1):
        request = Request(items[:length], scratch=scratch, **fields)
        body = body_of(request, "m")
        content = content_of(body)
        assert content[: len(before)] == before
        plain = body_of(request, "m", Dialect(caching=False)).removesuffix(b"]}").removesuffix(b"]}")
        assert plain.startswith(bytes_before)
        said = list(
            itertools.takewhile(
                lambda shown: isinstance(shown, tuple) and shown[0] == "user", reversed(content)
            )
        )
        if "Go on." not in plain.decode()[-20:] and NO_RESULT not in str(said):
            before, bytes_before = content, plain  # else nobody had spoken, or results were still missing


@given(st.lists(_items, min_size=1, max_size=8), _fields)
def test_a_request_never_has_more_than_four_marks_and_the_vendors_shape(items, fields):
    shown = json.loads(body_of(Request(items, **fields), "m"))
    assert len(marked(shown)) <= 4
    roles = [message["role"] for message in shown["messages"]]
    assert roles[:1] != ["assistant"]
    assert all(not (a == b == "assistant") for a, b in itertools.pairwise(roles))
    for message in shown["messages"]:
        assert message["content"]
        assert all(block["text"].strip() for block in message["content"] if block["type"] == "text")
        kinds = {block["type"] == "tool_result" for block in message["content"]}
        assert len(kinds) == 1


@given(st.lists(_items, max_size=8), st.lists(_items, max_size=8), _fields)
def test_what_was_encoded_before_never_shows_in_a_later_request(first, second, fields):
    scratch: dict[str, Any] = {}
    body_of(Request(first, scratch=scratch, **fields), "m")
    wanted = body_of(Request(second, **fields), "m")
    assert body_of(Request(second, scratch=scratch, **fields), "m") == wanted


def test_a_result_that_is_replaced_by_a_shorter_copy_leaves_what_was_before_it_as_it_is():
    items: list[Item] = [
        user("go"),
        AssistantItem((), (CALL,)),
        ToolResult.of(CALL, "long " * 100),
        user("on"),
    ]
    scratch: dict[str, Any] = {}
    before = body_of(Request(items, scratch=scratch), "m", Dialect(caching=False))
    items[2] = ToolResult.of(CALL, "short")
    after = body_of(Request(items, scratch=scratch), "m", Dialect(caching=False))
    assert after == body_of(Request(items), "m", Dialect(caching=False))
    same = before.index(b'"long')
    assert after[:same] == before[:same]


def test_a_long_history_is_encoded_in_portions():
    request = Request([user(str(number)) for number in range(5)])
    dialect = Dialect()
    assert [encode_some(request, dialect, None, 2) for _ in range(3)] == [True, True, False]
    assert body_of(request, "m") == body_of(Request(request.items), "m")


# -- typed answers -------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_a_typed_answer_is_asked_for_as_the_arguments_of_one_more_tool():
    shown = sent(user("go"), tools=(READ,), output_schema=SCHEMA)
    assert [tool["name"] for tool in shown["tools"]] == ["read", "final_answer"]
    assert shown["tools"][1]["input_schema"] == SCHEMA
    assert shown["tool_choice"] == {"type": "any"}
    assert marked(shown)[0] == "/tools/1"


def test_any_object_will_do_where_the_schema_says_nothing():
    assert sent(user("go"), output_schema={})["tools"][0]["input_schema"] == {"type": "object"}


def test_a_tool_of_the_same_name_keeps_it():
    tools = (ToolSpec("final_answer", "", {}), ToolSpec("final_answer_", "", {}))
    assert answer_tool_of(Request([], tools=tools, output_schema=SCHEMA)) == "final_answer__"
    assert answer_tool_of(Request([], tools=tools)) is None


def test_a_model_that_refuses_to_be_forced_is_only_asked():
    shown = sent(user("go"), output_schema=SCHEMA, dialect=Dialect(forced_answer=False))
    assert shown["tool_choice"] == {"type": "auto"}


# -- dialects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "simpler"),
    [
        ("tools.0.custom.cache_control: Extra inputs are not permitted", Dialect(caching=False)),
        ("Thinking may not be enabled when tool_choice forces tool use.", Dialect(forced_answer=False)),
        ("`temperature` is deprecated for this model.", Dialect(temperature=False)),
        ("messages.1.content.0: Invalid `signature` in `thinking` block", Dialect(reasoning=False)),
        ("messages: at least one message is required", None),
        ("`top_p` must be at least 0.95 or unset when thinking is enabled or in adaptive mode.", None),
        (
            "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.",
            Dialect(temperature=False),
        ),
    ],
)
def test_a_refusal_says_what_to_leave_out(words, simpler):
    assert adapted(Dialect(), words) == simpler


def test_what_was_left_out_already_is_not_left_out_again():
    assert adapted(Dialect(temperature=False), "temperature") is None


def test_options_that_are_not_understood_are_not_sent():
    parts = (ThinkingPart("hm", "s"), TextPart("x"))
    plainest = Dialect(temperature=False, forced_answer=False, caching=False, reasoning=False)
    shown = sent(user("go"), AssistantItem(parts), dialect=plainest, temperature=0.5, system="s")
    assert "temperature" not in shown
    assert not marked(shown)
    assert shown["messages"][1] == said("x", "assistant")


def test_a_model_is_held_to_a_call_where_it_does_not_refuse_that():
    forced: dict[str, Any] = {"tools": (READ, LIST), "forced_tool": "read"}
    assert sent(user("hi"), **forced)["tool_choice"] == {"type": "tool", "name": "read"}
    assert "tool_choice" not in sent(user("hi"), tools=(READ,))
    learnt = adapted(Dialect(), "Thinking may not be enabled when tool_choice forces tool use.")
    assert learnt is not None
    assert "tool_choice" not in sent(user("hi"), dialect=learnt, **forced)
