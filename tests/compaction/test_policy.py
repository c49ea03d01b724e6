import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.policy import (
    BREAKER_AT,
    LEAST_SUMMARISER_TOKENS,
    SUMMARISER_TOKENS,
    Guard,
    Limits,
    after_overflow,
    before_request,
    before_run,
    can_shrink,
    check_shrunk,
    consolidation_due,
    extraction_due,
    required_budget,
    summariser_budget,
    summary_budget,
    without_model,
    words_budget,
)
from protocol.errors import CompactionFailed
from protocol.manifest import MemorySection, PodManifest

LIMITS = Limits(100, 200, 50)
AUTOMATIC = ["threshold", "request_threshold", "overflow"]


def test_limits_come_from_the_manifest():
    text = "[model]\ncontext_window = 4096\n[compaction]\ncompact_threshold = 100\ncompact_request_threshold = 0\n"
    assert Limits.of(PodManifest.from_toml(text)) == Limits(100, 0, 8000, 4096)


def test_thresholds_fire_on_strictly_greater():
    assert not before_run(LIMITS, Guard(), 100, 1)
    assert before_run(LIMITS, Guard(), 101, 1)
    assert before_request(LIMITS, Guard(), 200, 1) == "send"
    assert before_request(LIMITS, Guard(), 201, 1) == "compact"


@pytest.mark.parametrize("threshold", [None, 0])
def test_an_unset_threshold_is_inert_and_0_is_off(threshold):
    limits = Limits(threshold, threshold, 0)
    assert not before_run(limits, Guard(), 10**9, 1)
    assert before_request(limits, Guard(), 10**9, 1) == "send"


def test_an_empty_history_is_never_compacted():
    assert not before_run(LIMITS, Guard(), 999, 0)
    assert before_request(LIMITS, Guard(), 999, 0) == "send"
    assert not after_overflow(Guard(), 0)


def test_thresholds_in_reversed_order_are_warned_of():
    assert Limits(100, 200, 50).warnings() == []
    assert Limits(None, 200, 50).warnings() == Limits(0, 200, 50).warnings() == []
    (warning,) = Limits(200, 100, 50).warnings()
    assert "compact_request_threshold (100) is below compact_threshold (200)" in warning


def test_a_threshold_beyond_the_context_window_is_warned_of():
    (warning,) = Limits(None, 5000, 50, 4096).warnings()
    assert "context_window (4096)" in warning


def test_three_automatic_failures_in_a_row_open_the_breaker_and_a_manual_success_closes_it():
    guard = Guard()
    for reason in AUTOMATIC:
        assert before_run(LIMITS, guard, 999, 1)
        guard = guard.failed(reason)
    assert guard.open
    assert not before_run(LIMITS, guard, 999, 1)
    assert before_request(LIMITS, guard, 999, 1) == "send"
    assert not after_overflow(guard, 9)
    guard = guard.failed("manual")
    assert guard.open
    assert not guard.compacted("manual").open


def test_with_the_breaker_open_an_overflow_is_answered_without_a_model_and_leaves_it_open():
    guard = Guard(3)
    assert guard.open
    assert after_overflow(guard, 9)
    assert without_model("overflow", guard)
    assert not without_model("manual", guard)
    assert not without_model("overflow", Guard(2))
    assert guard.compacted("overflow").open
    assert not guard.compacted("manual").open


def test_a_success_between_failures_starts_the_count_anew():
    guard = Guard().failed("threshold").failed("threshold").compacted("threshold").failed("threshold")
    assert not guard.open
    assert Guard().failed("manual").failed("manual").failed("manual") == Guard()


@pytest.mark.parametrize("reason", [*AUTOMATIC, "manual"])
def test_the_request_after_a_compaction_is_always_sent(reason):
    assert before_request(LIMITS, Guard().run_started().compacted(reason), 999, 1) == "send"


def test_the_first_request_of_a_run_is_sent_after_a_compaction_before_it():
    guard = Guard().compacted("threshold").run_started()
    assert before_request(LIMITS, guard, 999, 1) == "send"
    assert before_request(LIMITS, guard.request_answered(), 999, 1) == "compact"


def test_a_second_compaction_in_one_run_with_fewer_than_two_requests_between_is_thrash():
    guard = Guard().run_started().compacted("request_threshold")
    guard = guard.request_answered()
    assert before_request(LIMITS, guard, 999, 1) == "thrash"
    assert before_request(LIMITS, guard, 100, 1) == "send"
    assert before_request(LIMITS, guard.request_answered(), 999, 1) == "compact"
    assert before_request(LIMITS, guard.run_started(), 999, 1) == "compact"


def test_a_compaction_does_not_silence_the_checks_for_the_rest_of_a_run():
    guard = Guard().run_started().compacted("request_threshold")
    for _ in range(5):
        guard = guard.request_answered()
    assert before_request(LIMITS, guard, 999, 1) == "compact"


def test_nothing_is_compacted_twice_before_a_run_without_an_answer_between():
    guard = Guard().compacted("threshold")
    assert not before_run(LIMITS, guard, 999, 1)
    assert not before_run(LIMITS, guard.run_started(), 999, 1)
    assert before_run(LIMITS, guard.run_started().request_answered(), 999, 1)


