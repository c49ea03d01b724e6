"""What every queue of jobs promises, in memory and in a file."""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from actors.routing.pool.memory_queue import MemoryQueue
from actors.routing.pool.open_queue import open_queue
from actors.routing.pool.queue import (
    MOST_DEATHS,
    Claimed,
    Ended,
    NewJob,
    Returned,
    TaskQueue,
    number_of,
    queued,
)
from actors.routing.pool.scheduling import Start, Waiting
from actors.sessions.answers import wait
from actors.sessions.urls import open_store
from protocol.errors import StoreError, UnknownJob
from protocol.jobs import Execution, Job
from protocol.usage import Usage

URLS = ["memory:", "sqlite:{}/pods.db", "sqlite:{}/pods.db?durability=power", "jsonl:{}/sessions"]
ON_DISK = URLS[1:]


class Opened:
    """Queues that are closed again, with their stores."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack, self.folder = stack, folder

    def __call__(self, url: str) -> TaskQueue:
        store = open_store(url.format(self.folder))
        self._stack.callback(lambda: wait(store.close()))
        queue = open_queue(store)
        self._stack.callback(queue.close)
        return queue


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:
        yield Opened(stack, tmp_path)


@pytest.fixture(params=URLS)
def queue(request: pytest.FixtureRequest, opened: Opened) -> TaskQueue:
    return opened(request.param)


def add(queue: TaskQueue, *jobs: Job) -> list[int]:
    with queue.transaction():
        return queue.add([NewJob(job, 100.0 + number) for number, job in enumerate(jobs)])


def job(name: str = "tests", agent: str | None = None, priority: int = 0) -> Job:
    return Job(name, f"do {name}", agent, priority)


def start(queue: TaskQueue, *starts: tuple[int, str]) -> list[Claimed]:
    with queue.transaction():
        return queue.start([Start(*each) for each in starts], 200.0)


def end(queue: TaskQueue, claimed: Claimed, **fields: object) -> Execution:
    execution = replace(claimed.execution(), **{"status": "done", **fields})
    with queue.transaction():
        queue.end([Ended(claimed.number, execution)])
    return execution


def all_of(_: str, __: Mapping[str, int]) -> int:
    return 100


def waiting(queue: TaskQueue, window: Callable[[str, Mapping[str, int]], int] = all_of) -> list[Waiting]:
    return queue.outlook(window).waiting


def test_jobs_are_numbered_in_order_of_submission(queue: TaskQueue) -> None:
    first, second = add(queue, job("one"), job("Two words!"))
    [third] = add(queue, job())
    assert first < second < third
    assert [each.id for each in queue.list(["queued"], None)] == [
        f"tests-{third}",
        f"two-words-{second}",
        f"one-{first}",
    ]


def test_a_job_is_kept_as_it_was_given(queue: TaskQueue) -> None:
    given = Job("näme ☃", "x" * 100_000 + "\n\0", "a", -3, "m", "/tmp", "worktree", "lost")
    [number] = add(queue, given)
    assert queue.find(number) == queued(NewJob(given, 100.0), number)
    assert queue.find(number + 1) is None


def test_each_lane_shows_its_next_jobs_the_higher_priority_first(queue: TaskQueue) -> None:
    one, two, three, four, five = add(
        queue, job(), job(priority=1), job(agent="a"), job(), job(agent="a", priority=7)
    )
    seen = waiting(queue)
    assert [each.number for each in seen if each.lane == ""] == [two, one, four]
    assert [(each.number, each.pinned) for each in seen if each.lane == "a"] == [(five, True), (three, True)]
    assert [each.number for each in waiting(queue, lambda lane, _: 2 if lane == "" else 0)] == [two, one]
    assert waiting(queue) == seen  # looking changes nothing


def test_what_each_runner_has_is_counted(queue: TaskQueue) -> None:
    numbers = add(queue, job(), job(), job())
    claimed = start(queue, (numbers[0], "a"), (numbers[1], "b"), (numbers[2], "a"))
    assert queue.outlook(all_of).active == {"a": 2, "b": 1}
    end(queue, claimed[0])
    assert queue.outlook(all_of).active == {"a": 1, "b": 1}


def test_a_job_is_started_once(queue: TaskQueue) -> None:
    [number] = add(queue, job())
    [claimed] = start(queue, (number, "a"))
    assert (claimed.attempts, claimed.agent, claimed.job) == (1, "a", job())
    assert start(queue, (number, "b")) == []
    assert waiting(queue) == []
    running = queue.find(number)
    assert running is not None
    assert (running.status, running.agent, running.started_at) == ("running", "a", 200.0)


def test_an_end_is_kept_and_nothing_follows_it(queue: TaskQueue) -> None:
    [number] = add(queue, job())
    [claimed] = start(queue, (number, "a"))
    execution = end(queue, claimed, result="well", seconds=1.5)
    end(queue, claimed, status="failed")
    with queue.transaction():
        queue.give_back([Returned(number)], 6.0)
        assert queue.cancel(number, 300.0) == "done"
    assert queue.find(number) == execution
    assert not queue.has_open()


def test_ends_are_seen_once_in_their_order_by_who_waits_for_them(queue: TaskQueue) -> None:
    mark, seen = queue.ended_since(None, range(100))
    assert seen == []
    numbers = add(queue, job(), job(), job())
    claimed = start(queue, *((number, "a") for number in numbers))
    for each in (claimed[1], claimed[0]):
        end(queue, each)
    mark, seen = queue.ended_since(mark, numbers)
    assert [number for number, _ in seen] == [numbers[1], numbers[0]]
    end(queue, claimed[2])
    later, seen = queue.ended_since(mark, [])
    assert seen == []
    assert later != mark
    assert queue.ended_since(later, numbers) == (later, [])


def test_a_job_that_waits_again_stands_where_it_stood(queue: TaskQueue) -> None:
    one, two, three = add(queue, job(), job(), job(agent="a"))
    start(queue, (one, "b"), (three, "a"))
    with queue.transaction():
        queue.give_back([Returned(one, avoid="b"), Returned(three, uncounted=True)], 6.0)
    assert [(each.number, each.lane, each.avoid) for each in waiting(queue)] == [
        (one, "", "b"),
        (two, "", ""),
        (three, "a", ""),
    ]
    again = {each.number: each for each in start(queue, (one, "c"), (three, "a"))}
    assert (again[one].attempts, again[one].deaths) == (2, 1)
    assert (again[three].attempts, again[three].deaths) == (1, 0)


def test_a_job_that_is_given_back_though_it_was_to_be_cancelled_has_ended_with_that(queue: TaskQueue) -> None:
    """Its process may be left, or its runner die, before it has seen that."""
    one, two = add(queue, job(), job())
    start(queue, (one, "a"), (two, "a"))
    mark, _ = queue.ended_since(None, [])
    with queue.transaction():
        assert queue.cancel(one, 5.0) == "running"
        queue.give_back([Returned(one, avoid="a"), Returned(two)], 6.0)
    assert [each.number for each in waiting(queue)] == [two]
    found = queue.find(one)
    assert found is not None
    assert (found.status, found.ended_at) == ("cancelled", 6.0)
    assert [number for number, _ in queue.ended_since(mark, [one, two])[1]] == [one]
    assert start(queue, (one, "a")) == []


def test_a_list_has_as_many_jobs_as_it_may_have(queue: TaskQueue) -> None:
    add(queue, job(), job(), job())
    assert [len(queue.list(["queued"], limit)) for limit in (None, 0, 2, 1 << 70)] == [3, 0, 2, 3]


def test_a_job_that_asked_for_a_runner_that_is_not_there_asks_for_it_again(queue: TaskQueue) -> None:
    [number] = add(queue, job(agent="elsewhere"))
    start(queue, (number, "b"))
    with queue.transaction():
        queue.give_back([Returned(number)], 6.0)
    assert waiting(queue) == [Waiting(number, 0, "elsewhere", True)]


def test_a_classified_job_waits_in_its_lane_with_its_model_and_goes_to_any_once_that_is_opened(
    queue: TaskQueue,
) -> None:
    one, two, three = add(queue, job(), job(), job(agent="a"))
    with queue.transaction():
        queue.assign(one, "a", "small", "it is easy")
        queue.assign(two, "a", "small", "it is easy")
    lane = {each.number: each for each in waiting(queue)}
    assert (lane[one].lane, lane[one].pinned, lane[three].pinned) == ("a", False, True)
    [claimed] = start(queue, (one, "a"))
    assert (claimed.model, claimed.reason) == ("small", "it is easy")
    with queue.transaction():
        queue.open_lane("a")
    assert {each.number: each.lane for each in waiting(queue)} == {two: "", three: "a"}
    [elsewhere] = start(queue, (two, "b"))
    assert elsewhere.model is None


def test_cancelling_ends_a_job_that_waits_and_notifies_who_does_one(queue: TaskQueue) -> None:
    one, two = add(queue, job(), job())
    [claimed] = start(queue, (one, "a"))
    with queue.transaction():
        assert queue.cancel(one, 300.0) == "running"
        assert queue.cancel(two, 300.0) == "queued"
        assert queue.cancel(two, 300.0) == "cancelled"
        assert queue.cancel(999, 300.0) is None
    assert queue.cancels() == [one]
    found = queue.find(two)
    assert found is not None
    assert (found.status, found.ended_at, found.attempts) == ("cancelled", 300.0, 0)
    end(queue, claimed, status="cancelled")
    assert queue.cancels() == []


def test_jobs_are_listed_by_status_and_counted(queue: TaskQueue) -> None:
    numbers = add(queue, *(job() for _ in range(5)))
    claimed = start(queue, (numbers[0], "a"), (numbers[1], "a"))
    end(queue, claimed[0], status="failed")
    assert [each.status for each in queue.list(["running", "failed"], None)] == ["running", "failed"]
    assert len(queue.list(["queued"], 2)) == 2
    assert queue.counts() == {("queued", ""): 3, ("running", "a"): 1, ("failed", "a"): 1}
    assert queue.has_open()


def test_what_is_no_id_is_refused() -> None:
    assert number_of("fix-tests-17") == number_of("17") == 17
    for wrong in ("", "tests", "-", "tests-", "tests-x", "²", "9" * 40):
        with pytest.raises(UnknownJob, match="no job"):
            number_of(wrong)


# -- those in a file


@pytest.mark.parametrize("url", ON_DISK)
def test_jobs_are_there_when_the_queue_is_opened_again(url: str, opened: Opened) -> None:
    first = opened(url)
    one, two, three = add(first, job(), job(), job("ended"))
    claimed = start(first, (three, "a"))
    execution = end(first, claimed[0], result="well")
    first.close()
    again = opened(url)
    assert [each.number for each in waiting(again)] == [one, two]
    assert again.find(three) == execution
    assert add(again, job()) == [three + 1]


@pytest.mark.parametrize("url", ON_DISK)
def test_a_transaction_that_fails_leaves_nothing(url: str, opened: Opened) -> None:
    queue = opened(url)
    with contextlib.suppress(ZeroDivisionError), queue.transaction():
        queue.add([NewJob(job(), 1.0)])
        raise ZeroDivisionError
    assert waiting(queue) == []


@pytest.mark.parametrize("url", ON_DISK)
def test_two_queues_on_one_file_never_have_one_job_and_see_each_others_ends(url: str, opened: Opened) -> None:
    one, two = opened(url), opened(url)
    mark, _ = two.ended_since(None, ())
    two.has_changed()
    numbers = add(one, job(), job())
    assert two.has_changed()
    assert not two.has_changed()
    [mine] = start(one, (numbers[0], "a"))
    assert [each.number for each in start(two, *((number, "a") for number in numbers))] == [numbers[1]]
    assert two.outlook(all_of).active == {"a": 2}
    end(two, mine, status="failed")  # it is not theirs
    assert end(one, mine) == two.ended_since(mark, numbers)[1][0][1]


@pytest.mark.parametrize("url", ON_DISK)
def test_one_cancels_a_job_that_the_other_does(url: str, opened: Opened) -> None:
    one, two = opened(url), opened(url)
    [number] = add(one, job())
    start(one, (number, "a"))
    with two.transaction():
        assert two.cancel(number, 300.0) == "running"
    assert two.cancels() == []
    assert one.cancels() == [number]


@pytest.mark.parametrize("url", ON_DISK)
def test_jobs_of_one_that_is_gone_wait_again_or_are_lost_by_their_policy(url: str, opened: Opened) -> None:
    one, two = opened(url), opened(url)
    keep, lose, cancelled = add(one, job(), Job("tests", "do", on_lost="lost"), job())
    start(one, (keep, "a"), (lose, "a"), (cancelled, "a"))
    with two.transaction():
        assert two.take_back(400.0) == []
        two.cancel(cancelled, 350.0)
    assert not two.has_dead()
    one.close()
    assert two.has_dead()
    with two.transaction():
        assert sorted(two.take_back(400.0)) == [keep, lose, cancelled]
    assert [each.number for each in waiting(two)] == [keep]
    ends = {number: two.find(number) for number in (lose, cancelled)}
    assert {number: end and end.status for number, end in ends.items()} == {
        lose: "lost",
        cancelled: "cancelled",
    }
    assert two.outlook(all_of).active == {}


@pytest.mark.parametrize("url", ON_DISK[:1])
def test_a_job_at_which_one_process_after_the_other_dies_is_given_up(url: str, opened: Opened) -> None:
    watching = opened(url)
    [number] = add(watching, job())
    for _ in range(MOST_DEATHS + 1):
        assert [each.number for each in waiting(watching)] == [number]
        dying = opened(url)
        start(dying, (number, "a"))
        dying.close()
        with watching.transaction():
            watching.take_back(400.0)
    found = watching.find(number)
    assert found is not None
    assert (found.status, found.attempts) == ("lost", MOST_DEATHS + 1)


def test_a_file_of_an_earlier_version_gets_the_columns_that_came_since_and_later_ones_are_let_be(
    opened: Opened,
) -> None:
    url = URLS[1]
    first = opened(url)
    [number] = add(first, job())
    first.close()
    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db")) as db:
        version = db.execute("PRAGMA user_version").fetchone()
        db.execute("ALTER TABLE pool_jobs DROP COLUMN avoid")
        db.execute("ALTER TABLE pool_jobs DROP COLUMN losses")
        db.execute("ALTER TABLE pool_ends DROP COLUMN tokens_in")
        db.execute("ALTER TABLE pool_jobs ADD COLUMN of_a_later_version TEXT NOT NULL DEFAULT 'x'")
        db.commit()
    again = opened(url)
    assert waiting(again) == [Waiting(number)]
    add(again, job())
    [claimed] = start(again, (number, "a"))
    with again.transaction():
        again.give_back([Returned(claimed.number, avoid="a")], 6.0)
    assert waiting(again)[0].avoid == "a"
    again.close()
    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == version, "older versions still open it"


def test_tokens_and_cost_of_executions_are_in_columns_that_others_can_sum_up(opened: Opened) -> None:
    queue = opened(URLS[1])
    local, claude, silent = start(queue, *((number, "a") for number in add(queue, job(), job(), job())))
    end(queue, local, usage=Usage(120, 30), cost=0.0)
    end(queue, claude, usage=Usage(7, 5), cost=0.25)
    end(queue, silent)
    queue.close()
    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db")) as db:
        rows = db.execute("SELECT tokens_in, tokens_out, cost_usd FROM pool_ends ORDER BY n").fetchall()
    assert rows == [(120, 30, 0.0), (7, 5, 0.25), (None, None, None)]


@pytest.mark.parametrize("url", ON_DISK)
def test_jobs_that_ended_are_forgotten_and_what_ends_later_is_seen_as_ever(opened: Opened, url: str) -> None:
    queue = opened(url)
    one, two, three, four = add(queue, job(), job(), job(), job())
    first, second, _ = start(queue, (one, "a"), (two, "a"), (three, "a"))
    mark, _ = queue.ended_since(None, [])
    end(queue, first, ended_at=10.0)
    end(queue, second, ended_at=20.0)
    with queue.transaction():
        ended = queue.ended_before(15.0)
        queue.forget(ended)
    assert [each.id for each in ended] == [first.id]
    assert queue.find(one) is None
    assert queue.ended_before(15.0) == []
    assert [number for number, _ in queue.ended_since(mark, range(9))[1]] == [two]
    with queue.transaction():
        queue.forget(queue.ended_before(1e12))
    assert queue.counts() == {("running", "a"): 1, ("queued", ""): 1}
    assert [each.number for each in waiting(queue)] == [four]


def test_who_reads_a_queue_does_not_wait_for_who_writes_to_it(opened: Opened) -> None:
    [number] = add(opened(URLS[1]), job())
    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        queue = opened(URLS[1])
        assert [each.id for each in queue.list(["queued"], None)] == [f"tests-{number}"]
        assert queue.find(number) is not None
        db.execute("ROLLBACK")


def test_a_store_without_jobs_and_one_with_them_are_stores_as_before(opened: Opened) -> None:
    queue = opened(URLS[1])
    add(queue, job())
    store = open_store(URLS[1].format(opened.folder))
    assert wait(store.sessions()) == []
    assert wait(store.problems()) == []
    wait(store.close())


@pytest.mark.parametrize("url", ON_DISK)
def test_the_files_of_a_queue_are_their_users_alone(url: str, opened: Opened) -> None:
    opened(url)
    for path in opened.folder.rglob("pods.db*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_how_the_next_jobs_are_found_does_not_depend_on_how_many_wait(opened: Opened) -> None:
    queue = opened(URLS[1])
    add(queue, *(job(agent=agent) for agent in ("a", "b", None) for _ in range(50)))
    queue.close()
    from actors.routing.pool import sqlite_queue  # noqa: PLC0415 - its words

    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db")) as db:
        for words, values in ((sqlite_queue._HEADS, ("a", 5)), (sqlite_queue._LANES, ())):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {words}", values)]
            assert not any("TEMP B-TREE" in step for step in plan), plan
            assert not any(step == "SCAN pool_jobs" for step in plan), plan


def test_a_queue_in_memory_forgets_what_ended_long_ago_and_nothing_that_is_open() -> None:
    queue = MemoryQueue(keep=2)
    numbers = add(queue, *(job(priority=number) for number in range(6)))
    mark, _ = queue.ended_since(None, ())
    for claimed in start(queue, *((number, "a") for number in numbers[:4])):
        end(queue, claimed)
    mark, seen = queue.ended_since(mark, numbers)
    assert [number for number, _ in seen] == numbers[2:4]
    assert [queue.find(number) is not None for number in numbers] == [False, False, True, True, True, True]
    with queue.transaction():
        assert queue.cancel(numbers[0], 1.0) is None
        assert queue.cancel(numbers[4], 1.0) == "queued"
    assert [number for number, _ in queue.ended_since(mark, numbers)[1]] == [numbers[4]]
    assert [each.number for each in waiting(queue)] == [numbers[5]]
    assert queue.has_open()
    assert add(queue, job()) == [numbers[5] + 1]


def test_memory_queues_need_no_file() -> None:
    queue = MemoryQueue()
    assert (queue.may_block, queue.is_durable, queue.folder, queue.lock_descriptor) == (
        False,
        False,
        None,
        None,
    )
    assert not os.path.exists("memory:")  # noqa: PTH110


def test_a_job_that_is_damaged_is_reported_by_its_number(opened: Opened) -> None:
    queue = opened("sqlite:{}/pods.db")
    add(queue, job())
    with contextlib.closing(sqlite3.connect(opened.folder / "pods.db")) as db, db:
        db.execute("UPDATE pool_texts SET body = x'7b22'")
    for ask in (lambda: queue.find(1), lambda: queue.list(["queued"], None), lambda: start(queue, (1, "a"))):
        with pytest.raises(StoreError, match="job 1 of the pool is damaged"):
            ask()
