import pytest
from histories import called, histories, result, said, turn, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.call_order import in_call_order, moved_in
from actors.compaction.prune import CUT_OFF, CUT_RESULT, Pruner, RequestView, cut_result
from actors.compaction.tokens import encoded_size
from protocol.items import AssistantItem, ImagePart, TextPart, ThinkingPart, ToolResult
from protocol.wire import encode


def long_history(turns, size=9000):
    return [user("go"), *(item for n in range(turns) for item in turn(n, size))]


def cut_places(view, items):
    return [n for n, item in enumerate(view) if item is not items[n]]


def test_results_of_the_last_three_turns_are_shown_whole():
    items = long_history(3, size=100_000)
    assert list(Pruner(items).view()) == items


def test_old_results_over_2000_characters_are_cut_to_500_with_a_marker():
    items = long_history(5)
    view = Pruner(items).view()
    assert cut_places(view, items) == [2, 4]
    text = view[2].text
    assert text.startswith("x" * CUT_RESULT + "\n[")
    assert "9000 characters" in text
    assert len(text) < 600


def test_old_results_of_2000_characters_stay():
    items = long_history(40, size=2000)
    assert list(Pruner(items).view()) == items


def test_the_history_itself_is_never_changed_by_pruning():
    items = long_history(9)
    before = list(items)
    Pruner(items).view()
    assert items == before


def test_the_line_moves_only_when_that_saves_4096_tokens():
    items = [user("go")]
    pruner = Pruner(items)
    places = []
    for n in range(12):
        items += turn(n, 6100)
        places.append(len(cut_places(pruner.view(), items)))
    assert places == [0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]


def test_between_two_moves_of_the_line_a_request_begins_byte_for_byte_like_the_one_before():
    items = [user("go")]
    pruner = Pruner(items)
    before, cuts = b"", 0
    for n in range(40):
        items += turn(n, 5000)
        now = b"\n".join(map(encode, pruner.view()))
        assert now.startswith(before) or pruner.cuts > cuts
        before, cuts = now, pruner.cuts


def test_a_pod_that_is_restored_prunes_where_it_pruned_before():
    items = [user("go")]
    lived = Pruner(items)
    for n in range(30):
        items += turn(n, 3000 + 200 * (n % 9))
        view = lived.view()
    assert list(Pruner(items).view()) == list(view)


def test_a_history_that_was_cut_back_is_pruned_as_if_the_rest_had_never_been():
    items = long_history(20)
    pruner = Pruner(items)
    pruner.view()
    del items[12:]
    pruner.rewind()
    assert list(pruner.view()) == list(Pruner(list(items)).view())


def test_a_cut_result_says_where_the_whole_is_kept_and_stays_an_error():
    whole = result("c", "y" * 5000, is_error=True, kept="/tmp/out.txt")
    cut = cut_result(whole)
    assert cut.is_error
    assert cut.kept == "/tmp/out.txt"
    assert "/tmp/out.txt" in cut.text
    assert (cut.call_id, cut.name) == (whole.call_id, whole.name)


def test_an_old_picture_counts_by_what_is_sent_of_it():
    picture = (TextPart("see"), ImagePart(data="A" * 300_000))
    shown = [each for n in range(3) for each in (called(f"p{n}"), ToolResult(f"p{n}", "look", picture))]
    items = [user("go"), *shown[:2], *turn(1), *turn(2), *turn(3)]
    assert list(Pruner(items).view()) == items  # a server sees few tokens in it, whatever its bytes
    view = Pruner([user("go"), *shown, *turn(1), *turn(2), *turn(3)]).view()
    assert view[2].text.startswith("see[image image/png]\n[")
    assert all(isinstance(part, TextPart) for n in (2, 4, 6) for part in view[n].content)


def test_a_result_that_would_not_shrink_stays_as_it_is():
    kept = "/very" * 3000
    items = [
        user("go"),
        *(i for n in range(9) for i in (called(f"c{n}"), result(f"c{n}", "z" * 2100, kept=kept))),
    ]
    assert list(Pruner(items).view()) == items


def test_a_view_stays_as_it_is_while_the_history_grows_and_the_line_moves():
    items = long_history(4)
    pruner = Pruner(items)
    view = pruner.view()
    before = list(view)
    items += long_history(9)
    pruner.view()
    assert len(view) == len(before)
    assert list(view) == before
    assert view[-1] is before[-1]


