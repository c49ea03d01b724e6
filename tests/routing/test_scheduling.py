"""The choice of what starts next, and on which runner: a pure function, for any jobs and any runners."""

from collections import Counter
from typing import ClassVar

from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.routing.pool.memory_queue import MemoryQueue
from actors.routing.pool.queue import Claimed, Ended, NewJob, Returned
from actors.routing.pool.scheduling import RunnerState, Start, Waiting, next_awakening, plan
from actors.routing.pool.turn import Assignment, Batch, Circumstances, Turn, take_turn
from protocol.errors import Failure
from protocol.jobs import JOB_ENDS, Execution, Job

NAMES = st.sampled_from(["a", "b", "c"])
JOBS = st.lists(
    st.builds(
        Waiting,
        number=st.integers(1, 50),
        priority=st.integers(-2, 2),
        lane=st.sampled_from(["", "a", "b", "c", "unknown"]),
        pinned=st.booleans(),
        avoid=st.sampled_from(["", "a", "b"]),
        choosing=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda job: job.number,
)
RUNNERS = st.dictionaries(
    NAMES,
    st.builds(
        RunnerState,
        limit=st.integers(1, 5),
        active=st.integers(0, 6),
        resting_until=st.sampled_from([0.0, 20.0]),
    ),
)
NOW = 10.0


@given(JOBS, RUNNERS)
@settings(max_examples=times(100))
def test_no_limit_is_exceeded_and_no_runner_that_rests_is_given_any(
    jobs: list[Waiting], runners: dict[str, RunnerState]
) -> None:
    starts = plan(jobs, runners, NOW)
    assert len({start.number for start in starts}) == len(starts)
    for agent, count in Counter(start.agent for start in starts).items():
        assert runners[agent].active + count <= runners[agent].limit
        assert runners[agent].resting_until <= NOW


@given(JOBS, RUNNERS)
@settings(max_examples=times(100))
def test_no_job_waits_while_a_runner_that_it_could_have_is_free(
    jobs: list[Waiting], runners: dict[str, RunnerState]
) -> None:
    starts = {start.number: start.agent for start in plan(jobs, runners, NOW)}
    used = Counter(starts.values())
    free = {
        name
        for name, each in runners.items()
        if each.resting_until <= NOW and each.active + used[name] < each.limit
    }
    for job in jobs:
        if job.number in starts or job.choosing:
            continue
        if job.lane in runners and (job.pinned or job.lane != job.avoid):
            assert job.lane not in free
        else:
            assert not free - {job.avoid}


@given(JOBS, RUNNERS)
@settings(max_examples=times(100))
def test_a_job_that_asked_for_a_runner_gets_no_other(
    jobs: list[Waiting], runners: dict[str, RunnerState]
) -> None:
    wanted = {job.number: job.lane for job in jobs if job.pinned and job.lane in runners}
    for start in plan(jobs, runners, NOW):
        assert start.agent == wanted.get(start.number, start.agent)


def test_a_higher_priority_starts_first_and_equal_ones_in_order_of_submission() -> None:
    jobs = [Waiting(1), Waiting(2, 5), Waiting(3), Waiting(4, 5), Waiting(5, -1)]
    one = {"a": RunnerState(1)}
    order = []
    while jobs:
        [start] = plan(jobs, one, NOW)
        order.append(start.number)
        jobs = [job for job in jobs if job.number != start.number]
    assert order == [2, 4, 1, 3, 5]


def test_the_runner_with_the_least_to_do_for_its_limit_is_taken() -> None:
    runners = {"a": RunnerState(4, 3), "b": RunnerState(4, 1), "c": RunnerState(10, 9)}
    assert plan([Waiting(1)], runners, NOW) == [Start(1, "b")]


def test_an_unknown_agent_type_still_reaches_the_load_balancer() -> None:
    assert plan([Waiting(1, 0, "no such", True)], {"a": RunnerState(1)}, NOW) == [Start(1, "a")]


def test_a_classified_job_goes_elsewhere_while_its_runner_is_limited_and_one_that_asked_for_it_waits() -> (
    None
):
    runners = {"a": RunnerState(4, 0, NOW + 5), "b": RunnerState(4)}
    jobs = [Waiting(1, 0, "a", True), Waiting(2, 0, "a", False)]
    assert plan(jobs, runners, NOW) == [Start(2, "b")]
    assert next_awakening(runners, NOW) == NOW + 5
    assert {start.number for start in plan(jobs, runners, NOW + 5)} == {1, 2}


def test_a_job_over_which_a_runner_died_goes_to_another_and_to_the_same_where_there_is_no_other() -> None:
    job = Waiting(1, avoid="a")
    assert plan([job], {"a": RunnerState(9), "b": RunnerState(1)}, NOW) == [Start(1, "b")]
    assert plan([job], {"a": RunnerState(9), "b": RunnerState(1, 1)}, NOW) == []
    assert plan([job], {"a": RunnerState(9), "b": RunnerState(1, 0, NOW + 1)}, NOW) == [Start(1, "a")]


class PoolMachine(RuleBasedStateMachine):
    """Turns of a pool in any order: jobs come, runners end them, die, and are limited, and people cancel."""

    LIMITS: ClassVar = {"a": 2, "b": 1, "c": 3}

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.now, self.mark = MemoryQueue(), 0.0, 0
        self.resting: dict[str, float] = {}
        self.running: dict[int, Claimed] = {}
        self.submitted: set[int] = set()
        self.ended: Counter[int] = Counter()
        self.started: Counter[int] = Counter()

    def turn(self, batch: Batch | None = None) -> Turn:
        states = {
            name: RunnerState(limit, 0, self.resting.get(name, 0.0)) for name, limit in self.LIMITS.items()
        }
        now = Circumstances(
            runners=states,
            classified=None,
            classifying=(),
            waited=self.submitted,
            mark=self.mark,
            now=self.now,
            must_look=True,
        )
        turn = take_turn(self.queue, batch or Batch(), now)
        assert turn.mark is not None
        self.mark = turn.mark
        for claimed in turn.claimed:
            assert claimed.number not in self.running, "twice at once"
            assert self.resting.get(claimed.agent, 0.0) <= self.now
            self.running[claimed.number] = claimed
        self.submitted.update(turn.numbers)
        for each in batch.ends if batch else ():
            self.ended[each.number] += 1
        for number, _ in turn.ended:
            self.ended[number] += 1
        return turn

    @rule(
        priority=st.integers(-1, 1),
        agent=st.sampled_from([None, "a", "b", "unknown"]),
        count=st.integers(1, 4),
    )
    def submit(self, priority: int, agent: str | None, count: int) -> None:
        self.turn(Batch(adds=[NewJob(Job("job", "do", agent, priority), self.now)] * count))

    @rule(data=st.data(), how=st.sampled_from(["done", "died", "limited"]))
    def end(self, data: st.DataObject, how: str) -> None:
        if not self.running:
            return
        claimed = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        batch = Batch()
        if how == "limited":
            self.resting[claimed.agent] = self.now + 5
            batch.returns.append(Returned(claimed.number, uncounted=True))
            batch.opened.append(claimed.agent)
        elif how == "died" and not claimed.deaths:
            batch.returns.append(Returned(claimed.number, avoid=claimed.agent))
        else:
            execution = claimed.execution()
            failure = Failure("AgentDied", "again")
            ended = Execution(
                id=execution.id, job=claimed.job, status="done" if how == "done" else "failed", error=failure
            )
            batch.ends.append(Ended(claimed.number, ended))
        self.turn(batch)

    @rule(data=st.data())
    def classify(self, data: st.DataObject) -> None:
        queued = [each for each in self.queue.list(["queued"], None) if each.agent is None]
        if queued:
            number = int(data.draw(st.sampled_from(queued)).id.rpartition("-")[2])
            self.turn(Batch(assignments=[Assignment(number, data.draw(NAMES), "m", "why")]))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.submitted:
            return
        number = data.draw(st.sampled_from(sorted(self.submitted)))
        turn = self.turn(Batch(cancels=[number]))
        for asked in turn.to_cancel:
            claimed = self.running.pop(asked)
            ended = Execution(id=claimed.id, job=claimed.job, status="cancelled")
            self.turn(Batch(ends=[Ended(asked, ended)]))

    @rule(seconds=st.integers(1, 6))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.turn()

    @invariant()
    def limits_hold_at_every_instant(self) -> None:
        active = Counter(claimed.agent for claimed in self.running.values())
        assert all(count <= self.LIMITS[agent] for agent, count in active.items())

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        for number in self.submitted:
            execution = self.queue.find(number)
            assert execution is not None
            assert (execution.status == "running") == (number in self.running)
            assert self.ended[number] == (execution.status in JOB_ENDS)

    @invariant()
    def nobody_waits_where_all_is_free(self) -> None:
        if not self.running and all(until <= self.now for until in self.resting.values()):
            assert not self.queue.list(["queued"], None)

    def teardown(self) -> None:
        self.now += 100
        for _ in range(200):
            self.turn()
            while self.running:
                _, claimed = self.running.popitem()
                ended = Execution(id=claimed.id, job=claimed.job, status="done")
                self.turn(Batch(ends=[Ended(claimed.number, ended)]))
            if not self.queue.has_open():
                break
        assert all(self.ended[number] == 1 for number in self.submitted)


PoolMachine.TestCase.settings = settings(max_examples=times(25), stateful_step_count=30, deadline=None)
test_a_pool_loses_no_job_ends_none_twice_and_holds_its_limits = PoolMachine.TestCase
