"""Requests are what servers can read, and of one history always begin with the same bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.base import Request
from actors.llm.legal import GO_ON, NOTICE_MARK
from actors.llm.openai.dialect import Dialect, adapted, dialect_of
from actors.llm.openai.request import body_of, encode_some
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


def sent(*items: Item, dialect: Dialect = Dialect(), **fields: Any) -> dict[str, Any]:  # noqa: B008
    return json.loads(body_of(Request(list(items), **fields), "m", dialect))


def messages(*items: Item, **fields: Any) -> list[dict[str, Any]]:
    return sent(*items, **fields)["messages"]


def user(text: str) -> UserItem:
    return UserItem.of(text)


CALL = ToolCall("c1", "read", {"path": "a"})
CALLED = (UserItem.of("go"), AssistantItem((), (CALL,)))


def test_a_request_has_what_was_asked_for_and_nothing_else():
    assert sent(user("hi")) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_limits_and_temperature_are_sent():
    shown = sent(user("hi"), max_tokens=5, temperature=0.0)
    assert (shown["max_tokens"], shown["temperature"]) == (5, 0.0)


def test_a_whole_answer_is_asked_for_without_stream_options():
    shown = json.loads(body_of(Request([user("hi")]), "", Dialect(), streaming=False))
    assert shown == {"stream": False, "messages": [{"role": "user", "content": "hi"}]}


def test_the_system_prompt_comes_first():
    assert messages(user("hi"), system="be kind")[0] == {"role": "system", "content": "be kind"}


def test_words_of_the_runtime_at_the_beginning_become_part_of_the_one_system_message():
    assert messages(SystemItem.of("summary"), SystemItem.of("files"), user("hi"), system="be kind") == [
        {"role": "system", "content": "be kind\n\nsummary\n\nfiles"},
        {"role": "user", "content": "hi"},
    ]


def test_words_of_the_runtime_later_on_are_marked_as_not_the_users():
    assert messages(user("hi"), AssistantItem.of("yes"), SystemItem.of("note")) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": f"{NOTICE_MARK}note"},
    ]


def test_user_messages_in_a_row_are_one_since_some_templates_want_turns():
    assert messages(user("a"), SystemItem.of("n"), user("b")) == [
        {"role": "user", "content": f"a\n\n{NOTICE_MARK}n\n\nb"}
    ]


def test_bug_a_result_names_the_call_it_answers():
    shown = messages(user("go"), AssistantItem((), (CALL,)), ToolResult.of(CALL, "text"))
    assert shown[2] == {"role": "tool", "tool_call_id": "c1", "content": "text"}


def test_bug_text_and_all_calls_are_one_assistant_message():
    other = ToolCall("c2", "list")
    shown = messages(user("go"), AssistantItem.of("I look.", (CALL, other)))
    assert shown[1] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}},
            {"id": "c2", "type": "function", "function": {"name": "list", "arguments": "{}"}},
        ],
    }


def test_bug_calls_without_text_send_null_as_content():
    assert messages(user("go"), AssistantItem((), (CALL,)))[1]["content"] is None


def test_bug_a_plain_result_is_not_quoted_again():
    assert messages(*CALLED, ToolResult.of(CALL, 'say "hi"'))[-1]["content"] == 'say "hi"'


def test_a_failed_result_says_so():
    shown = messages(*CALLED, ToolResult.of(CALL, "no such file", is_error=True))
    assert shown[-1]["content"] == "Error: no such file"


def test_arguments_that_were_no_json_are_never_sent_back():
    broken = ToolCall("c1", "read", {}, '{"path": "a')
    shown = messages(user("go"), AssistantItem((), (broken,)))
    assert shown[1]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_reasoning_is_not_sent_back():
    shown = messages(user("go"), AssistantItem((ThinkingPart("hm", "sig"), TextPart("yes"))))
    assert shown[1] == {"role": "assistant", "content": "yes"}


def test_pictures_of_a_user_are_sent_as_data_or_as_links():
    shown = messages(
        UserItem.of(
            [TextPart("look"), ImagePart("image/png", "AAAA"), ImagePart(url="https://example.org/x.png")]
        )
    )
    assert shown[0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}},
    ]


def test_a_picture_and_a_text_in_a_row_are_one_message_of_parts():
    shown = messages(UserItem.of([ImagePart("image/png", "AAAA")]), user("what is it?"))
    assert [part["type"] for part in shown[0]["content"]] == ["image_url", "text"]


PICTURE = ImagePart("image/png", "AAAA")
OTHER = ToolCall("c2", "list")


def test_pictures_of_results_are_shown_behind_all_results():
    shown = messages(
        user("go"),
        AssistantItem((), (CALL, OTHER)),
        ToolResult.of(CALL, [TextPart("shot: "), PICTURE]),
        ToolResult.of(OTHER, [PICTURE, TextPart(" and "), PICTURE]),
        user("so?"),
    )
    assert [each["role"] for each in shown] == ["user", "assistant", "tool", "tool", "user"]
    assert shown[2]["content"] == "shot: [picture 1, shown below]"
    assert shown[3]["content"] == "[picture 2, shown below] and [picture 3, shown below]"
    parts = shown[4]["content"]
    words = [part["text"] for part in parts if part["type"] == "text"]
    assert words == [
        *(NOTICE_MARK, "Picture 1, of the result of the tool read:"),
        *(NOTICE_MARK, "Picture 2, of the result of the tool list:"),
        *(NOTICE_MARK, "Picture 3, of the result of the tool list:"),
        "so?",
    ]
    assert [n for n, part in enumerate(parts) if part["type"] == "image_url"] == [2, 5, 8]
    strict = messages(*CALLED, ToolResult.of(CALL, [PICTURE]), dialect=Dialect(alternate=True))
    assert [each["role"] for each in strict] == ["user", "assistant", "tool", "assistant", "user"]


def test_a_model_that_sees_none_reads_of_the_picture_in_a_result():
    result = ToolResult.of(CALL, [TextPart("shot: "), PICTURE])
    shown = messages(*CALLED, result, dialect=Dialect(images=False))
    assert shown[-1]["content"] == "shot: [a picture, which this model cannot see]"


@pytest.mark.parametrize(
    "words",
    [
        "This model is missing data required for image input",
        "No endpoints found that support image input",
        "'messages.2.content' : value must be a string",
        "messages[1].content must be a string",
        "messages[3]: unknown variant `image_url`, expected `text`",
    ],
)
def test_a_refusal_of_pictures_is_learnt_also_where_tools_alone_gave_any(words: str):
    seen = Request([*CALLED, ToolResult.of(CALL, [PICTURE])])
    assert adapted(Dialect(), words, seen) == Dialect(images=False)
    assert adapted(Dialect(), words, Request([*CALLED, ToolResult.of(CALL, "none")])) is None


def test_tools_are_sent_with_their_schemas_and_left_out_where_there_are_none():
    tool = ToolSpec("read", "reads", {"type": "object"})
    assert sent(user("hi"), tools=(tool,))["tools"] == [
        {
            "type": "function",
            "function": {"name": "read", "description": "reads", "parameters": {"type": "object"}},
        }
    ]
    assert "tools" not in sent(user("hi"))


def test_tools_that_change_are_encoded_anew():
    scratch: dict[str, Any] = {}
    for name in ("a", "a", "b"):
        body = body_of(
            Request([user("hi")], tools=(ToolSpec(name, "", {}),), scratch=scratch), "m", Dialect()
        )
        assert json.loads(body)["tools"][0]["function"]["name"] == name


def test_an_answer_of_a_type_asks_for_its_schema():
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert sent(user("hi"), output_schema=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }
    assert sent(user("hi"), output_schema={})["response_format"] == {"type": "json_object"}


def test_half_a_character_does_not_stop_a_request():
    assert messages(user("a\ud83db"))[0]["content"] == "a?b"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("Unrecognized request argument supplied: stream_options", {"usage_option": False}),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            {"max_tokens_field": "max_completion_tokens"},
        ),
        ("'response_format.type' must be 'json_object'", {"json_schema": False}),
        ("This model does not support response_format json_schema", {"json_schema": False}),
        ("body.response_format: Extra inputs are not permitted", {"json_schema": False}),
        ("Invalid value: 'json_schema'. Supported values are: 'text'", {"json_schema": False}),
        ("something else", None),
    ],
)
def test_a_refusal_teaches_what_a_server_understands(words, change):
    request = Request([], max_tokens=5, output_schema={"type": "object", "properties": {}})
    dialect = adapted(Dialect(), words, request)
    assert dialect == (None if change is None else Dialect(**change))


def test_a_server_that_knows_no_json_mode_at_all_is_asked_in_plain_words():
    request = Request([user("hi")], output_schema={"type": "object", "properties": {}})
    once = adapted(Dialect(), "response_format is not supported", request)
    assert json.loads(body_of(request, "m", once))["response_format"] == {"type": "json_object"}
    twice = adapted(once, "response_format is not supported", request)
    assert "response_format" not in json.loads(body_of(request, "m", twice))
    assert adapted(twice, "response_format is not supported", request) is None


@pytest.mark.parametrize(
    ("url", "both"),
    [
        ("https://api.openai.com/v1", True),
        ("https://x.openai.azure.com/openai", True),
        ("https://openrouter.ai/api/v1", True),
        ("http://127.0.0.1:11434/v1", False),
        ("http://gpu.lan:8000/v1", False),
    ],
)
def test_only_vendors_are_known_to_take_a_form_beside_tools(url, both):
    request = Request([user("hi")], output_schema=SCHEMA, tools=(ToolSpec("a", "", {}),))
    body = json.loads(body_of(request, "m", dialect_of(url, "m")))
    assert ("response_format" in body) == both
    assert ("Call tools" in body["messages"][-1]["content"]) != both


@pytest.mark.parametrize(
    "words",
    [
        "json mode cannot be combined with tool/function calling",
        "Function calling with a response mime type: 'application/json' is unsupported",
        "response_format json_schema is not supported together with tools",
    ],
)
def test_a_server_that_takes_tools_or_a_form_is_asked_in_words(words):
    request = Request([user("hi")], output_schema=SCHEMA, tools=(ToolSpec("a", "", {}),))
    assert adapted(Dialect(), words, request) == Dialect(format_beside_tools=False)
    assert adapted(Dialect(), words, Request([user("hi")], tools=request.tools)) is None


SCHEMA = {"type": "object", "properties": {"people": {"type": "integer"}}}
BY_WORDS = Dialect(json_schema=False, json_object=False)


@pytest.mark.parametrize("dialect", [BY_WORDS, Dialect(json_schema=False)])
def test_a_schema_that_a_server_cannot_be_sent_is_shown_to_the_model_in_words_at_the_end(dialect: Dialect):
    last = messages(user("hi"), output_schema=SCHEMA, dialect=dialect)[-1]
    assert last["role"] == "user"
    before, mark, words = last["content"].partition(f"\n\n{NOTICE_MARK}")
    assert (before, bool(mark)) == ("hi", True)
    assert words.startswith("Answer with one JSON object")
    assert json.loads(words.rpartition("\n")[2]) == SCHEMA
    behind_a_result = messages(
        user("hi"),
        AssistantItem((), (CALL,)),
        ToolResult.of(CALL, "x"),
        output_schema=SCHEMA,
        dialect=dialect,
    )
    assert [each["role"] for each in behind_a_result] == ["user", "assistant", "tool", "user"]
    assert behind_a_result[-1]["content"] == NOTICE_MARK + words
    assert len(messages(system="be brief", output_schema=SCHEMA, dialect=dialect)) == 2
    assert len(messages(output_schema=SCHEMA, dialect=dialect)) == 1


def test_a_schema_that_a_server_holds_the_model_to_is_not_reported_twice():
    assert messages(user("hi"), output_schema=SCHEMA) == [{"role": "user", "content": "hi"}]


def test_what_is_reported_in_words_is_no_part_of_the_history():
    scratch: dict[str, Any] = {}
    first = Request([user("hi")], output_schema=SCHEMA, scratch=scratch)
    body_of(first, "m", BY_WORDS)
    again = Request([user("hi"), AssistantItem.of("no"), user("go on")], scratch=scratch)
    shown = json.loads(body_of(again, "m", BY_WORDS))["messages"]
    assert [each["content"] for each in shown] == ["hi", "no", "go on"]


def test_a_server_that_knows_schemas_alone_gets_one_for_any_object():
    request = Request([user("hi")], output_schema={})
    dialect = adapted(Dialect(), "'response_format.type' must be 'json_schema' or 'text'", request)
    assert json.loads(body_of(request, "m", dialect))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}},
    }


def test_a_server_is_not_misunderstood_over_what_was_not_sent():
    words = "max_completion_tokens and json_schema are not supported"
    assert adapted(Dialect(), words, Request([user("hi")])) is None


_text = st.text(max_size=8)
_ids = st.integers(0, 99).map(lambda n: f"c{n}")
_items = st.one_of(
    _text.map(UserItem.of),
    _text.map(SystemItem.of),
    _text.map(lambda data: UserItem.of([ImagePart("image/png", data), TextPart(data)])),
    st.builds(
        AssistantItem,
        _text.map(lambda text: (TextPart(text),) if text else ()),
        st.lists(
            st.builds(ToolCall, _ids, _text, st.dictionaries(_text, st.integers(), max_size=2)), max_size=2
        ).map(tuple),
    ),
    st.builds(ToolResult, _ids, _text, _text.map(lambda text: (TextPart(text),)), st.booleans()),
    st.builds(ToolResult, _ids, _text, st.just((TextPart("shot"), PICTURE)), st.booleans()),
)
_histories = st.lists(_items, max_size=12)


def fresh(items: list[Item], system: str | None) -> bytes:
    return body_of(Request(items, system), "m", Dialect())


@given(_histories, st.lists(st.integers(0, 12), max_size=5), st.none() | _text)
def test_a_history_that_grows_is_sent_as_if_it_were_new(history, lengths, system):
    scratch: dict[str, Any] = {}
    for length in [*sorted(lengths), *lengths, len(history)]:
        items = history[:length]
        assert body_of(Request(items, system, scratch=scratch), "m", Dialect()) == fresh(items, system)


@given(_histories, _histories, st.integers(0, 12), _items)
def test_an_item_that_is_replaced_is_sent_as_if_it_had_always_been_so(history, more, at, other):
    scratch: dict[str, Any] = {}
    body_of(Request(history, scratch=scratch), "m", Dialect())
    changed = [other if place == at else item for place, item in enumerate(history)] + more
    assert body_of(Request(changed, scratch=scratch), "m", Dialect()) == fresh(changed, None)


@given(_histories, _histories)
def test_the_bytes_of_a_longer_history_begin_with_those_of_the_shorter(history, more):
    first = AssistantItem.of("done")  # an answer closes the message that stood last
    short, long = fresh([*history, first], "s"), fresh([*history, first, *more], "s")
    nobody_spoke = b',{"role":"user","content":%b}]}' % json.dumps(GO_ON).encode()
    assert long.startswith(short.removesuffix(nobody_spoke))


def test_nothing_is_encoded_twice():
    encoded: list[str] = []

    class Watched(UserItem, frozen=True):
        """A user item that says when somebody reads it."""

        @property
        def content_read(self) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            if name == "content":
                encoded.append(name)
            return super().__getattribute__(name)

    scratch: dict[str, Any] = {}
    items: list[Item] = []
    for _ in range(5):
        items += [Watched.of("hello"), AssistantItem.of("yes")]
        body_of(Request(items, scratch=scratch), "m", Dialect())
    # looked at once for pictures, and whether it says anything, and encoded once
    assert len(encoded) == 15


def test_a_long_history_is_encoded_in_slices():
    request = Request([user("x"), AssistantItem.of("y")] * 50)
    rounds = 0
    while encode_some(request, Dialect(), None, 30):
        rounds += 1
    assert rounds == 3
    assert body_of(request, "m", Dialect()) == fresh(list(request.items), None)


# -- a call that has to come ---------------------------------------------------------------------


def test_a_model_is_held_to_a_call_where_the_server_can_and_not_where_it_refuses_that():
    read, look = (ToolSpec(name, "", {"type": "object"}) for name in ("read", "look"))
    forced: dict[str, Any] = {"tools": (read,), "forced_tool": "read"}
    assert sent(user("hi"), **forced)["tool_choice"] == "required"
    named = sent(user("hi"), tools=(read, look), forced_tool="look")["tool_choice"]
    assert named == {"type": "function", "function": {"name": "look"}}
    assert "tool_choice" not in sent(user("hi"), tools=(read,))
    request = Request([user("hi")], **forced)
    learnt = adapted(Dialect(), "deepseek-reasoner does not support this tool_choice", request)
    assert learnt == Dialect(tool_choice=False)
    assert "tool_choice" not in sent(user("hi"), dialect=learnt, **forced)
    assert adapted(learnt, "tool_choice", request) is None
    assert adapted(Dialect(), "tool_choice", Request([user("hi")])) is None
