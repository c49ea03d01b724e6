"""A real llama-server is understood in both of its formats, whatever its model says."""

import asyncio

import msgspec
import pytest
from real_kit import BASE_URL, CLIENTS, answer_from, answered, ask, garbled, in_all_formats, needs_server

from protocol.errors import ModelError
from protocol.items import AssistantItem, Item, SystemItem, ThinkingPart, ToolCall, ToolResult, UserItem
from protocol.tools import ToolSpec

pytestmark = [needs_server, pytest.mark.timeout(180)]

READ = ToolSpec(
    "read_file",
    "Read a file.",
    {"type": "object", "properties": {"path": {"type": "string", "maxLength": 20}}, "required": ["path"]},
)
COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def words_of(item: AssistantItem) -> str:
    """All that was said, reasoning too."""
    return "".join(part.text for part in item.content)


@in_all_formats
def test_a_stream_says_what_a_whole_answer_says(scheme):
    streamed, whole = (answered(scheme, ask(), streaming=streaming) for streaming in (True, False))
    assert words_of(streamed.item)
    assert (words_of(streamed.item), streamed.stop_reason) == (words_of(whole.item), whole.stop_reason)
    assert streamed.usage.input_tokens == whole.usage.input_tokens > 0
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 0
    assert streamed.model == whole.model
    assert streamed.model


def test_both_formats_say_the_same():
    openai, anthropic = (answered(scheme, ask(system="be kind")) for scheme in ("openai", "anthropic"))
    assert words_of(openai.item) == words_of(anthropic.item)
    assert openai.stop_reason == anthropic.stop_reason
    assert openai.usage.total_tokens == anthropic.usage.total_tokens


@in_all_formats
def test_an_answer_cut_by_max_tokens_says_so(scheme):
    answer = answered(scheme, ask(max_tokens=4))
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 4)


@in_all_formats
@pytest.mark.parametrize("streaming", [True, False])
def test_a_call_is_whole_or_known_to_be_cut(scheme, streaming):
    for most in (6, 12, 24, 48, 200):
        try:
            answer = answered(scheme, ask(tools=(READ,), max_tokens=most), streaming=streaming)
        except ModelError as error:
            if not garbled(error):
                raise
            continue
        for call in answer.item.calls:
            assert (call.invalid is None) == (call.arguments.keys() == {"path"})
            assert call.invalid is None or answer.stop_reason == "max_tokens"


@in_all_formats
@pytest.mark.parametrize("streaming", [True, False])
def test_a_typed_answer_fits_its_schema(scheme, streaming):
    answer = answered(scheme, ask(output_schema=COUNT, max_tokens=400, temperature=0.8), streaming=streaming)
    # In the Anthropic format a tool is forced, which the server ignores where a model's template has no tools.
    if answer.stop_reason == "end_turn" and (scheme == "openai" or answer.item.text.startswith("{")):
        assert isinstance(msgspec.json.decode(answer.item.text)["count"], int)
    assert not answer.item.calls


@in_all_formats
@pytest.mark.parametrize("streaming", [True, False])
def test_a_prompt_that_does_not_fit_is_an_overflow_that_says_by_how_much(scheme, streaming):
    with pytest.raises(ModelError) as caught:
        answered(scheme, ask("the quick brown fox " * 40_000), streaming=streaming)
    error = caught.value
    assert (error.kind, error.status, error.retryable) == ("context_overflow", 400, False)
    assert error.prompt_tokens > error.context_window > 0


@in_all_formats
def test_an_answer_that_fills_the_context_has_an_end(scheme):
    with pytest.raises(ModelError) as caught:
        answered(scheme, ask("the quick brown fox " * 40_000))
    window = caught.value.context_window
    if window > 16_384:
        pytest.skip("the server's context is too large to fill in a test")
    answer = answered(scheme, ask(max_tokens=window + 100))
    assert answer.stop_reason in {"max_tokens", "end_turn"}
    if answer.stop_reason == "max_tokens":
        assert answer.usage.total_tokens == window


@in_all_formats
async def test_what_was_answered_is_taken_back_as_history(scheme):
    async with CLIENTS[scheme](BASE_URL, "tiny") as client:
        items: list[Item] = [UserItem.of("list the files")]
        for _ in range(3):
            request = ask(temperature=0.8, max_tokens=30)
            answer = await answer_from(client, msgspec.structs.replace(request, items=list(items)))
            call = ToolCall("c1", "read_file", {"path": "a"})
            said = AssistantItem((*answer.item.content, ThinkingPart("unsigned")), (call,))
            items += [said, ToolResult.of(call, ""), SystemItem.of("a notice"), UserItem.of("and then?")]


@in_all_formats
async def test_sixty_four_streams_at_once_all_come_to_their_end(scheme):
    async with CLIENTS[scheme](BASE_URL, "tiny") as client:
        requests = [ask(f"list {number} files", max_tokens=8) for number in range(64)]
        answers = await asyncio.gather(*(answer_from(client, request) for request in requests))
        assert all(words_of(answer.item) or answer.item.calls for answer in answers)
        assert all(0 < answer.usage.output_tokens <= 8 for answer in answers)


@in_all_formats
async def test_a_stream_that_is_closed_early_leaves_the_server_to_others(scheme):
    async with CLIENTS[scheme](BASE_URL, "tiny") as client:
        for _ in range(8):
            stream = client.stream(ask(max_tokens=2000))
            await anext(stream)
            await stream.aclose()
        assert (await answer_from(client, ask(max_tokens=4))).usage is not None