@pytest.mark.parametrize("outcome", [Guard.compacted, Guard.failed])
def test_an_overflow_triggers_one_emergency_compaction_per_request(outcome):
    guard = Guard().run_started()
    assert after_overflow(guard, 5)
    guard = outcome(guard, "overflow")
    assert not after_overflow(guard, 5)
    assert after_overflow(guard.request_answered(), 5)


def test_an_overflow_of_one_item_alone_cannot_be_compacted_away():
    assert not after_overflow(Guard(), 1)


@pytest.mark.parametrize("reason", AUTOMATIC)
def test_an_automatic_compaction_of_more_than_2000_tokens_must_shrink(reason):
    check_shrunk(reason, 2000, 9000)
    check_shrunk(reason, 2001, 2000)
    with pytest.raises(CompactionFailed, match="did not shrink the history: 2001 tokens before, 2001 after"):
        check_shrunk(reason, 2001, 2001)


def test_a_compaction_by_hand_may_grow():
    check_shrunk("manual", 9000, 9999)


def test_an_automatic_compaction_keeps_at_most_half_and_after_an_overflow_a_quarter():
    limits = Limits(100, 200, 8000)
    assert limits.retained_for("threshold", 100_000) == 8000
    assert limits.retained_for("threshold", 3000) == 1500
    assert limits.retained_for("overflow", 3000) == 750
    assert Limits(1, 1, 8000, 4096).retained_for("overflow", 100_000) == 1024


def test_a_compaction_by_hand_keeps_what_it_is_asked_to():
    limits = Limits(100, 200, 8000)
    assert limits.retained_for("manual", 100) == 8000
    assert limits.retained_for("manual", 100, 0) == 0
    assert limits.retained_for("manual", 100, 77) == 77


def test_a_summariser_is_left_room_for_its_prompt_and_its_answer():
    assert summariser_budget(None, 1000, 500) == SUMMARISER_TOKENS
    assert summariser_budget(1_000_000, 1000, 500) == SUMMARISER_TOKENS
    assert summariser_budget(4096, 1000, 500) == 3072 - 1500
    assert summariser_budget(512, 1000, 500) == LEAST_SUMMARISER_TOKENS


def test_the_users_words_have_a_share_of_what_there_is():
    assert words_budget("threshold", 100_000, None) == 2000
    assert words_budget("threshold", 4000, None) == 1000
    assert words_budget("threshold", 4000, 4096) == 4096 // 6
    assert words_budget("threshold", 10, 1000) == 256


def test_compactions_by_hand_one_after_the_other_forget_no_words():
    assert words_budget("manual", 300, None) == 2000
    assert words_budget("manual", 300, 4096) == 4096 // 6


def test_a_summary_and_required_files_fit_into_the_room_there_is():
    assert (summary_budget(None), required_budget(None)) == (4000, 8000)
    assert (summary_budget(4096), required_budget(4096)) == (4096 // 6, 512)
    assert summary_budget(100) == 256
    assert (summary_budget(10**6), required_budget(10**6)) == (4000, 8000)


def test_the_room_is_the_lowest_of_window_and_thresholds_that_are_set():
    assert Limits(None, None, 0).room is None
    assert Limits(0, 0, 0).room is None
    assert Limits(100, 200, 0, 4096).room == 100
    assert Limits(None, 200, 0, 4096).within(150).room == 150


@given(st.lists(st.sampled_from(["started", "answered", "check", "overflow", "fails"]), max_size=60))
def test_no_run_compacts_twice_with_fewer_than_two_answers_between_unless_a_server_overflows(steps):
    guard, answers = Guard(), None
    for step in steps:
        if step == "started":
            guard, answers = guard.run_started(), None
        elif step == "answered":
            guard = guard.request_answered()
            answers = None if answers is None else answers + 1
        elif step == "fails":
            guard = guard.failed("request_threshold")
        elif step == "overflow" and after_overflow(guard, 9):
            guard, answers = guard.compacted("overflow"), 0
        elif step == "check" and before_request(LIMITS, guard, 999, 9) == "compact":
            assert answers is None or answers >= 2
            assert guard.failures < BREAKER_AT
            guard, answers = guard.compacted("request_threshold"), 0


def test_extraction_starts_when_enough_was_added_and_0_is_off():
    assert extraction_due(MemorySection(extract_threshold=100), 100)
    assert not extraction_due(MemorySection(extract_threshold=100), 99)
    assert not extraction_due(MemorySection(extract_threshold=0), 10**9)
    assert not extraction_due(MemorySection(), 10**9)


def test_consolidation_starts_by_files_or_by_bytes_and_0_is_off():
    assert not consolidation_due(MemorySection(), 10**6, 10**9)
    assert consolidation_due(MemorySection(consolidate_files=3), 3, 0)
    assert not consolidation_due(MemorySection(consolidate_files=3), 2, 10**9)
    assert consolidation_due(MemorySection(consolidate_bytes=500), 1, 500)
    assert not consolidation_due(MemorySection(consolidate_bytes=500), 9, 499)


@pytest.mark.parametrize(
    ("occupancy", "kept", "can"),
    [(2000, 2000, True), (3000, 2743, True), (3000, 2744, False), (3000, 9000, False)],
)
def test_a_history_can_shrink_where_a_short_summary_fits_beside_what_is_kept(occupancy, kept, can):
    assert can_shrink(occupancy, kept) is can
