from histories import called, histories, owners, result, said, turn, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.cut import Cut, cut
from actors.compaction.tokens import encoded_size, tokens_in
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem


def tokens_from(items):
    return lambda index: tokens_in(sum(map(encoded_size, items[index:])))


def cut_of(items, retained, **how):
    return cut(items, tokens_from(items), retained, **how)


def test_as_many_items_of_the_end_are_kept_as_fit():
    items = [user("a" * 100), said("b" * 100), user("c" * 100), said("d" * 100)]
    assert cut_of(items, tokens_from(items)(1)) == Cut(1)
    assert cut_of(items, tokens_from(items)(1) - 1) == Cut(2)
    assert cut_of(items, 10**9) == Cut(0)


def test_retained_0_keeps_the_current_user_message():
    items = [user("first"), said("yes"), user("now do this"), *turn(1)]
    found = cut_of(items, 0)
    assert found.kept(items) == [user("now do this")]
    assert found == Cut(len(items), pinned=2)


def test_the_retained_tail_never_starts_between_a_call_and_its_result():
    items = [user("go"), called("a", "b"), result("a"), result("b"), said("done")]
    for retained in range(200):
        kept = cut_of(items, retained).kept(items)
        assert (result("a") in kept) == (result("b") in kept) == (called("a", "b") in kept)


def test_words_between_a_call_and_its_result_do_not_part_them():
    items = [user("go"), called("a"), SystemItem.of("note"), result("a"), said("done")]
    found = cut_of(items, tokens_from(items)(2))
    assert found.kept(items) == [user("go"), said("done")]


def test_ids_that_come_again_belong_to_the_answer_they_follow():
    items = [user("go"), called("c1"), result("c1", "one"), called("c1"), result("c1", "two")]
    found = cut_of(items, tokens_from(items)(3))
    assert found.kept(items) == [user("go"), called("c1"), result("c1", "two")]


def test_results_the_model_has_not_read_yet_can_be_kept_whatever_they_take():
    items = [user("go"), *turn(1), called("x", "y"), result("x", "z" * 9000), result("y", "z" * 9000)]
    assert cut_of(items, 10).kept(items) == [user("go")]
    assert cut_of(items, 10, keep_open_turn=True).kept(items) == [user("go"), *items[3:]]


def test_a_result_that_nobody_asked_for_parts_nothing():
    items = [user("go"), *turn(1), called("x", "y"), result("x"), result("stray"), result("y")]
    assert cut_of(items, 10**9).tail == 0
    assert cut_of(items, 0, keep_open_turn=True).kept(items) == [user("go"), *items[3:]]
    assert cut_of([user("go"), result("stray"), said("so")], 10**9).tail == 0


def test_a_turn_that_was_answered_is_not_open():
    items = [user("go"), called("x"), result("x", "z" * 9000), said("done")]
    assert cut_of(items, 0, keep_open_turn=True).kept(items) == [user("go")]
    assert cut_of([], 5, keep_open_turn=True) == Cut(0)


@given(histories, st.integers(0, 3000), st.booleans())
def test_any_cut_keeps_pairs_order_and_the_newest_user_words_and_never_grows(items, retained, keep_open_turn):
    found = cut_of(items, retained, keep_open_turn=keep_open_turn)
    kept = found.kept(items)
    places = [n for n in range(len(items)) if n >= found.tail or n == found.pinned]
    assert kept == [items[n] for n in places]
    users = [n for n, item in enumerate(items) if isinstance(item, UserItem)]
    assert not users or users[-1] in places
    stays = set(places)
    for answered, owner in owners(items).items():
        assert (answered in stays) == (owner in stays)
    if not keep_open_turn:
        assert tokens_from(items)(found.tail) <= retained


@given(histories)
def test_an_open_turn_is_kept_with_its_answer_unless_older_results_come_in_it(items):
    found = cut_of(items, 0, keep_open_turn=True)
    answers = [n for n, item in enumerate(items) if isinstance(item, AssistantItem)]
    if answers and items[answers[-1]].calls:
        last = answers[-1]
        late = any(
            isinstance(items[n], ToolResult) and owners(items).get(n, -1) < last
            for n in range(last, len(items))
        )
        assert late or found.tail <= last
