"""Pools: jobs that end once, limits that hold, runners that die or are limited, and working copies."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.config.trust import trust
from actors.config.working_copies import history_of, mark_copy, origin_of
from actors.swarm.agents.projections import read_lines
from actors.swarm.runners.base import Host, Launch
from actors.swarm.runners.function import AgentContext
from polypod import (
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    Changes,
    Classification,
    ClassificationRefused,
    Execution,
    FileChange,
    Job,
    JobContext,
    ModelError,
    PodManifest,
    PodSystem,
    Pool,
    PoolError,
    RateLimited,
    RunEnd,
    RunResult,
    RunStart,
    ScriptedClient,
    StoreError,
    SystemNotRunning,
    SystemStatus,
    UnknownJob,
    UnknownRunner,
    Usage,
    pod_runner,
    runner_func,
    say,
)
from tests.routing.pool_kit import LISTENING, Bounded, Held, pool_in, statuses

URLS = ["memory:", "sqlite:{}/pods.db"]


def job(name: str = "tests", agent: str | None = None, **more: Any) -> Job:
    return Job(name, f"do {name}", agent, **more)


async def all_of(pool: Pool, *jobs: Job) -> list[Execution]:
    return list(await asyncio.gather(*(pool.submit(each) for each in jobs)))


# -- many jobs


class Dying:
    """A runner whose program is killed in the middle of every third task, and from the thirtieth on before it is up."""

    name, one_shot = "dying", False

    def __init__(self) -> None:
        self.begun = 0

    def start(self, launch: Launch, host: Host) -> Any:
        self.begun += 1
        return self._live(launch, self.begun)

    def _live(self, launch: Launch, number: int) -> Any:
        def make(kind: Any, **fields: Any) -> Any:
            return kind(launch.agent_id, "", 0, time.time(), "r", **fields)

        class Life:
            async def stop(self) -> None:
                pass

            async def __aiter__(self) -> AsyncIterator[Any]:
                if number < 30:
                    yield make(AgentStarted, runner="dying")
                    yield make(RunStart)
                    if number % 3:
                        yield make(RunEnd, outcome="finished")
                        yield make(AgentStopped, reason="exit", code=0)
                        return
                yield make(AgentStopped, reason="killed", code=-9)

        return Life()


async def test_a_job_that_is_cancelled_as_its_program_ends_keeps_what_was_done(
    repository: Path, tmp_path: Path
) -> None:
    ending, ended = asyncio.Event(), asyncio.Event()

    class Lingering(Dying):
        def _live(self, launch: Launch, number: int) -> Any:
            life = super()._live(launch, number)

            async def stop() -> None:
                (launch.cwd / "made.txt").write_text("by it\n")
                ending.set()
                await asyncio.sleep(0.2)
                ended.set()

            life.stop = stop
            return life

    async with pool_in(tmp_path, {"lingers": Lingering()}, worktrees=tmp_path / "worktrees") as pool:
        submitted = pool.submit(job(cwd=str(repository), workspace="worktree"))
        await ending.wait()
        await asyncio.sleep(0.05)  # all that it says is read
        await pool.cancel("1")
        execution = await submitted
    assert ended.is_set()
    assert execution.status == "done"
    assert execution.changes is not None
    assert list((tmp_path / "worktrees").iterdir()) == []


@pytest.mark.parametrize("url", URLS)
async def test_500_jobs_over_three_runners_of_which_one_is_limited_and_one_dies_half_way_each_end_once(
    tmp_path: Path, url: str
) -> None:
    bounded, limits, asked = Bounded(), {"steady": 3, "limited": 5, "dying": 2}, 0
    steady, limited = bounded.runner("steady"), bounded.runner("limited")

    async def refuse(context: JobContext) -> str:
        nonlocal asked
        asked += 1
        if asked in {20, 60}:
            raise RateLimited("enough for now", until=time.time() + 1)
        return str(await limited(context))

    dying = Dying()
    runners = {"steady": steady, "limited": refuse, "dying": dying}
    async with pool_in(tmp_path, runners, limits, url=url) as pool:
        jobs = (job(f"j{n}", None if n % 10 else "limited", priority=n % 3) for n in range(500))
        ended = await all_of(pool, *jobs)
        await pool.join()
        counts = await pool.counts()
    assert statuses(ended) == {"done": 500}
    assert len({each.id for each in ended}) == 500
    assert sum(counts.values()) == 500
    assert all(bounded.most[name] <= limits[name] for name in bounded.most)
    assert {each.agent for each in ended} == {"steady", "limited", "dying"}
    assert {each.attempts for each in ended} == {1, 2}
    assert 20 < asked < 500
    assert 30 <= dying.begun < 60, "who dies again and again is left alone"
    assert len(bounded.done) == len(set(bounded.done)), "nothing that was done was done again"


@pytest.mark.parametrize("url", URLS)
async def test_a_higher_priority_starts_first_and_equal_ones_in_order(tmp_path: Path, url: str) -> None:
    bounded = Bounded()
    async with pool_in(tmp_path, {"one": bounded.runner("one")}, {"one": 1}, url=url) as pool:
        await all_of(
            pool, job("a"), job("b", priority=2), job("c"), job("d", priority=2), job("e", priority=-1)
        )
    assert bounded.done == ["b", "d", "a", "c", "e"]


async def test_jobs_can_be_submitted_and_awaited_from_any_thread(tmp_path: Path) -> None:
    def work() -> Execution:
        with PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
            pool = Pool(system, {"one": Bounded().runner("one")})
            execution = pool.submit(job()).get(timeout=30)
            assert pool.get(execution.id).get(timeout=30) == execution
            pool.close().get(timeout=30)
            return execution

    execution = await asyncio.to_thread(work)
    assert (execution.status, execution.result, execution.agent) == ("done", "one did do tests", "one")


# -- what an execution says


async def test_an_execution_says_what_came_of_a_function(tmp_path: Path) -> None:
    async def review(context: JobContext) -> RunResult:
        assert context.task == context.instructions == "do review"
        assert context.cwd == tmp_path.resolve()
        text = "## Summary\nAll is well.\n\n## Details\nNone."
        return RunResult(text, "finished", Usage(input_tokens=3, output_tokens=5), "r", "s")

    async with pool_in(tmp_path, {"review": review}) as pool:
        ended = await pool.submit(job("review", model="small"))
    assert (ended.status, ended.summary, ended.model) == ("done", "All is well.", "small")
    assert ended.usage == Usage(input_tokens=3, output_tokens=5)
    assert ended.cost is None, "unknown is not 0"
    assert ended.seconds is not None
    assert ended.ended_at is not None
    assert ended.started_at is not None
    assert ended.submitted_at <= ended.started_at <= ended.ended_at


async def test_a_function_says_its_answer_and_what_it_took(tmp_path: Path) -> None:
    async def talks(context: JobContext) -> None:
        await context.say("one", usage=Usage(3, 4), cost=0.5)
        await context.say("two", usage=Usage(1, 1), cost=0.25)

    async with pool_in(tmp_path, {"talks": talks}) as pool:
        ended = await pool.submit(job())
    assert (ended.result, ended.usage, ended.cost) == ("two", Usage(4, 5), 0.75)


@pytest.mark.parametrize("given", [3, object(), ["a"]])
async def test_a_function_that_gives_no_text_fails_its_job(tmp_path: Path, given: object) -> None:
    async def odd(_: JobContext) -> object:
        return given

    async with pool_in(tmp_path, {"odd": odd}) as pool:
        ended = await pool.submit(job())
    assert ended.status == "failed"
    assert ended.error is not None
    assert "not a string" in ended.error


async def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    async def fail(_: JobContext) -> str:
        raise ModelError("the bill is not paid", kind="billing", hint="pay it")

    async with pool_in(tmp_path, {"fails": fail}) as pool:
        ended = await pool.submit(job())
    assert ended.status == "failed"
    assert str(ended.error) == "the bill is not paid (pay it)"


async def test_pods_do_jobs_by_a_manifest_and_their_sessions_are_kept(tmp_path: Path) -> None:
    client = ScriptedClient([say("It is done.", input_tokens=10, output_tokens=4)])
    runner = pod_runner(PodManifest.of(name="worker"), client=client)
    async with pool_in(tmp_path, {"pods": runner}) as pool:
        ended = await pool.submit(job())
        assert (ended.status, ended.result) == ("done", "It is done.")
        assert ended.usage is not None
        assert (ended.usage.input_tokens, ended.usage.output_tokens) == (10, 4)
        store = f"sqlite:{tmp_path}/pods.db"
        logged = list(read_lines(pool.logs / ended.id / "stdout.log"))
    async with PodSystem(store=store) as system:
        assert [each.pod for each in await _sessions(system)] == [f"{ended.id}.pod"]
    assert [line["type"] for line in logged if line["type"] == "result"] == ["result"]


async def _sessions(system: PodSystem) -> list[Any]:
    return list(system.store.sessions())  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["here", "in a process"])
async def test_jobs_that_pods_do_answer_with_the_type_that_was_asked_for(where: str, tmp_path: Path) -> None:
    process = where == "in a process"
    runner = pod_runner(PodManifest.of(model="offline"), output=dict[str, int], process=process)
    async with pool_in(tmp_path, {"pods": runner}) as pool:
        ended = await pool.submit(Job("sort", "use nothing"))
    assert ended.status == "done", ended.error
    assert isinstance(msgspec.json.decode(ended.result or ""), dict)


async def test_an_answer_of_another_type_is_asked_for_again_and_then_fails_its_job(tmp_path: Path) -> None:
    good = ScriptedClient([say("twelve"), say('{"words": 12}')])
    bad = ScriptedClient([say("twelve")], repeat=True)
    runners = {
        name: pod_runner(PodManifest.of(), client=client, output=dict[str, int])
        for name, client in {"good": good, "bad": bad}.items()
    }
    async with pool_in(tmp_path, runners) as pool:
        done = await pool.submit(Job("count", "count", agent="good"))
        failed = await pool.submit(Job("count", "count", agent="bad"))
    assert (done.status, done.result) == ("done", '{"words": 12}')
    assert failed.status == "failed"


async def test_a_manifest_alone_is_a_runner(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"pods": PodManifest.of(model="offline")}) as pool:
        ended = await pool.submit(job())
    assert (ended.status, ended.model) == ("done", "offline")


# -- stdout.log


async def speak(agent: AgentContext) -> str:
    from polypod import AssistantItem, TextDelta  # noqa: PLC0415

    for piece in ("It is ", "done."):
        await agent.emit(TextDelta, text=piece)
    if agent.task == "do fail":
        raise ValueError("no luck")
    if agent.task == "do wait":
        await asyncio.Event().wait()
    await agent.emit(AssistantMessage, item=AssistantItem.of("It is done."))
    return "It is done."


@pytest.mark.parametrize("end", ["well", "fail", "wait"])
async def test_stdout_log_has_the_text_once_and_one_terminator_also_on_failure_and_cancel(
    tmp_path: Path, end: str
) -> None:
    async with pool_in(tmp_path, {"speaks": runner_func(speak)}) as pool:
        ended = pool.submit(job(end))
        if end == "wait":
            [running] = await _until(pool, "running")
            log = pool.logs / running.id / "stdout.log"
            while "stream_event" not in (log.read_text() if log.exists() else ""):  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert await pool.cancel(running.id)
        execution = await ended
        lines = list(read_lines(pool.logs / execution.id / "stdout.log"))
    deltas = [line["event"]["delta"]["text"] for line in lines if line["type"] == "stream_event"]
    assert deltas == ["It is ", "done."]
    said = [
        part["text"] for line in lines if line["type"] == "assistant" for part in line["message"]["content"]
    ]
    assert said == (["It is done."] * 2 if end == "well" else [])[: len(said)]
    results = [line for line in lines if line["type"] == "result"]
    assert lines[-1:] == results
    assert results[0]["is_error"] == (end != "well")
    assert execution.status == {"well": "done", "fail": "failed", "wait": "cancelled"}[end]


async def _until(pool: Pool, status: Any) -> list[Execution]:
    while True:
        if found := await pool.executions([status]):
            return found


# -- programs


async def test_a_program_does_a_job_and_ends_with_it(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"mine": LISTENING}) as pool:
        ended = await pool.submit(Job("say", "something"))
    assert (ended.status, ended.result, ended.attempts) == ("done", "did something", 1)


async def test_a_program_that_says_it_failed_has_failed_and_is_not_asked_again(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"mine": LISTENING}) as pool:
        ended = await pool.submit(Job("say", "fail"))
    assert (ended.status, ended.attempts) == ("failed", 1)
    assert "it cannot" in str(ended.error)


async def test_a_runner_that_dies_in_mid_job_requeues_it_once_and_to_another_if_there_is_one(
    tmp_path: Path,
) -> None:
    async with pool_in(tmp_path, {"mine": LISTENING}) as pool:
        alone = await pool.submit(Job("say", "die"))
    assert (alone.status, alone.attempts) == ("failed", 2)
    assert "ended with code 7" in str(alone.error)
    bounded = Bounded()
    runners = {"mine": LISTENING, "other": bounded.runner("other")}
    async with pool_in(tmp_path, runners, {"mine": 9, "other": 1}) as pool:
        ended = await pool.submit(Job("say", "die"))
    assert (ended.status, ended.attempts, ended.agent) == ("done", 2, "other")


async def test_a_model_that_there_is_not_fails_its_jobs_at_once_and_its_runner_is_not_left_alone(
    tmp_path: Path,
) -> None:
    pods = pod_runner(PodManifest.of(model="offline"))
    async with pool_in(tmp_path, {"pods": pods}) as pool:
        wrong = await all_of(pool, *(job(model="nope/x") for _ in range(3)))
        right = await pool.submit(job())
    assert [(each.status, each.attempts) for each in wrong] == [("failed", 1)] * 3
    assert all(each.error is not None and each.error.kind == "ManifestError" for each in wrong)
    assert right.status == "done"
    assert right.started_at is not None
    assert right.submitted_at is not None
    assert right.started_at - right.submitted_at < 1.0, "it did not wait until its runner had rested"


async def test_a_program_that_is_not_there_fails_its_job_with_its_name(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"mine": ["no-such-program-at-all"]}) as pool:
        ended = await pool.submit(job())
    assert ended.status == "failed"
    assert "no-such-program-at-all" in str(ended.error)


async def test_cancelling_ends_the_program_of_a_job(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"mine": LISTENING}, request_wait=0.2, term_wait=0.2) as pool:
        future = pool.submit(Job("say", "wait"))
        [running] = await _until(pool, "running")
        assert await pool.cancel(running.id)
        ended = await future
        assert ended.status == "cancelled"
        assert not await pool.cancel(running.id), "it has ended"
        assert not list(Path("/proc").glob(f"*/cwd/{tmp_path.name}-never"))


# -- limits and deaths


async def test_jobs_of_a_limited_runner_wait_or_go_elsewhere_and_it_is_asked_again_after_that(
    tmp_path: Path,
) -> None:
    asked: list[tuple[str, float]] = []
    until = 0.0

    async def limited(context: JobContext) -> str:
        nonlocal until
        asked.append((context.name, time.time()))
        if not until:
            until = time.time() + 1.2
            raise RateLimited("enough", until=until)
        return "limited"

    runners = {"limited": limited, "other": Bounded().runner("other")}
    async with pool_in(tmp_path, runners, {"limited": 9, "other": 1}) as pool:
        first = await pool.submit(job("free"))
        assert (first.agent, first.attempts) == ("other", 1), "what a limited runner began was not an attempt"
        assert pool.status().rate_limited == {"limited": until}
        pinned = await pool.submit(job("pinned", "limited"))
    assert (pinned.agent, pinned.result, pinned.attempts) == ("limited", "limited", 1)
    assert [name for name, _ in asked] == ["free", "pinned"]
    assert asked[1][1] >= until


async def test_a_model_error_with_retry_after_limits_its_runner(tmp_path: Path) -> None:
    answers = [ModelError("slow down", kind="rate_limit", retry_after=1.1), None]

    async def limited(_: JobContext) -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "well"

    async with pool_in(tmp_path, {"limited": limited}) as pool:
        future = pool.submit(job())
        while not pool.status().rate_limited:  # noqa: ASYNC110
            await asyncio.sleep(0)
        ended = await future
    assert (ended.status, ended.attempts) == ("done", 1)


# -- cancel, and the end


@pytest.mark.parametrize("url", URLS)
async def test_cancelling_a_job_that_waits_and_one_that_runs(tmp_path: Path, url: str) -> None:
    held = Held()
    async with pool_in(tmp_path, {"held": held}, {"held": 1}, url=url) as pool:
        running, waits = pool.submit(job("runs")), pool.submit(job("waits"))
        context = await held.begun.get()
        [queued] = await _until(pool, "queued")
        assert await pool.cancel(queued.id)
        ended = await waits
        assert (ended.status, ended.attempts, ended.started_at) == ("cancelled", 0, None)
        assert await pool.cancel(context.id)
        assert (await running).status == "cancelled"
        assert held.cancelled == ["runs"]
        with pytest.raises(UnknownJob):
            await pool.cancel("runs-99")
        with pytest.raises(UnknownJob):
            await pool.get("other-1")


async def test_who_waits_no_more_cancels_nothing(tmp_path: Path) -> None:
    held = Held()
    async with pool_in(tmp_path, {"held": held}) as pool:
        waiting = asyncio.ensure_future(pool.submit(job()))
        context = await held.begun.get()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        held.gate.set()
        assert (await pool.wait_for(context.id)).status == "done"


async def test_a_pool_that_is_left_gives_its_jobs_back_and_the_next_does_them(tmp_path: Path) -> None:
    held = Held()
    async with pool_in(tmp_path, {"held": held}, {"held": 1}) as pool:
        futures = [pool.submit(job("runs")), pool.submit(job("waits"))]
        await held.begun.get()
    stands = [future.get(timeout=0) for future in futures]
    assert [(each.status, each.attempts) for each in stands] == [("queued", 0), ("queued", 0)]
    assert held.cancelled == ["runs"]
    with pytest.raises(SystemNotRunning):
        await pool.submit(job())
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}) as again:
        ended = [await again.wait_for(each.id) for each in stands]
    assert statuses(ended) == {"done": 2}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("turns", range(6))
async def test_a_pool_can_be_left_at_any_moment(tmp_path: Path, url: str, turns: int) -> None:
    chooses = Chooses(*([ValueError("no")] * 20))
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}, None, chooses, url=url) as pool:
        futures = [pool.submit(job(agent=agent)) for agent in ("one", None) for _ in range(9)]
        for _ in range(turns * 3):
            await asyncio.sleep(0)
        await pool.aclose()
        await pool.aclose()
    assert statuses([future.get(timeout=0) for future in futures]).keys() <= {"done", "queued", "cancelled"}


async def test_a_pool_in_memory_that_is_left_ends_its_jobs(tmp_path: Path) -> None:
    held = Held()
    async with pool_in(tmp_path, {"held": held}, {"held": 1}, url="memory:") as pool:
        futures = [pool.submit(job("runs")), pool.submit(job("waits"))]
        await held.begun.get()
        logs = pool.logs
        assert logs.exists()
    assert statuses([future.get(timeout=0) for future in futures]) == {"cancelled": 2}
    assert not logs.exists()


async def test_two_pools_on_one_queue_share_its_jobs_and_its_limits(tmp_path: Path) -> None:
    held = Held()
    async with (
        pool_in(tmp_path, {"held": held}, {"held": 2}) as one,
        PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system,
    ):
        other = Pool(system, {"held": held}, {"held": 2})
        futures = [(one if number % 2 else other).submit(job(f"j{number}")) for number in range(6)]
        begun = [await held.begun.get() for _ in range(2)]
        while len(await other.executions(["queued"])) < 4:  # each pool queues its own in its time
            pass
        assert held.begun.empty()
        assert len({each.id for each in begun}) == 2
        held.gate.set()
        assert statuses(list(await asyncio.gather(*futures))) == {"done": 6}


async def test_a_pool_without_runners_submits_for_others(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {}) as submits:
        future = submits.submit(job(agent="one"))
        async with PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
            pool = Pool(system, {"one": Bounded().runner("one")})
            ended = await future
            assert (ended.status, ended.agent) == ("done", "one")
            [kept] = await pool.submit_all([job("kept")])
            assert (await submits.wait_for(kept.id)).status == "done"


# -- classification


class Chooses:
    """A classifier whose answers are given, and which notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None, SystemStatus]] = []

    async def classify(
        self, name: str, instructions: str, status: SystemStatus, agent: str | None
    ) -> Classification:
        assert instructions == f"do {name}"
        self.asked.append((name, agent, status))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Classification)
        return answer


