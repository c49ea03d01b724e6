"""What runners, classifiers and queues of others give that is no good ends a job, and never its pool."""

import asyncio
import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from actors.routing.pool import driving
from actors.routing.pool.availability import Availability
from actors.routing.pool.choosing import Choosing
from actors.routing.pool.endings import Outcome, decide
from actors.routing.pool.memory_queue import MemoryQueue
from actors.routing.pool.queue import Claimed, Ended
from actors.routing.pool.turn import Assignment
from polypod import Classification, Job, JobContext, ModelError, PodSystem, Pool, RateLimited, StoreError
from tests.routing.pool_kit import Held, pool_in

URLS = ["sqlite:{}/pods.db", "memory:"]


async def do(job: JobContext) -> str:
    return f"did {job.name}"


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "more",
    [
        {"usage": SimpleNamespace(input_tokens=1)},
        {"usage": {"input": 1}},
        {"cost": object()},
        {"cost": math.nan},
    ],
)
async def test_usage_and_cost_in_the_words_of_others_are_unknown(
    tmp_path: Path, url: str, more: dict[str, Any]
) -> None:
    async def odd(_: JobContext) -> Any:
        return SimpleNamespace(text="a", **more)

    async with pool_in(tmp_path, {"odd": odd}, url=url) as pool:
        ended = await pool.submit(Job("one", "x"))
        assert await pool.get(ended.id) == ended
    assert (ended.status, ended.result, ended.usage, ended.cost) == ("done", "a", None, None)


def test_an_end_that_cannot_be_kept_is_a_failure_that_can() -> None:
    """Else the queue would be given it again and again, and keep nothing more."""
    claimed = Claimed(1, Job("one", "x"), "a", None, None, 1, 0, 1.0, 2.0)
    odd: Any = object()
    for outcome in (Outcome(kind="done", usage=odd), Outcome(kind="done", text="\ud800")):
        decided = decide(claimed, outcome, limited=False, leaving=False, durable=True, now=3.0)
        assert isinstance(decided, Ended)
        assert (decided.execution.status, decided.execution.usage) == ("failed", None)
        assert "cannot be stored" in str(decided.execution.error)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "said",
    [
        SimpleNamespace(agent_type="good", model=object(), reason=None),
        SimpleNamespace(agent_type=["good"], model=None, reason=None),
        replace(Classification("good"), model=5),
        replace(Classification("good"), reason={"a": 1}),
        None,
    ],
)
async def test_what_a_classifier_says_that_is_no_classification_has_the_pool_balance(
    tmp_path: Path, url: str, said: Any
) -> None:
    class Odd:
        async def classify(self, *_: Any) -> Any:
            return said

    async with asyncio.timeout(10), pool_in(tmp_path, {"good": do}, None, Odd(), url=url) as pool:
        ended = await pool.submit(Job("one", "x"))
        assert await pool.get(ended.id) == ended
    assert (ended.status, ended.model) == ("done", None)
    assert "not a Classification" in str(ended.reason)


@pytest.mark.parametrize("url", URLS)
async def test_words_of_a_classifier_that_are_no_text_are_made_so(tmp_path: Path, url: str) -> None:
    class Odd:
        async def classify(self, *_: Any) -> Any:
            return Classification("good", "m\ud800", "since \ud800")

    async with asyncio.timeout(10), pool_in(tmp_path, {"good": do}, None, Odd(), url=url) as pool:
        ended = await pool.submit(Job("one", "x"))
    assert ended.status == "done"
    assert str(ended.reason).startswith("since ")


@pytest.mark.parametrize("url", URLS)
async def test_a_classifier_that_is_cancelled_inside_has_the_pool_balance(tmp_path: Path, url: str) -> None:
    class Cancelled:
        async def classify(self, *_: Any) -> Any:
            raise asyncio.CancelledError

    async with asyncio.timeout(10), pool_in(tmp_path, {"good": do}, None, Cancelled(), url=url) as pool:
        ended = await pool.submit(Job("one", "x"))
    assert ended.status == "done"
    assert "not classified" in str(ended.reason)


