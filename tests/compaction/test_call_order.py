"""Results stand in the log as they came, and are shown in the order of their calls: whatever that is, all look the same."""

from __future__ import annotations

import random

from histories import called, histories, result, said, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.call_order import in_call_order
from actors.compaction.cut import cut
from actors.compaction.meter import TokenMeter
from actors.compaction.prune import Pruner
from actors.compaction.transcript import entries
from actors.llm.legal import LegalHistory
from protocol.items import AssistantItem, Item, ToolResult


@st.composite
def _groups(draw: st.DrawFn) -> tuple[list[Item], list[Item]]:
    """A history with all results in the order of their calls, and the same as it may have come."""
    ordered: list[Item] = []
    came: list[Item] = []
    for number in range(draw(st.integers(1, 6))):
        ids = [f"{number % 2}-{n}" for n in range(draw(st.integers(1, 5)))]
        sizes = draw(st.lists(st.sampled_from([1, 5, 9000]), min_size=len(ids), max_size=len(ids)))
        results = [result(each, f"{each} {'x' * size}") for each, size in zip(ids, sizes, strict=True)]
        start = [user(f"do {number}"), called(*ids)]
        ordered += [*start, *results]
        came += [*start, *draw(st.permutations(results))]
        if draw(st.booleans()):
            ordered.append(said("so"))
            came.append(ordered[-1])
    return ordered, came


@given(_groups())
def test_whatever_the_order_in_the_log_the_model_sees_the_same(group):
    ordered, came = group
    assert in_call_order(came) == ordered
    assert list(Pruner(came).view()) == list(Pruner(ordered).view())
    assert entries(came) == entries(ordered)


@given(_groups(), st.integers(0, 40_000), st.booleans())
def test_whatever_the_order_in_the_log_a_compaction_cuts_at_the_same_place_and_parts_no_pair(
    group, retained, keep_open
):
    ordered, came = group
    found = [
        cut(each, TokenMeter(each, Pruner(each)).since, retained, keep_open_turn=keep_open)
        for each in (ordered, came)
    ]
    assert found[0] == found[1]
    kept = found[1].kept(came)
    calls = [call.id for item in kept if isinstance(item, AssistantItem) for call in item.calls]
    assert sorted(calls) == sorted(item.call_id for item in kept if isinstance(item, ToolResult))
    assert in_call_order(kept) == found[0].kept(ordered)


@given(_groups(), st.randoms())
def test_a_view_stays_as_it_is_whenever_it_was_asked_for(group, chance: random.Random):
    """Each request begins like the one before, so that a server's cache of it serves on."""
    _, came = group
    growing: list[Item] = []
    pruner = Pruner(growing)
    views = []
    for item in came:
        growing.append(item)
        if chance.random() < 0.5:
            view = pruner.view()
            views.append((view, list(view)))
    for view, shown in views:
        assert list(view) == shown
    assert list(pruner.view()) == list(Pruner(came).view())


@given(histories)
def test_any_history_is_shown_with_the_items_that_it_has_and_is_the_same_however_it_is_asked(items):
    shown = in_call_order(items)
    assert sorted(map(id, shown)) == sorted(map(id, items))
    assert [type(item) for item in shown] == [type(item) for item in items]
    growing: list[Item] = []
    pruner = Pruner(growing)
    for item in items:
        growing.append(item)
        pruner.view()
    assert list(pruner.view()) == list(Pruner(items).view())
    assert [getattr(item, "call_id", None) for item in pruner.view()] == [
        getattr(item, "call_id", None) for item in shown
    ]


@given(_groups())
def test_what_a_server_is_sent_answers_each_call_once_right_behind_its_answer(group):
    _, came = group
    legal = LegalHistory(None, "own")
    sent: list[Item] = []
    for place, item in enumerate(Pruner(came).view()):
        sent += legal.take(item, place)
    sent += legal.close()
    waiting: list[str] = []
    for item in sent:
        if isinstance(item, ToolResult):
            assert item.call_id == waiting.pop(0)
        else:
            assert waiting == []
            waiting = [call.id for call in item.calls] if isinstance(item, AssistantItem) else []
    assert waiting == []


def test_results_of_two_calls_with_one_id_and_of_none_have_their_place():
    a = called("same", "same", "b")
    first, second, b, stranger = result("same", "1"), result("same", "2"), result("b"), result("none")
    items = [a, b, stranger, first, second]
    assert in_call_order(items) == [a, first, second, b, stranger]
    assert list(Pruner(items).view()) == [a, first, second, b, stranger]


def test_results_that_come_when_all_calls_have_theirs_change_nothing():
    a, one, two, late = called("1", "2"), result("1"), result("2"), result("1", "again")
    assert in_call_order([a, two, one, late]) == [a, one, two, late]
    assert in_call_order([a, two, late, one]) == [a, late, two, one], "the first that came is the call's"


def test_a_history_in_order_is_not_copied():
    items = [called("1", "2"), result("1"), result("2"), said("so")]
    assert in_call_order(items) is items
