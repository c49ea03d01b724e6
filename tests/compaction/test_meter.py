import math

from histories import histories, said, turn, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.meter import TokenMeter
from actors.compaction.prune import Pruner
from actors.compaction.tokens import tokens_in
from protocol.usage import Usage
from protocol.wire import encode


def size(items):
    return sum(len(encode(item)) for item in items)


def counted(tokens):
    return Usage(input_tokens=tokens, output_tokens=5)


def test_without_any_count_a_history_takes_a_quarter_of_its_bytes():
    items = [user("hello"), said("hello to you")]
    meter = TokenMeter(items, Pruner(items))
    assert meter.occupancy() == math.ceil(size(items) / 4)
    assert meter.before(1) == math.ceil(size(items[:1]) / 4)


def test_an_empty_history_takes_nothing():
    assert TokenMeter([], Pruner([])).occupancy() == 0


def test_without_any_count_old_results_are_taken_as_the_request_shows_them():
    items = [user("go"), *(item for n in range(8) for item in turn(n, 9000))]
    pruner = Pruner(items)
    assert TokenMeter(items, pruner).occupancy() == math.ceil(size(pruner.view()) / 4) < size(items) / 6


def test_the_last_count_wins_and_what_came_after_is_estimated():
    items = [user("hello")]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, counted(1000))
    assert meter.before(1) == 1000
    items += [said("hello to you"), user("and now?")]
    assert meter.before(3) == 1000 + math.ceil(size(items[1:]) / 4)
    assert meter.occupancy() == meter.before(3)


def test_usage_of_the_run_that_goes_on_counts_at_once():
    """A check in mid-turn must not wait for the run's end to know what its requests took."""
    items = [user("hello")]
    meter = TokenMeter(items, Pruner(items))
    for n in range(1, 5):
        meter.record_usage(len(items), counted(1000 * n))
        assert meter.occupancy() == 1000 * n
        items += turn(n)


def test_between_two_counts_an_estimate_goes_by_bytes():
    items = [user("a" * 10), said("b" * 100), user("c" * 100), said("d")]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, counted(100))
    meter.record_usage(3, counted(300))
    part = size(items[1:2]) / size(items[1:3])
    assert meter.before(2) == int(100 + 200 * part)
    assert meter.before(0) == 0


def test_a_server_that_says_no_usage_or_zero_has_counted_nothing():
    items = [user("hello")]
    meter = TokenMeter(items, Pruner(items))
    for usage in (None, Usage(), counted(0), Usage(output_tokens=7)):
        meter.record_usage(1, usage)
    assert meter.records == []
    assert meter.before(1) == tokens_in(size(items))


def test_what_a_later_prune_saves_is_taken_off_the_last_count():
    items = [user("go"), *(item for n in range(5) for item in turn(n, 9000))]
    pruner = Pruner(items)
    meter = TokenMeter(items, pruner)
    before = pruner.view()
    meter.record_usage(len(before), counted(12_000))
    items += [*turn(5, 9000), *turn(6, 9000)]
    after = pruner.view()
    saved = size(before) - size(list(after)[: len(before)])
    assert saved > 16_000
    assert meter.occupancy() == 12_000 - math.ceil(saved / 4) + math.ceil(size(items[11:]) / 4)


def test_a_lower_count_voids_the_higher_ones_before_it():
    items = [user("hello")] * 9
    meter = TokenMeter(items, Pruner(items))
    for length, tokens in ((2, 500), (4, 900), (6, 700)):
        meter.record_usage(length, counted(tokens))
    assert [record.history_len for record in meter.records] == [2, 6]


def test_the_tokens_of_an_end_are_counted_and_no_less_than_its_bytes_say():
    items = [user("hello"), said("x" * 4000)]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, counted(50))
    meter.record_usage(2, counted(50))
    assert meter.since(1) == math.ceil(size(items[1:]) / 4)
    meter.record_usage(2, counted(5000))
    assert meter.since(1) == 4950
    assert meter.since(2) == 0


def test_a_history_that_was_cut_back_forgets_the_counts_of_what_is_gone():
    items = [user("hello"), said("one"), user("two"), said("three")]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, counted(100))
    meter.record_usage(3, counted(200))
    meter.occupancy()
    del items[2:]
    meter.rewind()
    assert meter.occupancy() == 100 + math.ceil(size(items[1:]) / 4)


def test_a_count_remembers_all_that_the_server_reported():
    items = [user("hello")]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, Usage(100, 20, 80, 10))
    record = meter.records[0]
    assert (record.output_tokens, record.cache_read_tokens, record.cache_write_tokens) == (20, 80, 10)


@given(
    histories.map(lambda items: items + [item for n in range(len(items)) for item in turn(n, 3000)]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 50_000)), max_size=6),
)
def test_estimates_never_fall_from_one_item_to_the_next(items, counts):
    meter = TokenMeter(items, Pruner(items))
    for length, tokens in counts:
        meter.record_usage(min(length, len(items)), counted(tokens))
    estimates = [meter.before(index) for index in range(len(items) + 1)]
    assert estimates == sorted(estimates)
    assert meter.occupancy() == estimates[-1]
    ends = [meter.since(index) for index in range(len(items) + 1)]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] == 0


@given(histories, st.integers(0, 60))
def test_a_meter_that_lived_through_a_history_knows_what_a_fresh_one_knows(items, length):
    growing = items[:length]
    lived = TokenMeter(growing, Pruner(growing))
    lived.occupancy()
    growing += items[length:]
    assert lived.occupancy() == TokenMeter(items, Pruner(items)).occupancy()


def test_a_density_is_known_by_two_counts_far_enough_apart():
    items = [user("x" * 3000), said("y" * 4000), user("z")]
    meter = TokenMeter(items, Pruner(items))
    assert meter.density() is None
    meter.record_usage(1, counted(1500))
    assert meter.density() is None
    meter.record_usage(2, counted(1500 + size(items[1:2]) // 2))
    assert math.isclose(meter.density() or 0, 2.0, rel_tol=0.01)


def test_counts_close_together_show_no_density_by_themselves():
    items = [user("x" * 4000), said("y"), user("z")]
    meter = TokenMeter(items, Pruner(items))
    meter.record_usage(1, counted(1000))
    meter.record_usage(2, counted(1900))
    assert meter.density() is None
    items.append(user("w" * 4000))
    meter.record_usage(4, counted(3000))
    assert math.isclose(meter.density() or 0, 1100 * 4 / size(items[2:]), rel_tol=0.01)


@given(histories, st.lists(st.tuples(st.integers(1, 60), st.integers(1, 10**6)), max_size=6))
def test_a_density_is_never_below_1_nor_beyond_4(items, counts):
    meter = TokenMeter(items, Pruner(items))
    for length, tokens in sorted(counts):
        if length <= len(items):
            meter.record_usage(length, counted(tokens))
    assert 1.0 <= (meter.density() or 1.0) <= 4.0
