"""How restarts are counted and when a request hangs, as properties."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.restarts import Limits, count_restart
from actors.swarm.hanging_requests import LOOKS, Watch, look_again

GAPS = st.lists(st.integers(0, 20), max_size=30)
LIMITS = st.builds(Limits, st.integers(0, 5), st.integers(1, 30))


@given(GAPS, LIMITS)
def test_no_window_has_more_restarts_than_allowed_and_none_is_refused_before_that(gaps, limits) -> None:
    times: tuple[float, ...] = ()
    allowed: list[int] = []
    for now in accumulate(gaps):
        recent = [each for each in allowed if now - each <= limits.window_seconds]
        counted = count_restart(times, now, limits)
        assert (counted is None) == (len(recent) >= limits.max_restarts)
        if counted is None:
            break
        assert list(counted) == [*recent, now]
        allowed.append(now)
        times = counted


@given(GAPS)
def test_with_no_restarts_allowed_the_first_failure_goes_up(gaps) -> None:
    assert all(count_restart((), now, Limits(0, 60)) is None for now in accumulate(gaps))


PROGRESS = st.none() | st.tuples(st.just("request"), st.integers(1, 2), st.integers(0, 3))


@given(st.lists(PROGRESS, max_size=40), st.booleans())
def test_a_request_hangs_only_after_as_many_looks_that_found_nothing_new(seen, bounded) -> None:
    watch = Watch()
    for number, progress in enumerate(seen):
        watch = look_again(watch, progress, bounded=bounded)
        last = seen[max(0, number - LOOKS) : number + 1]
        same = len(last) == LOOKS + 1 and progress is not None and all(each == progress for each in last)
        assert watch.hangs == (same and not (bounded and progress[2] == 0))
