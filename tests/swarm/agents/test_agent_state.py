"""An agent's status is one pure function of what is recorded."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.swarm.agents.ids import find_id, name_of, slug_of
from actors.swarm.agents.state import SUPERVISOR_DIED, AgentState, after, status_of
from polypod import (
    AgentError,
    AgentIdle,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    AgentStopRequested,
    ApprovalRequested,
    ApprovalResolved,
    AssistantItem,
    AssistantMessage,
    Event,
    Failure,
    RunEnd,
    RunStart,
    ToolCall,
    Usage,
)
from protocol.agents import ENDED, LIVING

ID = "a-1"
ERROR = Failure("AgentFailed", "it broke")


def make(kind: type[Any], seq: int = 1, **fields: Any) -> Any:
    return kind(ID, "s", seq, time.time(), "r", **fields)


STARTED = make(AgentStarted, runner="pod", task="do it")
BEGUN, DONE = make(RunStart), make(RunEnd, outcome="finished", seconds=1.0)
STOPPED = make(AgentStopped, reason="exit", code=0)

records = st.one_of(
    st.just(STARTED),
    st.just(make(AgentStarted, runner="pod", resumed=True)),
    st.just(make(AgentIdle)),
    st.just(make(AgentStopRequested)),
    st.just(make(AgentRestarted)),
    st.just(BEGUN),
    st.builds(
        lambda outcome: make(RunEnd, outcome=outcome), st.sampled_from(["finished", "failed", "paused"])
    ),
    st.builds(
        lambda reason, code, error: make(AgentStopped, reason=reason, code=code, error=error),
        st.sampled_from(["exit", "cancelled", "shutdown", "inbox_closed", "idle", "killed"]),
        st.sampled_from([None, 0, 1, -9]),
        st.sampled_from([None, ERROR]),
    ),
    st.builds(lambda name: make(ApprovalRequested, approval_id=name, tool="t"), st.sampled_from("ab")),
    st.builds(lambda name: make(ApprovalResolved, approval_id=name, approved=True), st.sampled_from("ab")),
    st.just(make(AssistantMessage, item=AssistantItem.of("hi"), usage=Usage(1, 2), cost=0.5)),
)


def fold(*events: Event) -> AgentState:
    state = AgentState()
    for event in events:
        state = after(state, event, ID)
    return state


@given(st.lists(records, max_size=20))
def test_any_records_give_one_status_and_a_result(events: list[Event]) -> None:
    state = fold(*events)
    assert state.status in LIVING | ENDED
    assert state.result().status in LIVING | ENDED
    ended = stop_asked = False
    for event in events:
        if isinstance(event, AgentStarted | AgentRestarted) or (
            isinstance(event, RunStart) and not stop_asked
        ):
            stop_asked = stop_asked and not ended and not isinstance(event, AgentRestarted)
            ended = False
        elif isinstance(event, AgentStopped):
            ended = True
        elif isinstance(event, AgentStopRequested):
            stop_asked = True
    assert (state.status in ENDED) == ended


@given(st.lists(records, max_size=20))
def test_detached_means_only_that_no_end_is_recorded_and_nobody_supervises(events: list[Event]) -> None:
    state = fold(*events)
    assert status_of(state, supervised=True) == state.status
    assert (status_of(state, supervised=False) == "detached") == (state.status not in ENDED)


@given(st.lists(records, max_size=20), records)
def test_what_a_person_stopped_was_killed_until_somebody_resumes_it(before: list[Event], last: Event) -> None:
    state = fold(*before, make(AgentStopRequested), make(AgentStopped, reason="shutdown"))
    assert state.status == "killed"
    if not isinstance(last, AgentStarted | AgentRestarted):  # the words for its next task alone begin none
        assert after(state, last, ID).status == "killed"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ((), "pending"),
        ((STARTED,), "running"),
        ((STARTED, BEGUN), "running"),
        ((STARTED, BEGUN, DONE), "running"),
        ((STARTED, BEGUN, DONE, make(AgentIdle)), "idle"),
        ((STARTED, make(AgentIdle), BEGUN), "running"),
        ((STARTED, make(AgentIdle)), "idle"),
        ((STARTED, BEGUN, make(ApprovalRequested, approval_id="x", tool="t")), "waiting"),
        ((STARTED, BEGUN, DONE, STOPPED), "done"),
        ((STARTED, BEGUN, DONE, make(AgentStopped, reason="exit", code=3)), "failed"),
        ((STARTED, BEGUN, DONE, make(AgentStopped, reason="exit", code=0, error=ERROR)), "failed"),
        ((STARTED, BEGUN, make(RunEnd, outcome="failed", error=ERROR), STOPPED), "failed"),
        ((STARTED, BEGUN, make(AgentStopped, reason="shutdown")), "killed"),
        ((STARTED, BEGUN, DONE, make(AgentStopped, reason="shutdown")), "done"),
        ((STARTED, BEGUN, DONE, make(AgentStopped, reason="idle")), "done"),
        ((STARTED, BEGUN, make(AgentStopped, reason="killed", code=-9)), "killed"),
        ((STARTED, BEGUN, make(AgentStopped, reason="killed", code=-9, error=ERROR)), "failed"),
        ((STARTED, BEGUN, DONE, make(AgentStopped, reason="shutdown", code=143)), "done"),
        ((make(AgentStopped, reason="exit", error=ERROR),), "failed"),
        ((STARTED, STOPPED, make(AgentRestarted)), "pending"),
    ],
)
def test_the_status_behind_these_records(events: tuple[Event, ...], status: str) -> None:
    assert fold(*events).status == status


def test_an_agent_is_not_idle_between_the_tools_of_a_turn() -> None:
    call = make(AssistantMessage, item=AssistantItem((), (ToolCall("1", "read"),)))
    state = fold(STARTED, BEGUN, call)
    assert (state.status, state.activity) == ("running", "tool: read")


def test_the_status_is_not_still_failed_after_resume() -> None:
    failed = fold(STARTED, BEGUN, make(AgentStopped, reason="exit", code=1, error=ERROR))
    assert failed.result().error == ERROR
    again = after(failed, make(AgentRestarted), ID)
    assert (again.status, again.error) == ("pending", None)
    assert after(again, make(AgentIdle), ID).result().error is None


@pytest.mark.parametrize(
    "interruption",
    [
        (make(AgentStopped, reason="exit", error=SUPERVISOR_DIED), make(AgentRestarted), STARTED),
        (make(RunEnd, outcome="paused"), make(AgentIdle)),
        (make(RunEnd, outcome="paused"), make(AgentStopped, reason="shutdown"), STARTED),
    ],
)
def test_a_resumed_run_waits_again_for_the_approval_that_was_open(interruption: tuple[Event, ...]) -> None:
    asked = make(ApprovalRequested, approval_id="a", tool="t")
    interrupted = fold(STARTED, BEGUN, asked, *interruption)
    assert interrupted.asks == ()
    resumed = after(interrupted, make(RunStart, reason="resume"), ID)
    assert (resumed.status, resumed.asks, resumed.activity) == ("waiting", (asked,), "asks: t")
    answered = after(resumed, make(ApprovalResolved, approval_id="a", approved=True), ID)
    assert (answered.status, answered.asks) == ("running", ())
    assert after(interrupted, BEGUN, ID).asks == (), "a new run has closed it"


@pytest.mark.parametrize("hint", [SUPERVISOR_DIED.hint, "resume it to go on"])  # as of earlier versions
def test_a_task_that_was_done_is_reported_as_done_though_its_supervisor_died_later(hint: str) -> None:
    recorded = replace(SUPERVISOR_DIED, hint=hint)
    died = make(AgentStopped, reason="exit", error=recorded)
    done, cut_off = fold(STARTED, BEGUN, DONE, make(AgentIdle), died), fold(STARTED, BEGUN, died)
    assert (done.status, done.task_result().status, done.task_result().error) == ("failed", "done", None)
    assert (cut_off.task_result().status, cut_off.task_result().error) == ("failed", recorded)


def test_a_task_that_begins_before_its_program_is_up_is_the_next_life() -> None:
    resumed = make(AgentStarted, runner="codex", task="more", resumed=True)
    state = fold(STARTED, BEGUN, DONE, STOPPED, BEGUN)
    assert (state.status, state.result().status) == ("running", "running")
    state = fold(STARTED, BEGUN, DONE, STOPPED, BEGUN, resumed)
    assert (state.status, state.at_work) == ("running", True)
    state = fold(STARTED, BEGUN, DONE, STOPPED, BEGUN, resumed, DONE, STOPPED)
    assert (state.status, state.lives) == ("done", 2)


def test_what_all_tasks_have_taken_is_known_as_far_as_any_end_says() -> None:
    assert fold(STARTED, BEGUN, DONE).used is None
    taken = make(RunEnd, outcome="finished", usage=Usage(10, 2))
    used = fold(STARTED, BEGUN, taken, BEGUN, DONE, BEGUN, taken).used
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (20, 4)


def test_usage_and_cost_are_those_of_the_task() -> None:
    said = make(AssistantMessage, item=AssistantItem.of("hi"), usage=Usage(10, 2), cost=0.5)
    first = fold(STARTED, BEGUN, said, said, DONE)
    assert (first.usage, first.cost, first.seconds) == (Usage(20, 4), 1.0, 1.0)
    second = after(after(first, BEGUN, ID), said, ID)
    assert (second.usage, second.cost, second.text) == (Usage(10, 2), 0.5, "hi")
    foreign = fold(STARTED, BEGUN, make(RunEnd, outcome="finished", usage=Usage(7, 8), cost=0.25))
    assert (foreign.usage, foreign.cost) == (Usage(7, 8), 0.25)


@given(st.text(max_size=80))
def test_a_slug_is_short_and_plain_whatever_the_words(words: str) -> None:
    slug = slug_of(words)
    assert 1 <= len(slug) <= 24
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug[0] != "-" != slug[-1]


def test_words_without_a_letter_are_an_agent() -> None:
    assert slug_of("日本 …") == "agent"
    assert slug_of("Fix the Zähler, please, and all of its tests") == "fix-the-zahler-please-an"


def test_an_agent_is_found_by_a_unique_prefix_and_by_its_whole_id_first() -> None:
    ids = ["fix-1", "fix-12", "write-3"]
    assert find_id("fix-1", ids) == "fix-1"
    assert find_id("w", ids) == "write-3"
    assert find_id("wr…-3", ids) == find_id("wr...-3", ids) == "write-3"
    for beginning, words in (("fix", "2 agents match"), ("", "no agent"), ("x", "no agent")):
        with pytest.raises(AgentError, match=words):
            find_id(beginning, ids)


def test_an_agent_is_found_by_the_name_that_it_was_started_under_though_others_begin_so() -> None:
    ids = ["tests-1", "tests-slow-2", "fix-the-zahler-please-an-3"]
    for name in ("tests", "Tests", "tests-slow", "Fix the Zähler, please, and all of its tests"):
        assert name_of(find_id(name, ids)) == slug_of(name)
    with pytest.raises(AgentError, match="2 agents match 'tests': tests-1, tests-4"):
        find_id("tests", [*ids, "tests-4"])