async def test_a_classifier_that_never_answers_is_waited_for_no_longer_than_it_may_take() -> None:
    class Hangs:
        async def classify(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    assigned: asyncio.Queue[Assignment] = asyncio.Queue()
    choosing = Choosing(Hangs(), Availability({"good": 1}), assigned.put_nowait, patience=0.0)
    async with asyncio.timeout(10):
        choosing.begin(7, Job("one", "x"))
        assignment = await assigned.get()
    assert (assignment.number, assignment.lane) == (7, "")
    assert "not classified" in str(assignment.reason)


async def test_a_classifier_that_fails_in_a_row_is_left_alone_and_jobs_do_not_wait_for_it() -> None:
    asked = 0

    class Fails:
        async def classify(self, *_: Any) -> Any:
            nonlocal asked
            asked += 1
            raise ModelError("nothing listens there", kind="connection")

    assigned: asyncio.Queue[Assignment] = asyncio.Queue()
    choosing = Choosing(Fails(), Availability({"good": 1}), assigned.put_nowait)
    async with asyncio.timeout(10):
        for number in range(3):
            choosing.begin(number, Job("one", "x"))
            await assigned.get()
        choosing.begin(3, Job("one", "x"))
        assignment = assigned.get_nowait()
    assert (asked, assignment.number, assignment.lane) == (3, 3, "")
    assert "is not asked for a while" in str(assignment.reason)
    assert choosing.done == {0, 1, 2, 3}


def limited(error: Exception) -> Any:
    async def raises(_: JobContext) -> str:
        raise error

    return raises


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("until", [math.inf, math.nan, "soon", None, True])
async def test_a_limit_that_does_not_say_when_it_ends_is_over_in_a_while(
    tmp_path: Path, url: str, until: Any
) -> None:
    errors = [
        RateLimited("too much", until=until),
        ModelError("too much", kind="rate_limit", retry_after=until),
    ]
    runners = {f"limited {number}": limited(error) for number, error in enumerate(errors)}
    async with asyncio.timeout(10), pool_in(tmp_path, runners, url=url) as pool:
        for name in runners:
            pool.submit(Job("one", "x", name))
        while len(pool.status().rate_limited) < len(runners):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert all(math.isfinite(each) for each in pool.status().rate_limited.values())
        while (await pool.counts()) != {("queued", name): 1 for name in runners}:
            pass


class Unseeing(MemoryQueue):
    """Keeps what it is given, and cannot be asked for what came of it for some turns."""

    def __init__(self) -> None:
        super().__init__()
        self.blind = 0

    def cancels(self) -> list[int]:
        if self.blind:
            self.blind -= 1
            raise StoreError("the disk is away")
        return super().cancels()


async def test_a_job_that_was_started_is_done_where_the_queue_fails_right_after_that() -> None:
    """Its place would be taken for as long as the process lives, else, and it would never end."""
    queue = Unseeing()
    async with asyncio.timeout(10), PodSystem() as system:
        pool = Pool(system, {"good": do}, {"good": 1}, queue=queue)
        queue.blind = 1
        one = pool.submit(Job("one", "x"))
        assert (await one).status == "done"
        assert (await pool.submit(Job("two", "x"))).status == "done"
    assert not queue.blind


async def test_a_queue_whose_folder_is_deleted_fails_who_asks_and_leaves_nobody_waiting(
    tmp_path: Path,
) -> None:
    held, place = Held(), tmp_path / "place"
    place.mkdir()
    async with pool_in(place, {"held": held}, worktrees=tmp_path) as pool:
        job = pool.submit(Job("one", "x"))
        await held.begun.get()
        shutil.rmtree(place)
        looks = asyncio.get_running_loop().time() + 0.6  # it looks after its lock, which is in there
        while asyncio.get_running_loop().time() < looks:
            with pytest.raises(StoreError):
                await pool.submit(Job("two", "x"))
        held.gate.set()
    with pytest.raises(StoreError):
        await job


class Locked(MemoryQueue):
    """Cannot be written to from the first job on, as where a process was stopped that writes."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def transaction(self) -> Any:
        if self.find(1) is not None:
            self.refused += 1
            raise StoreError("another process has locked it")
        return super().transaction()


async def test_a_pool_that_is_left_tries_a_queue_for_a_time_and_not_a_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time may take as long as the queue waits for others."""
    monkeypatch.setattr(driving, "_GIVES_UP", 0.0)
    held, queue = Held(), Locked()
    async with asyncio.timeout(10), PodSystem() as system:
        job = Pool(system, {"held": held}, queue=queue).submit(Job("one", "x"))
        await held.begun.get()
    assert queue.refused == 1
    assert (await job).status == "cancelled"


async def test_a_job_that_is_cancelled_as_its_pool_is_left_is_not_done_by_the_next(tmp_path: Path) -> None:
    held = Held()
    async with pool_in(tmp_path, {"held": held}) as pool, pool_in(tmp_path, {}) as other:
        job = pool.submit(Job("one", "x"))
        started = await held.begun.get()
        await other.cancel(started.id)
        await pool.aclose()
        assert (await job).status == "cancelled"
        assert (await other.get(started.id)).status == "cancelled"


@pytest.mark.parametrize(
    "name", ["a\0b", "# not a comment", "-rf", "../../../x\n\n\nb", "\x1b[31m", "%s {0}"]
)
async def test_a_working_copy_is_finished_whatever_its_job_is_called(tmp_path: Path, name: str) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    words = "git init -q && echo a > a && git add a && git -c user.name=t -c user.email=t@t commit -qm first"
    await asyncio.to_thread(subprocess.run, words, shell=True, check=True, cwd=repository)

    async def change(job: JobContext) -> None:
        (job.cwd / "new").write_text("x")

    async with pool_in(tmp_path, {"change": change}) as pool:
        ended = await pool.submit(Job(name, "x", cwd=str(repository), workspace="worktree"))
    assert (ended.status, ended.error) == ("done", None)
    assert ended.changes is not None
    assert [each.path for each in ended.changes.files] == ["new"]
    assert list((tmp_path / "worktrees").iterdir()) == []