async def test_a_classifier_chooses_runner_and_model_and_its_reason_is_kept(tmp_path: Path) -> None:
    chooses = Chooses(Classification("b", "small", "it is easy"))
    models: list[str | None] = []

    async def takes(context: JobContext) -> str:
        models.append(context.model)
        return "well"

    async with pool_in(tmp_path, {"a": takes, "b": takes}, None, chooses) as pool:
        ended = await pool.submit(job())
    assert (ended.agent, ended.model, ended.reason) == ("b", "small", "it is easy")
    assert models == ["small"]
    [(name, agent, status)] = chooses.asked
    assert (name, agent) == ("tests", None)
    assert status == SystemStatus(active_tasks={"a": 0, "b": 0})


async def test_skip_classification_only_for_a_registered_agent_and_unknown_types_still_reach_the_balancer(
    tmp_path: Path,
) -> None:
    chooses = Chooses(ClassificationRefused("nobody is good enough"))
    one = Bounded().runner("one")
    async with pool_in(tmp_path, {"a": one, "b": one}, None, chooses) as pool:
        known = await pool.submit(job("known", "b"))
        assert known.agent == "b"
        assert not chooses.asked
        unknown = await pool.submit(job("unknown", "no such"))
    assert unknown.status == "done"
    assert unknown.agent in {"a", "b"}
    assert unknown.reason == "not classified: nobody is good enough"
    assert [(name, agent) for name, agent, _ in chooses.asked] == [("unknown", "no such")]


