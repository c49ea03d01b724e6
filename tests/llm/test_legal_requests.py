"""Whatever a history holds, the request that is made of it is one that strict servers take; and what is sent of a
history does not change as it grows.
"""

import asyncio
import json
from typing import Any

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_server import RawServer, stream_reply
from strict_server import answer_from, anthropic_faults, openai_faults, strict

from actors.llm.anthropic import dialect as anthropic_dialect
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.anthropic.request import body_of as anthropic_body
from actors.llm.base import Request
from actors.llm.legal import GO_ON, NO_RESULT, LegalHistory, legal_name, short_id
from actors.llm.openai import dialect as openai_dialect
from actors.llm.openai.client import OpenAIClient
from actors.llm.openai.request import body_of as openai_body
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
from protocol.tools import ToolSpec

HERE, THERE = "openai:here", "anthropic:there"

_PARTS = [
    (),
    (TextPart(""),),
    (TextPart(" "),),
    (TextPart("hello"),),
    (TextPart("two\nlines "), ThinkingPart("hm", "sig")),
    (ThinkingPart("hm"), TextPart("yes "), TextPart("\n")),
    (ImagePart("image/png", "AAAA"),),
    (VendorPart({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),),
]
_IDS = ["", "1", "call_1", "toolu_01ABCDEFGH", "functions.look:0", "x" * 80, "a b", "\u00fc", "123456789"]
_NAMES = ["look", "", "functions.look", "n" * 90, "\u00fc \n"]
_ids, _names, _parts = st.sampled_from(_IDS), st.sampled_from(_NAMES), st.sampled_from(_PARTS)
_calls = st.lists(
    st.builds(
        lambda shown, name, odd: ToolCall(shown, name, {}, '{"a' if odd else None, {"extra": 1}),
        _ids,
        _names,
        st.booleans(),
    ),
    max_size=2,
).map(tuple)
_origins = st.sampled_from([None, HERE, THERE])
_items = st.one_of(
    st.builds(UserItem, _parts),
    st.builds(SystemItem, _parts),
    st.builds(
        lambda parts, calls, origin: AssistantItem(parts, calls, {"a": 1}, origin, "content"),
        _parts,
        _calls,
        _origins,
    ),
    st.builds(AssistantItem, _parts, refused=st.booleans()),
    st.builds(ToolResult, _ids, _names, _parts, st.booleans()),
)
_histories = st.lists(_items, max_size=8)
TOOLS = (ToolSpec("files.read", "Reads.", {"type": "object"}), ToolSpec("look", "Looks.", {"type": "object"}))


@settings(max_examples=times(20), deadline=None)
@given(_histories, st.none() | st.just("be kind"), st.booleans())
def test_any_history_is_legal_at_openai_and_mistral(history: list[Item], system: str | None, mistral: bool):
    dialect = openai_dialect.Dialect(short_ids=mistral, alternate=mistral)
    body = openai_body(Request(history, system, TOOLS), "m", dialect, origin="openai:elsewhere")
    assert list(openai_faults(json.loads(body), mistral=mistral)) == []


@settings(max_examples=times(20), deadline=None)
@given(_histories, st.booleans())
def test_any_history_is_legal_at_anthropic(history: list[Item], alternate: bool):
    dialect = anthropic_dialect.Dialect(alternate=alternate, unsigned=False)
    body = anthropic_body(Request(history, None, TOOLS), "m", dialect, origin=THERE)
    assert list(anthropic_faults(json.loads(body), alternate=alternate)) == []


@settings(max_examples=times(20), deadline=None)
@given(_histories, st.lists(st.integers(0, 10), max_size=4), st.booleans())
def test_a_history_that_grows_or_is_cut_back_is_sent_as_if_it_were_new(history, lengths, strict_one):
    scratch: dict[str, Any] = {}
    openai = openai_dialect.Dialect(short_ids=strict_one, alternate=strict_one)
    anthropic = anthropic_dialect.Dialect(alternate=strict_one)
    for length in [*lengths, len(history)]:
        items = history[:length]
        kept, fresh = Request(items, scratch=scratch), Request(items, scratch={})
        assert openai_body(kept, "m", openai, origin=HERE) == openai_body(fresh, "m", openai, origin=HERE)
        shown = anthropic_body(kept, "m", anthropic, origin=THERE)
        assert shown == anthropic_body(fresh, "m", anthropic, origin=THERE)


@settings(max_examples=times(20), deadline=None)
@given(_histories, _histories, st.sampled_from([HERE, None]))
def test_what_was_sent_of_a_history_is_the_beginning_of_what_is_sent_of_a_longer(history, more, origin):
    spoken = UserItem.of("and now?")
    answer = AssistantItem.of("this")  # which ends the message that may still grow
    short = openai_body(Request([*history, spoken, answer]), "m", openai_dialect.Dialect(), origin=origin)
    long = openai_body(
        Request([*history, spoken, answer, *more]), "m", openai_dialect.Dialect(), origin=origin
    )
    nobody_spoke = b',{"role":"user","content":%b}]}' % json.dumps(GO_ON).encode()
    assert long.startswith(short.removesuffix(nobody_spoke))


@given(_ids, _ids)
def test_ids_are_mapped_one_to_one_and_always_alike(one: str, other: str):
    calls = (ToolCall(one, "look"), ToolCall(other, "look"))
    sent = []
    for _ in range(2):
        (item,) = LegalHistory(None, "short").take(AssistantItem((), calls), 0)
        assert isinstance(item, AssistantItem)
        sent.append([call.id for call in item.calls])
    assert sent[0] == sent[1]
    assert len(set(sent[0])) == 2
    assert sent[0][0] == (one if len(one) == 9 else short_id(one))


ONE, TWO, OTHER = (ToolCall(f"call{n}xyz1"[:9], "look", {}) for n in range(3))
BOTH = [UserItem.of("hi"), AssistantItem((), (ONE, TWO))]
_results = st.permutations(
    [
        ToolResult.of(ONE, "one"),
        ToolResult.of(TWO, "two"),
        ToolResult.of(OTHER, "stray"),
        ToolResult.of(ONE, "late"),
    ]
).flatmap(lambda results: st.integers(0, 4).map(lambda count: results[:count]))


@given(_results, st.booleans(), st.booleans())
def test_results_that_no_call_asked_for_stand_behind_those_of_the_open_calls(results, alternate, goes_on):
    history = [*BOTH, *results, *([UserItem.of("and?")] if goes_on else [])]
    first = {result.call_id: result.text for result in reversed(results)}
    wanted = {call.id: first.get(call.id, NO_RESULT) for call in (ONE, TWO)}
    strays = {"stray", "one", "late"} & {result.text for result in results} - {first.get(ONE.id)}
    body = openai_body(
        Request(history), "m", openai_dialect.Dialect(short_ids=alternate, alternate=alternate)
    )
    assert list(openai_faults(json.loads(body), mistral=alternate)) == []
    shown = [each for each in json.loads(body)["messages"] if each["role"] == "tool"]
    assert {each["tool_call_id"]: each["content"].removeprefix("Error: ") for each in shown} == wanted
    assert all(f"asked for: {words}" in body.decode() for words in strays)
    body = anthropic_body(Request(history), "m", anthropic_dialect.Dialect(alternate=alternate), origin=THERE)
    assert list(anthropic_faults(json.loads(body), alternate=alternate)) == []
    blocks = [block for message in json.loads(body)["messages"] for block in message["content"]]
    shown = [each for each in blocks if each["type"] == "tool_result"]
    assert {each["tool_use_id"]: each["content"] for each in shown} == wanted
    assert all(f"asked for: {words}" in body.decode() for words in strays)


def test_names_that_are_changed_are_still_kept_apart_and_legal_ones_stay():
    assert legal_name("look") == "look"
    assert legal_name("a.b") != legal_name("a b")
    assert len(legal_name("n" * 500)) <= 64


CALL = ToolCall("toolu_01ABCDEFGH", "look", {"path": "a"})
CALLED: list[Item] = [UserItem.of("hi"), AssistantItem((), (CALL,)), ToolResult.of(CALL, "seen")]
SAID = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


async def test_a_server_that_wants_other_ids_and_roles_teaches_it_once_and_is_never_refused_again():
    refused: list[str] = []
    script = strict(lambda body: openai_faults(body, mistral=True), lambda _: stream_reply(SAID), refused)
    async with RawServer(script) as server, OpenAIClient(server.url, "m") as client:
        history = [*CALLED, UserItem.of("and?")]
        for _ in range(3):
            assert (await answer_from(client, Request(history))).item.text == "ok"
        assert len(refused) == 2
        ids = [each.json["messages"][1]["tool_calls"][0]["id"] for each in server.received[2:]]
        assert set(ids) == {short_id(CALL.id)}


async def test_a_server_of_mistrals_is_known_and_not_asked_twice():
    refused: list[str] = []
    script = strict(lambda body: openai_faults(body, mistral=True), lambda _: stream_reply(SAID), refused)
    async with RawServer(script) as server, OpenAIClient(server.url, "mistral-large-latest") as client:
        await answer_from(client, Request([*CALLED, UserItem.of("and?")]))
    assert refused == []


@pytest.mark.parametrize(
    "words",
    [
        "messages.3.content.0: image input is not supported by this model",
        "unknown variant `image_url`, expected `text`",
        "This model does not support image input",
    ],
)
async def test_a_model_that_sees_no_pictures_learns_of_them(words: str):
    refused: list[str] = []

    def faults(body: dict[str, Any]) -> Any:
        return iter([words] if "image" in json.dumps(body).replace("a picture", "") else [])

    async with RawServer(strict(faults, lambda _: stream_reply(SAID), refused)) as server:
        async with OpenAIClient(server.url, "m") as client:
            picture = UserItem.of([TextPart("look"), ImagePart("image/png", "AAAA")])
            await answer_from(client, Request([picture]))
        assert len(refused) == 1
        assert "picture" in server.received[-1].body.decode()


async def test_results_and_words_share_a_message_at_anthropic_servers_that_want_roles_in_turn():
    from messages_kit import HELLO  # noqa: PLC0415

    refused: list[str] = []
    script = strict(
        lambda body: anthropic_faults(body, alternate=True), lambda _: stream_reply(HELLO), refused
    )
    async with RawServer(script) as server, AnthropicClient(server.url, "m") as client:
        for _ in range(2):
            await answer_from(client, Request([*CALLED, UserItem.of("and?")], scratch={}))
    assert len(refused) == 1


@settings(max_examples=times(4), deadline=None)
@given(st.lists(_histories, min_size=1, max_size=3))
def test_strict_servers_never_refuse_what_a_client_sends_over_a_socket(histories: list[list[Item]]):
    async def main() -> None:
        refused: list[str] = []
        script = strict(openai_faults, lambda _: stream_reply(SAID), refused)
        async with RawServer(script) as server, OpenAIClient(server.url, "m") as client:
            for history in histories:
                await answer_from(client, Request(history, tools=TOOLS, scratch={}))
        assert refused == []

    asyncio.run(main())