def test_a_view_reads_like_the_list_it_stands_for():
    items = long_history(6)
    view = Pruner(items).view()
    plain = list(view)
    assert [view[n] for n in range(len(view))] == plain
    assert view[-3] == plain[-3]
    assert view[2:9:2] == plain[2:9:2]
    assert view[::-1] == plain[::-1] == list(reversed(view))
    assert view.index(plain[4]) == 4
    assert repr(view) == "<RequestView of 13 items, 2 cut>"
    with pytest.raises(IndexError):
        view[13]
    with pytest.raises(IndexError):
        view[-14]


def test_a_view_shows_nothing_of_what_comes_after_it():
    items = [user("one")]
    view = RequestView(items, 1)
    items.append(said("two"))
    assert list(view) == [user("one")]
    assert view[5:] == []


class NotWalked(list):
    """A history that nobody goes through from its beginning."""

    def __iter__(self):
        raise AssertionError("the whole history was walked over")


def test_a_request_on_top_of_a_long_history_looks_only_at_what_is_new():
    items = NotWalked(long_history(5))
    pruner = Pruner(items)
    pruner.view()
    items.extend(turn(5, 9000))
    view, whole = pruner.view(), items[:]
    assert [view[n] for n in range(len(view))] == list(Pruner(whole).view())


@given(histories, st.lists(st.integers(0, 60), max_size=6))
def test_pruning_keeps_number_and_order_and_pairs_and_never_grows(items, lengths):
    growing = []
    pruner = Pruner(growing)
    for length in sorted({*(n for n in lengths if n <= len(items)), len(items)}):
        growing += items[len(growing) : length]
        view = list(pruner.view())
        assert len(view) == length
        for shown, whole in zip(view, in_call_order(growing), strict=True):
            assert encoded_size(shown) <= encoded_size(whole)
            if shown is not whole:
                assert isinstance(whole, ToolResult)
                assert (shown.call_id, shown.name, shown.is_error) == (
                    whole.call_id,
                    whole.name,
                    whole.is_error,
                )


def as_they_came(view, items):
    """What a view shows, where it stands in the log."""
    shown = list(view)
    for at, index in moved_in(items).items():
        shown[index] = view[at]
    return shown


@given(histories.map(lambda items: items * 6), st.integers(0, 200), st.integers(0, 200))
def test_what_pruning_saves_is_the_difference_in_encoded_bytes(items, first, index):
    first, index = min(first, len(items)), min(index, len(items))
    growing = items[:first]
    pruner = Pruner(growing)
    earlier = as_they_came(pruner.view(), growing)
    growing += items[first:]
    now = as_they_came(pruner.view(), items)
    size = lambda some: sum(map(encoded_size, some))  # noqa: E731
    assert pruner.saved_before(index) == size(items[:index]) - size(now[:index])
    assert pruner.saved_since(first) == size(earlier) - size(now[:first]) + pruner.saved_before(
        len(items)
    ) - pruner.saved_before(first)


def cut_off(*parts):
    return AssistantItem(parts, cut=True)


def test_an_answer_that_was_cut_off_says_so_in_the_request_and_shows_no_reasoning():
    items = [user("go"), cut_off(ThinkingPart("hm", "half a signa"), TextPart("once upon ")), user("on")]
    view = Pruner(items).view()
    shown = [items[0], AssistantItem.of(f"once upon\n\n{CUT_OFF}"), items[2]]
    assert list(view) == view[:] == [view[n] for n in range(3)] == shown
    assert view[2:] == [items[2]]


def test_an_answer_that_was_cut_off_before_its_first_word_is_reported_as_well():
    assert Pruner([user("go"), cut_off(ThinkingPart("hm"))]).view()[1].text == CUT_OFF


@given(histories, st.data())
def test_a_view_stays_as_it_is_while_answers_are_cut_off_behind_it(history, data):
    items = []
    pruner = Pruner(items)
    views = []
    for item in history:
        items.append(item)
        if data.draw(st.booleans()):
            items.append(cut_off(TextPart("half")))
        view = pruner.view()
        views.append((view, list(view)))
    assert all(list(view) == then for view, then in views)
    assert all(view[:] == then for view, then in views)
    assert not any(isinstance(item, AssistantItem) and item.cut for _, then in views for item in then)