@pytest.mark.parametrize(
    "answer", [Classification("no such", "m"), ValueError("it broke"), ClassificationRefused("no")]
)
async def test_an_answer_outside_the_known_agents_has_the_pool_balance(tmp_path: Path, answer: Any) -> None:
    async with pool_in(tmp_path, {"a": Bounded().runner("a")}, None, Chooses(answer)) as pool:
        ended = await pool.submit(job())
    assert (ended.agent, ended.status) == ("a", "done")
    assert str(ended.reason).startswith("not classified: ")


async def test_an_answer_that_names_a_limited_agent_has_the_pool_balance(tmp_path: Path) -> None:
    async def limited(_: JobContext) -> str:
        raise RateLimited("enough", until=time.time() + 50)

    runners = {"limited": limited, "other": Bounded().runner("other")}
    chooses = Chooses(Classification("limited"), Classification("limited"))
    async with pool_in(tmp_path, runners, None, chooses) as pool:
        first, second = await pool.submit(job("one")), await pool.submit(job("two"))
    assert (first.agent, second.agent) == ("other", "other")
    assert list(chooses.asked[1][2].rate_limited) == ["limited"]


async def test_a_classifier_that_hangs_takes_no_slot_and_waits_for_none(tmp_path: Path) -> None:
    """A re-entrant pool: the classifier itself waits for a job that needs the only slot."""

    class Waits:
        pool: Pool

        async def classify(self, *_: Any) -> Classification:
            inner = await self.pool.submit(job("inner", "only"))
            return Classification("only", reason=str(inner.result))

    waits = Waits()
    async with pool_in(tmp_path, {"only": Bounded().runner("only")}, {"only": 1}, waits) as pool:
        waits.pool = pool
        ended = await pool.submit(job("outer"))
    assert (ended.status, ended.reason) == ("done", "only did do inner")


