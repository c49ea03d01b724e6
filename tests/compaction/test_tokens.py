import pytest
from histories import said, user

from actors.compaction.tokens import EncodedSizes, encoded_size, text_tokens, tokens_in
from protocol.wire import encode


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4096, 1024)])
def test_four_bytes_are_taken_for_a_token_and_a_begun_one_counts(size, tokens):
    assert tokens_in(size) == tokens


def test_a_text_is_measured_in_bytes_and_not_in_characters():
    assert text_tokens("abcd") == 1
    assert text_tokens("äöüß") == 2


def test_any_stretch_of_a_history_has_the_size_of_its_items_on_the_wire():
    items = [user("one"), said("two ü"), user("three")]
    sizes = EncodedSizes(items)
    for start in range(4):
        for stop in range(start, 4):
            assert sizes.between(start, stop) == sum(len(encode(item)) for item in items[start:stop])


def test_a_stretch_before_the_first_one_asked_for_is_measured_later():
    items = [user("x" * n) for n in range(10)]
    sizes = EncodedSizes(items)
    assert sizes.between(8, 10) == sum(map(encoded_size, items[8:]))
    assert sizes.between(2, 9) == sum(map(encoded_size, items[2:9]))
    items.append(said("more"))
    assert sizes.between(0, 11) == sum(map(encoded_size, items))


@pytest.mark.parametrize("length", [0, 4, 7])
def test_a_history_that_was_cut_back_is_measured_anew_from_there(length):
    items = [user("old" * n) for n in range(8)]
    sizes = EncodedSizes(items)
    sizes.between(5, 8)
    del items[length:]
    sizes.rewind(length)
    items += [user("new")] * 3
    assert sizes.between(0, length + 3) == sum(map(encoded_size, items))
