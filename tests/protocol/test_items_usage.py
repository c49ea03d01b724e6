"""Items and usage: text of parts, and sums in which unknown stays unknown."""

from functools import reduce
from operator import add

from hypothesis import given
from hypothesis import strategies as st
from protocol_strategies import structs

from protocol.items import AssistantItem, ImagePart, TextPart, ThinkingPart, ToolCall, ToolResult, UserItem
from protocol.usage import Usage, sum_of

usages = structs(Usage)


def test_text_of_an_item_leaves_out_reasoning_and_names_pictures():
    item = AssistantItem((ThinkingPart("hm"), TextPart("a"), ImagePart(), TextPart("b")))
    assert item.text == "a[image image/png]b"


def test_items_are_made_from_text_or_parts():
    assert UserItem.of("hi") == UserItem((TextPart("hi"),))
    assert AssistantItem.of("", (ToolCall("1", "ls"),)).content == ()
    assert ToolResult.of(ToolCall("1", "ls"), [TextPart("x")]).call_id == "1"


@given(usages, usages)
def test_a_sum_of_usage_does_not_depend_on_order(a: Usage, b: Usage):
    assert a + b == b + a


@given(st.lists(usages, min_size=1, max_size=5))
def test_a_sum_is_unknown_only_where_no_part_is_known(parts: list[Usage]):
    known = [part.input_tokens for part in parts if part.input_tokens is not None]
    assert reduce(add, parts).input_tokens == (sum(known) if known else None)


@given(st.lists(usages, min_size=2, max_size=5))
def test_a_sum_with_an_unknown_part_says_it_is_incomplete(parts: list[Usage]):
    for field in ("input_tokens", "output_tokens"):
        known = {getattr(part, field) is not None for part in parts}
        if known == {True, False}:
            assert reduce(add, parts).incomplete


@given(st.lists(usages, min_size=1))
def test_the_sum_of_many_is_what_adding_them_one_by_one_gives(parts: list[Usage]):
    assert sum_of(parts) == reduce(add, parts)


def test_nothing_at_all_is_unknown_and_not_zero():
    assert Usage().total_tokens is None
    assert Usage(input_tokens=3).total_tokens == 3


@given(usages, usages)
def test_a_sum_without_a_part_makes_the_sum_again_with_it(before: Usage, part: Usage):
    whole = before + part
    again = whole.without(part) + part
    for name in Usage.__struct_fields__:
        if name != "incomplete":
            assert getattr(again, name) == getattr(whole, name)