# -- working copies


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("one\ntwo\n")
    (folder / "sub/b.txt").write_text("b\n")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def git(folder: Path, *words: str) -> str:
    config = ("-c", "user.name=t", "-c", "user.email=t@t")
    return subprocess.run(
        ["git", *config, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


async def change(context: JobContext) -> str:
    (context.cwd / "b.txt").write_text("b\nmore\n")
    (context.cwd / "new é.txt").write_text(f"by {context.name}\n")
    (context.cwd / "ignored").write_text("x")
    (context.cwd.parent / "a.txt").unlink()
    return "changed"


async def test_a_working_copy_is_made_for_a_job_and_cleaned_and_its_branch_has_what_it_did(
    tmp_path: Path, repository: Path
) -> None:
    async with pool_in(tmp_path, {"change": change}) as pool:
        jobs = [job(f"j{n}", cwd=str(repository / "sub"), workspace="worktree") for n in range(3)]
        ended = await all_of(pool, *jobs)
    base = git(repository, "rev-parse", "HEAD").strip()
    for each in ended:
        changes = each.changes
        assert changes is not None
        assert changes.files == (
            FileChange("a.txt", "deleted", 0, 2),
            FileChange("sub/b.txt", "modified", 1, 0),
            FileChange("sub/new é.txt", "added", 1, 0),
        )
        assert changes.base == base
        assert changes.branch is not None
        assert git(repository, "rev-parse", changes.branch).strip() == changes.commit
        assert git(repository, "show", f"{changes.branch}:sub/new é.txt") == f"by {each.job.name}\n"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 1
    assert list((tmp_path / "worktrees").iterdir()) == []


@pytest.mark.parametrize("bumped", [True, False])
async def test_git_runs_nothing_that_the_settings_of_a_jobs_submodule_name(
    tmp_path: Path, repository: Path, bumped: bool
) -> None:
    head, mark = git(repository, "rev-parse", "HEAD").strip(), tmp_path / "mark"
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head},part")
    git(repository, "commit", "-qm", "with a submodule")

    async def plant(context: JobContext) -> str:
        part = context.cwd / "part"
        git(part, "init", "-q", "-b", "main")
        git(part, "fetch", "-q", str(repository), "main")
        git(part, "reset", "-q", "--hard", "FETCH_HEAD" if bumped else head)
        git(part, "config", "core.fsmonitor", f"touch {mark}; false")
        (part / "a.txt").write_text("changed")
        (context.cwd / "a.txt").write_text("changed\n")
        return "planted"

    async with pool_in(tmp_path, {"plant": plant}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.changes is not None
    assert [each.path for each in ended.changes.files] == ["a.txt", *(["part"] if bumped else [])]
    assert not mark.exists()


async def test_what_a_program_left_on_a_branch_without_a_commit_is_kept(
    tmp_path: Path, repository: Path
) -> None:
    async def begins_anew(context: JobContext) -> None:
        git(context.cwd, "checkout", "-q", "--orphan", "anew")
        (context.cwd / "left.txt").write_text("y\n")

    async with pool_in(tmp_path, {"begins": begins_anew}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.changes is not None
    assert [each.path for each in ended.changes.files] == ["left.txt"]


async def test_a_job_that_changed_nothing_leaves_no_branch(tmp_path: Path, repository: Path) -> None:
    async with pool_in(tmp_path, {"idle": Bounded().runner("idle")}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.changes == Changes(git(repository, "rev-parse", "HEAD").strip())
    assert git(repository, "branch", "--format=%(refname:short)").split() == ["main"]


async def test_what_a_program_committed_itself_is_on_the_branch_and_no_hook_of_the_user_ran(
    tmp_path: Path, repository: Path
) -> None:
    hook = repository / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o700)

    async def commits(context: JobContext) -> None:
        git(context.cwd, "checkout", "-q", "-b", "elsewhere")
        (context.cwd / "own.txt").write_text("x\n")
        git(context.cwd, "add", "-A")
        git(context.cwd, "commit", "-qnm", "own")
        (context.cwd / "left.txt").write_text("y\n")

    async with pool_in(tmp_path, {"commits": commits}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.changes is not None
    assert [each.path for each in ended.changes.files] == ["left.txt", "own.txt"]
    assert git(repository, "log", "--format=%s", str(ended.changes.branch)).splitlines() == [
        "tests",
        "own",
        "first",
    ]


async def test_a_job_that_is_cancelled_or_fails_keeps_what_it_did_and_leaves_no_folder(
    tmp_path: Path, repository: Path
) -> None:
    begun = asyncio.Event()

    async def half(context: JobContext) -> str:
        (context.cwd / "half.txt").write_text("x\n")
        if context.name == "fails":
            raise ValueError("no")
        begun.set()
        await asyncio.Event().wait()
        return ""

    async with pool_in(tmp_path, {"half": half}) as pool:
        there = {"cwd": str(repository), "workspace": "worktree"}
        failed = await pool.submit(job("fails", **there))
        future = pool.submit(job("waits", **there))
        await begun.wait()
        await pool.cancel("2")
        cancelled = await future
    for each, status in ((failed, "failed"), (cancelled, "cancelled")):
        assert each.status == status
        assert each.changes is not None
        assert [file.path for file in each.changes.files] == ["half.txt"]
    assert list((tmp_path / "worktrees").iterdir()) == []


@pytest.mark.parametrize("what", ["no repository", "no commit", "no folder", "not committed"])
async def test_a_folder_that_can_have_no_working_copy_is_a_clear_error(
    tmp_path: Path, repository: Path, what: str
) -> None:
    folder = tmp_path / "plain"
    if what == "not committed":
        folder = repository / "fresh"
    if what != "no folder":
        folder.mkdir()
    if what == "no commit":
        git(folder, "init", "-q")
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}) as pool:
        ended = await pool.submit(job(cwd=str(folder), workspace="worktree"))
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.kind == "WorkspaceError"
    assert str(folder) in ended.error.message
    assert ended.error.hint
    assert not (tmp_path / "worktrees").exists() or not list((tmp_path / "worktrees").iterdir())


async def test_what_a_dead_attempt_left_of_its_working_copy_is_made_anew(
    tmp_path: Path, repository: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        Path(LISTENING[-1])
        .read_text()
        .replace("os._exit(7)", "open('half.txt', 'w').write('x'); os._exit(7)")
    )

    async def other(context: JobContext) -> str:
        return str(sorted(os.listdir(context.cwd)))  # noqa: PTH208

    runners = {"mine": [*LISTENING[:-1], str(program)], "other": other}
    async with pool_in(tmp_path, runners, {"mine": 9, "other": 1}) as pool:
        ended = await pool.submit(Job("say", "die", cwd=str(repository), workspace="worktree"))
    assert (ended.status, ended.agent, ended.attempts) == ("done", "other", 2)
    assert ended.result == "['.git', '.gitignore', 'a.txt', 'sub']"


async def test_a_pod_in_a_working_copy_has_its_scope_there(tmp_path: Path, repository: Path) -> None:
    from polypod import call  # noqa: PLC0415

    client = ScriptedClient([call("write_file", {"path": "made.txt", "content": "hello\n"}), say("made")])
    manifest = PodManifest.of(
        name="writer",
        pwd=str(repository),
        tools={"builtin": ["files"]},
        scope={"allow": [{"target": str(repository), "permission": "write"}]},
    )
    async with pool_in(tmp_path, {"pods": pod_runner(manifest, client=client)}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.status == "done", ended.error
    assert ended.changes is not None
    assert [each.path for each in ended.changes.files] == ["made.txt"]
    assert not (repository / "made.txt").exists()


async def test_a_pod_in_a_working_copy_sees_its_history_and_cannot_change_it(
    tmp_path: Path, repository: Path
) -> None:
    from polypod import call  # noqa: PLC0415

    words = "git log --format=%s -1; git commit --allow-empty -qm mine"
    client = ScriptedClient([call("shell", {"command": words}), say("seen")])
    manifest = PodManifest.of(
        pwd=str(repository),
        tools={"builtin": ["shell"]},
        scope={"allow": [{"target": str(repository), "permission": "write"}]},
    )
    async with pool_in(tmp_path, {"pods": pod_runner(manifest, client=client)}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.status == "done", ended.error
    printed = client.requests[-1].items[-1].text
    assert printed.startswith("first\n")
    assert "Read-only file system" in printed or "denied" in printed
    assert ended.changes is not None
    assert ended.changes.branch is None


async def test_a_pod_works_in_the_folder_that_its_job_names(tmp_path: Path) -> None:
    from polypod import call  # noqa: PLC0415

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    client = ScriptedClient([call("write_file", {"path": "made.txt", "content": "x"}), say("made")] * 2)
    manifest = PodManifest.of(
        pwd=str(here),
        tools={"builtin": ["files"]},
        scope={"allow": [{"target": str(here), "permission": "write"}]},
    )
    async with pool_in(tmp_path, {"pods": pod_runner(manifest, client=client)}) as pool:
        await pool.submit(job(cwd=str(there)))
        assert [each.name for each in (*here.iterdir(), *there.iterdir())] == ["made.txt"]
        assert (there / "made.txt").exists()
        await pool.submit(job())
    assert (here / "made.txt").exists(), "a job that names none is done where the manifest says"


async def test_a_chain_of_the_configuration_answers_in_a_working_copy_and_is_verified_there(
    tmp_path: Path, repository: Path
) -> None:
    """Though the file that has it is not committed, and so is not in the copy."""
    path = repository / "polypod.toml"
    path.write_text(
        '[[chain]]\nname = "c"\nentries = ["offline"]\nverifier = { command = ["sh", "-c", "pwd >&2; exit 1"] }\n'
    )
    trust(path, hashlib.sha256(path.read_bytes()).hexdigest())
    manifest = PodManifest.of(pwd=str(repository), model="chain/c")
    async with pool_in(tmp_path, {"pods": pod_runner(manifest)}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.error is not None
    assert ended.error.kind == "ChainExhausted", ended.error
    assert str(tmp_path / "worktrees") in ended.error.message, "where it was verified"


def test_a_folder_that_only_says_it_is_a_working_copy_is_none(tmp_path: Path, repository: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    git(repository, "worktree", "add", "-q", str(copy))
    mark_copy(copy, repository)
    assert origin_of(copy / "sub") == repository / "sub"
    other.mkdir()
    (other / ".git").write_text((copy / ".git").read_text())
    assert origin_of(other) == other, "git knows of another folder"
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "gitdir").write_text(str(other / ".git"))
    (other / ".git").write_text(f"gitdir: {kept}")
    mark_copy(other, repository)
    assert origin_of(other) == other, "what it names is nothing of that repository"


def test_a_working_copy_of_a_repository_whose_git_folder_is_elsewhere_stands_for_it(
    tmp_path: Path, repository: Path
) -> None:
    """As that of a submodule is."""
    copy = tmp_path / "copy"
    git(repository, "init", "-q", f"--separate-git-dir={tmp_path / 'elsewhere'}")
    git(repository, "worktree", "add", "-q", str(copy))
    mark_copy(copy, repository)
    assert origin_of(copy / "sub") == repository / "sub"
    assert history_of(copy / "sub") == history_of(repository) == tmp_path / "elsewhere"


def test_a_working_copy_with_relative_paths_stands_for_its_repository(
    tmp_path: Path, repository: Path
) -> None:
    """As ``worktree.useRelativePaths`` has git write them."""
    copy, kept = tmp_path / "copy", repository / ".git/worktrees/copy"
    git(repository, "worktree", "add", "-q", str(copy))
    mark_copy(copy, repository)
    (kept / "gitdir").write_text(f"{os.path.relpath(copy / '.git', kept)}\n")
    (copy / ".git").write_text(f"gitdir: {os.path.relpath(kept, copy)}\n")
    assert origin_of(copy / "sub") == repository / "sub"
    assert history_of(copy) == repository / ".git"


async def test_a_repository_whose_path_is_no_utf_8_has_working_copies(
    tmp_path: Path, repository: Path
) -> None:
    odd = repository.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    seen: list[Path] = []

    async def look(context: JobContext) -> str:
        seen.append(origin_of(context.cwd))
        return "seen"

    (tmp_path / "link").symlink_to(odd)
    async with pool_in(tmp_path, {"a": look}) as pool:
        ended = await pool.submit(job(cwd=str(tmp_path / "link"), workspace="worktree"))
    assert ended.status == "done", ended.error
    assert seen == [odd]


async def test_a_working_copy_that_cannot_be_set_up_leaves_nothing(tmp_path: Path, repository: Path) -> None:
    git(repository, "config", "filter.f.smudge", 'mkdir "$(git rev-parse --git-dir)/polypod-origin"; cat')
    (repository / ".git/info/attributes").write_text("a.txt filter=f\n")
    async with pool_in(tmp_path, {"a": change}) as pool:
        ended = await pool.submit(job(cwd=str(repository), workspace="worktree"))
    assert ended.error is not None
    assert "cannot be set up" in ended.error.message
    assert git(repository, "worktree", "list").count("\n") == 1
    assert git(repository, "branch", "--format=%(refname:short)").split() == ["main"]


# -- bad input


async def test_what_no_pool_can_be_made_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Bounded().runner("one")
    wrong: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
        ({"one": one}, {"two": 1}, PoolError, "'two', which is not a runner"),
        ({"one": one}, {"one": 0}, PoolError, "1 or more"),
        ({"one": one}, {"one": True}, PoolError, "1 or more"),
        ({"one": 3}, {}, PoolError, "is not a runner"),
        ({"": one}, {}, PoolError, "not a valid name"),
        ({"one": lambda _: "x"}, {}, PoolError, "is not a runner"),
        ({"one": "no such"}, {}, UnknownRunner, "no such"),
        ({"one": []}, {}, UnknownRunner, "command"),
    ]
    async with PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
        for runners, limits, error, words in wrong:
            with pytest.raises(error, match=words):
                Pool(system, runners, limits)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    async with PodSystem() as system:
        with pytest.raises(UnknownRunner):
            Pool(system, {"one": "no such"})
    assert list((tmp_path / "temporary").iterdir()) == []
    with pytest.raises(SystemNotRunning):
        Pool(system, {"one": one})


@pytest.mark.parametrize(
    "wrong",
    [
        "a text",
        Job("", "do"),
        Job("a", "  "),
        Job("a", 3),  # type: ignore[arg-type]
        Job("a", "b", priority="high"),  # type: ignore[arg-type]
        Job("a", "b", priority=2**40),
        Job("a", "b", workspace="cloud"),  # type: ignore[arg-type]
        Job("a", "b", on_lost="ignore"),  # type: ignore[arg-type]
        Job("a", "b", agent=7),  # type: ignore[arg-type]
    ],
)
async def test_what_is_no_job_is_refused_at_once(tmp_path: Path, wrong: Any) -> None:
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}, url="memory:") as pool:
        with pytest.raises(PoolError):
            pool.submit(wrong)


async def test_words_that_are_no_text_are_made_so(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}) as pool:
        ended = await pool.submit(Job("a\ud800", "b\ud800"))
        assert ended.result == "one did b\N{REPLACEMENT CHARACTER}"
        assert json.dumps(ended.job.name)


async def test_a_store_that_keeps_nothing_fails_the_submission_and_the_pool_goes_on(tmp_path: Path) -> None:
    async with pool_in(tmp_path, {"one": Bounded().runner("one")}) as pool:
        assert (await pool.submit(job())).status == "done"
        there, away = tmp_path / "pods.db", tmp_path / "away.db"
        there.rename(away)
        with pytest.raises(StoreError):
            await pool.submit(job())
        away.rename(there)
        assert (await pool.submit(job())).status == "done"
