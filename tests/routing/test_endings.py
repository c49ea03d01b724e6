"""What becomes of a job once its runner is through with it, and until when a runner is limited."""

import pytest

from actors.routing.pool.availability import Availability
from actors.routing.pool.endings import Outcome, decide, limited_until, rest_after, summary_of
from actors.routing.pool.git_diff import parse_changes
from actors.routing.pool.queue import Claimed, Ended, Returned
from protocol.errors import AgentFailed, Failure, ModelError, RateLimited
from protocol.jobs import FileChange, Job

NOW = 1_000.0
JOB = Claimed(7, Job("tests", "fix them", "a"), "a", None, "easy", 2, 0, 1.0, 2.0)


def failed(error: Exception) -> Outcome:
    return Outcome(kind="failed", error=Failure.of(error))


@pytest.mark.parametrize(
    ("error", "until"),
    [
        (RateLimited("enough", until=1_090.0), 1_090.0),
        (RateLimited("it is over already", until=3.0), 1_001.0),
        (ModelError("slow down", kind="rate_limit", retry_after=7), 1_007.0),
        (ModelError("slow down", kind="rate_limit"), 1_060.0),
        (AgentFailed("Claude AI usage limit reached|1795967508"), 1_795_967_508.0),
        (AgentFailed("Rate limit reached, try again at 1795967508"), 1_795_967_508.0),
        (AgentFailed("Rate limit: resets 1795967508"), 1_795_967_508.0),
        (AgentFailed("You've hit your usage limit. Try again in 3 days 21 hours."), 260_200.0),
        (AgentFailed("usage limit: retry after 2d"), 173_800.0),
        (AgentFailed("429 too many requests, try again in 20s"), 1_020.0),
        (AgentFailed("Rate limit exceeded. Please retry after 2 minutes"), 1_120.0),
        (AgentFailed("it said no", kind="rate_limit", status=429), 1_060.0),
        (AgentFailed("context too long", kind="context_overflow"), None),
        (AgentFailed("a test about rates failed"), None),
        (ValueError("rate limit"), None),
        (ModelError("no money", kind="billing"), None),
    ],
)
def test_a_rate_limit_carries_when_it_ends(error: Exception, until: float | None) -> None:
    assert limited_until(failed(error), NOW) == until


def test_a_limited_runner_has_done_nothing_of_the_job() -> None:
    outcome = failed(RateLimited("enough", until=2_000.0))
    decided = decide(JOB, outcome, limited=True, leaving=False, durable=True, now=NOW)
    assert decided == Returned(7, uncounted=True)


def test_a_runner_that_dies_in_mid_job_requeues_it_once() -> None:
    died = Outcome(kind="died", error=Failure("AgentFailed", "signal SIGKILL"))
    options = {"limited": False, "leaving": False, "durable": True, "now": NOW}
    assert decide(JOB, died, **options) == Returned(7, avoid="a")  # type: ignore[arg-type]
    again = Claimed(7, JOB.job, "a", None, None, 3, 1, 1.0, 2.0)
    ended = decide(again, died, **options)  # type: ignore[arg-type]
    assert isinstance(ended, Ended)
    assert (ended.execution.status, ended.execution.error) == ("failed", died.error)


def test_a_pool_that_is_left_gives_its_jobs_back_where_they_outlive_it() -> None:
    cut = Outcome(kind="cancelled", error=Failure("Cancelled", "it was cancelled"))
    assert decide(JOB, cut, limited=False, leaving=True, durable=True, now=NOW) == Returned(7, uncounted=True)
    ended = decide(JOB, cut, limited=False, leaving=True, durable=False, now=NOW)
    assert isinstance(ended, Ended)
    assert ended.execution.status == "cancelled"


def test_a_runner_that_dies_again_and_again_is_left_alone_for_longer_each_time() -> None:
    rests = [rest_after(deaths, 0.0) for deaths in (1, 2, 3, 4, 5, 500)]
    assert rests == [None, None, 1.0, 2.0, 4.0, 60.0]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("All is well.", "All is well."),
        ("First\nparagraph.\n\nSecond.", "First paragraph."),
        ("Long talk.\n\n## Summary\nThe bug\nis gone.\n\nMore.", "The bug is gone."),
        ("", ""),
        ("x" * 500, "x" * 279 + "…"),
    ],
)
def test_a_summary_is_what_stands_under_that_heading_or_else_the_first_paragraph(
    text: str, summary: str
) -> None:
    assert summary_of(text) == summary


def test_what_git_prints_of_a_difference_is_read() -> None:
    raw = (
        b":000000 100644 000 abc A\0new file.txt\0:100644 100644 a b M\0m.py\0:100644 000000 a 0 D\0gone\0"
        b":100644 100644 a b M\0bin.png\0"
        b"3\t0\tnew file.txt\x001\t2\tm.py\x000\t9\tgone\x00-\t-\tbin.png\x00"
    )
    assert parse_changes(raw) == (
        FileChange("bin.png", "modified"),
        FileChange("gone", "deleted", 0, 9),
        FileChange("m.py", "modified", 1, 2),
        FileChange("new file.txt", "added", 3, 0),
    )
    assert parse_changes(b"") == ()


def test_a_clock_that_is_set_back_has_no_runner_rest_longer_than_it_was_to() -> None:
    runners = Availability({"a": 1})
    limited = failed(ModelError("slow down", kind="rate_limit", retry_after=60))
    assert runners.note("a", limited, NOW) == (True, True)
    back = NOW - 86_400.0
    assert not runners.wake(back)
    assert runners.status(back).rate_limited == {"a": back + 60.0}
    assert runners.states()["a"].resting_until == back + 60.0
    assert runners.wake(back + 61.0)
