"""A model starts agents in the background by ``swarm_spawn``, and gets one report of all of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swarm.agent_kit import Moody, all_events, echo, fail, hang, run_and_kill, swarm_in, until

from actors.llm.base import Request
from actors.pod import notify_soon
from actors.pod.accounts.budget import Budget
from actors.runtime.events.bus import QUEUE_SIZE
from actors.sessions.answers import settled
from actors.swarm.agents import spawned
from actors.swarm.agents.spawned import SpawnedAgents
from actors.tools.builtin import builtin
from polypod import (
    AgentStopped,
    BudgetExceeded,
    LLMClient,
    ManifestError,
    MemoryStore,
    Pod,
    PodManifest,
    PodStarted,
    PodSystem,
    RunEnd,
    ScriptedClient,
    StoreError,
    Swarm,
    ToolError,
    ToolResulted,
    ToolStart,
    Usage,
    UserItem,
    UserMessage,
    call,
    say,
)

MANIFEST = PodManifest.of(name="boss", tools={"builtin": ["agents"]})


def spawn(task: str, number: int) -> Any:
    return call("swarm_spawn", {"task": task}, id=f"call-{number}")


async def both_runs(events: Any) -> list[Any]:
    """All events up to the end of the second run, which the report starts."""
    seen = []
    async with asyncio.timeout(30):
        async for event in events:
            seen.append(event)
            if sum(isinstance(each, RunEnd) for each in seen) == 2:
                return seen
    raise AssertionError("it ended before")


async def test_one_report_comes_once_all_agents_have_ended_their_tasks(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def worker(agent: Any) -> str:
        await gate.wait()
        return await (fail(agent) if agent.task == "break" else echo(agent))

    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", spawn={"runner": worker})
        client = ScriptedClient([spawn("one", 1), spawn("break", 2), say("waiting"), say("all seen")])
        pod = await system.spawn(MANIFEST, client=client)
        with pod.subscribe() as events:
            assert (await pod.run("start them")).text == "waiting"
            gate.set()
            seen = await both_runs(events)
        [report] = [each.item.text for each in seen if isinstance(each, UserMessage)][1:]
        first, one, broken = report.split("\n\n")
        assert first == "[auto-swarm update]"
        assert one.splitlines()[0].endswith(": done")
        assert "answer: did one" in one
        assert "task: break\nerror: cannot break" in broken
        assert len(await swarm.agents()) == 2


async def test_the_model_that_a_program_names_stays_where_the_model_names_none(tmp_path: Path) -> None:
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", spawn={"model": "offline"})
        client = ScriptedClient([spawn("hello", 1), say("waiting"), say("thanks")])
        pod = await system.spawn(MANIFEST, client=client)
        with pod.subscribe() as events:
            await pod.run("start one")
            await both_runs(events)
        [agent] = await swarm.agents()
        assert (agent.spec.model, agent.result.status) == ("offline", "done")


class Both(LLMClient):
    """Answers boss and worker."""

    model = "both"

    def __init__(self) -> None:
        took = {"input_tokens": 40, "output_tokens": 10}
        start = call("swarm_spawn", {"task": "dig"}, id="call-1", **took)
        self.boss = ScriptedClient([start, say("waiting", **took), say("thanks", **took)])
        self.worker = ScriptedClient([say("dug", input_tokens=300, output_tokens=50)])

    def stream(self, request: Request) -> Any:
        texts = [getattr(item, "text", "") for item in request.items]
        return (self.worker if texts[0] == "dig" else self.boss).stream(request)


async def test_an_agent_is_by_default_a_pod_like_the_one_that_starts_it(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        pod = await swarm.home.system.spawn(MANIFEST, client=Both())
        with pod.subscribe() as events:
            await pod.run("start one")
            seen = await both_runs(events)
        assert any("answer: dug" in each.item.text for each in seen if isinstance(each, UserMessage))
        [agent] = await swarm.agents()
        assert agent.spec.runner == "pod"


def boss(tokens: int) -> PodManifest:
    return PodManifest.of(
        name="boss",
        tools={"builtin": ["agents"]},
        budget={"tokens": tokens},
        worker={"max_tokens": 1000},
    )


def budget_of(pod: Pod) -> Budget:
    budget = pod.ref.actor.resources.budget
    assert isinstance(budget, Budget)
    return budget


async def test_what_agents_take_counts_against_the_budget_of_the_pod_that_starts_them(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        pod = await swarm.home.system.spawn(boss(100_000), client=Both())
        with pod.subscribe() as events:
            await pod.run("start one")
            await both_runs(events)
        [agent] = await swarm.agents()
        assert agent.result.usage == Usage(300, 50)
        assert budget_of(pod).spent_tokens == 3 * 50 + 350


async def test_an_agent_ends_where_the_budget_of_the_pod_that_starts_it_does(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        pod = await swarm.home.system.spawn(boss(100_000), client=Both())
        with pod.subscribe(kinds=[ToolStart]) as calls:
            running = pod.run("start one")
            await anext(aiter(calls))
            budget_of(pod).spend(99_900, 0.0, estimated=False)
            assert (await running).outcome == "budget"
        [agent] = await swarm.agents()
        assert (await agent.wait()).status == "failed"
        [over] = [each for each in await until(agent, RunEnd) if isinstance(each, BudgetExceeded)]
        assert (over.whose, over.limit) == ("parent", 100_000)


async def test_what_other_programs_take_counts_there_too_and_once_nothing_is_left_none_starts(
    tmp_path: Path,
) -> None:
    async def worker(agent: Any) -> None:
        await agent.say("done", usage=Usage(4000, 2000), cost=0.5)

    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", spawn={"runner": worker})
        client = ScriptedClient([spawn("one", 1), say("waiting"), say("thanks")])
        pod = await system.spawn(boss(100_000), client=client)
        with pod.subscribe() as events:
            await pod.run("start one")
            await both_runs(events)
        assert budget_of(pod).spent_tokens >= 6000
        budget_of(pod).spend(100_000, 0.0, estimated=False)
        with pytest.raises(ToolError, match="another agent would exceed"):
            await SpawnedAgents(swarm, {}).spawn("boss", "more", None, None)


async def test_agents_end_once_their_report_is_given(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        pod = await swarm.home.system.spawn(MANIFEST, client=Both())
        with pod.subscribe() as events:
            await pod.run("start one")
            await both_runs(events)
        [agent] = await swarm.agents()
        [*_, end] = await all_events(agent)
        assert isinstance(end, AgentStopped)
        assert (end.reason, agent.status, agent.is_cut_off) == ("idle", "done", False)
        await agent.resume(client=ScriptedClient([say("dug more")]))
        await agent.send("dig more")
        assert (await agent.wait()).text == "dug more"


async def test_without_a_swarm_the_tool_says_so_and_it_is_off_by_default(tmp_path: Path) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(MANIFEST, client=ScriptedClient([spawn("x", 1), say("oh")]))
        with pod.subscribe(kinds=[ToolResulted]) as results:
            await pod.run("start one")
            [result] = results.drain()
        assert result.item.is_error
        assert "no swarm" in result.item.text
        assert "swarm_spawn" not in [each.name for each in builtin(PodManifest.of().tools.builtin)]
    with pytest.raises(ManifestError):
        async with PodSystem() as system:
            await system.spawn(PodManifest.of(tools={"builtin": ["agent"]}))


async def reports_in(system: PodSystem, session: str, words: str | None = None) -> list[str]:
    """The reports that a pod has got once it lives again, and a run has ended: one of ``words`` or of a report."""
    client = ScriptedClient([say("seen")])
    pod = await system.spawn(MANIFEST, client=client, resume=session)
    with pod.subscribe(kinds=[RunEnd]) as ends:
        if words is not None:
            await pod.run(words)
        await anext(aiter(ends))
    texts = [item.text for item in await pod.history() if isinstance(item, UserItem)]
    return [each for each in texts if each.startswith("[auto-swarm update]")]


async def test_a_report_that_a_killed_process_has_not_given_reaches_its_pod_once(tmp_path: Path) -> None:
    async def worker(agent: Any) -> str:
        return await (hang(agent) if agent.task == "never" else echo(agent))  # type: ignore[func-returns-value]

    async def play(swarm: Swarm, said: Callable[[], Any]) -> None:
        swarm = Swarm(swarm.home.system, swarm.root, spawn={"runner": worker})
        client = ScriptedClient([spawn("one", 1), spawn("never", 2), say("waiting")])
        pod = await swarm.home.system.spawn(MANIFEST, client=client)
        await pod.run("start them")
        for agent in await swarm.agents():
            if agent.spec.task == "one":
                await agent.wait()
        said()

    run_and_kill(tmp_path, play)
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        [session] = [each.session_id for each in await settled(system.store.sessions(pod="boss"))]
        [report] = await reports_in(system, session)
        _, one, never = report.split("\n\n")
        assert one.splitlines()[0].startswith("one-")
        assert one.endswith(": done\ntask: one\nanswer: did one")
        assert "task: never\nerror: its supervisor died" in never
    async with swarm_in(tmp_path) as swarm:
        assert await reports_in(swarm.home.system, session, "and now?") == [report]


async def test_a_pod_that_ended_before_its_report_gets_it_when_it_lives_again(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def worker(agent: Any) -> str:
        await gate.wait()
        return await echo(agent)

    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", spawn={"runner": worker})
        pod = await system.spawn(MANIFEST, client=ScriptedClient([spawn("one", 1), say("waiting")]))
        session = (await pod.run("start one")).session_id
        await pod.stop()
        gate.set()
        [agent] = await swarm.agents()
        await all_events(agent)
        [report] = await reports_in(system, session)
        assert "answer: did one" in report


class Gated:
    """A swarm whose agents wait for a gate: ``boss`` starts one in the session ``session``."""

    def __init__(self, system: PodSystem, folder: Path) -> None:
        self.system, self.gate, self.session = system, asyncio.Event(), ""
        self.swarm = Swarm(system, folder / "root", spawn={"runner": self._work})

    async def _work(self, agent: Any) -> str:
        await self.gate.wait()
        return await echo(agent)

    async def start(self, *later: Any) -> Pod:
        client = ScriptedClient([spawn("one", 1), say("waiting"), *later])
        pod = await self.system.spawn(MANIFEST, client=client)
        self.session = (await pod.run("start one")).session_id
        return pod

    async def leave(self) -> None:
        """Let ``boss`` start an agent and stop, and then let that work and end."""
        await (await self.start()).stop()
        self.gate.set()
        [agent] = await self.swarm.agents()
        await all_events(agent)

    async def resume(self, **more: Any) -> Pod:
        """A pod that goes on in the session of ``boss``."""
        client = ScriptedClient([say("seen")])
        return await self.system.spawn(MANIFEST, client=client, resume=self.session, **more)

    async def open(self) -> str:
        """Let the agent work, and give the name of the pod whose run its report has begun."""
        with self.system.subscribe(kinds=[RunEnd]) as ends:
            self.gate.set()
            return await next_pod(ends)


async def next_pod(ends: Any) -> str:
    """The next pod, not the agent, whose run ends."""
    async with asyncio.timeout(30):
        async for end in ends:
            if not end.pod.startswith("one-"):
                return str(end.pod)
    raise AssertionError("no run ended")


async def reports_of(pod: Pod) -> int:
    texts = [item.text for item in await pod.history() if isinstance(item, UserItem)]
    return sum(each.startswith("[auto-swarm update]") for each in texts)


async def test_a_report_goes_to_the_session_that_started_the_agents_and_not_to_a_pod_of_the_same_name(
    tmp_path: Path,
) -> None:
    async with PodSystem(MemoryStore()) as system:
        gated = Gated(system, tmp_path)
        await (await gated.start()).stop()
        other = await system.spawn(MANIFEST, client=ScriptedClient([]))
        gated.gate.set()
        [agent] = await gated.swarm.agents()
        await all_events(agent)
        with system.subscribe(kinds=[RunEnd]) as ends:
            pod = await gated.resume()
            assert await next_pod(ends) == pod.name
        assert (other.name, await reports_of(other), await reports_of(pod)) == ("boss", 0, 1)


async def test_a_pod_that_was_resumed_under_another_name_while_agents_work_gets_their_report(
    tmp_path: Path,
) -> None:
    async with PodSystem(MemoryStore()) as system:
        gated = Gated(system, tmp_path)
        await (await gated.start()).stop()
        pod = await gated.resume(name="chief")
        assert await gated.open() == "chief"
        assert await reports_of(pod) == 1


async def test_a_pod_that_was_compacted_while_agents_work_gets_their_report(tmp_path: Path) -> None:
    async with PodSystem(MemoryStore()) as system:
        gated = Gated(system, tmp_path)
        pod = await gated.start(say("a summary"), say("seen"))
        assert await pod.compact(retained_tokens=0) != gated.session
        assert await gated.open() == "boss"
        assert await reports_of(pod) == 1


async def test_a_pod_that_was_resumed_while_its_report_was_held_back_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_soon, "_AGAIN", 0.05)
    store = Moody(b"[auto-swarm update]", 1)
    async with PodSystem(store) as system:
        gated = Gated(system, tmp_path)
        pod = await gated.start()
        gated.gate.set()
        await store.has_refused.wait()
        await pod.stop()
        with system.subscribe(kinds=[RunEnd]) as ends:
            pod = await gated.resume()
            await next_pod(ends)
        assert await reports_of(pod) == 1


async def test_a_report_that_the_store_refuses_for_a_moment_is_given_once_it_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_soon, "_AGAIN", 0.01)
    store = Moody(b"[auto-swarm update]", 2)
    async with PodSystem(store) as system:
        gated = Gated(system, tmp_path)
        pod = await gated.start(say("seen"))
        await gated.open()
        assert (store.refused, await reports_of(pod)) == (2, 1)


class Asked(MemoryStore):
    """Answers by ``answer`` when it is asked about the session ``of``."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.answer, self.of, self.was_asked = answer, "", asyncio.Event()

    def info(self, session_id: str) -> Any:
        if session_id != self.of:
            return super().info(session_id)
        self.of = ""
        self.was_asked.set()
        return self.answer()


async def test_an_error_of_a_stores_own_about_one_pod_leaves_the_others_their_reports(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("the disk is away")

    store = Asked(fail)
    async with PodSystem(store) as system:
        other = await system.spawn(MANIFEST, client=ScriptedClient([]), name="other")
        store.of = (await other.describe()).session_id
        gated = Gated(system, tmp_path)
        await store.was_asked.wait()
        assert "'other' started: the disk is away" in gated.swarm.problems[-1]
        await gated.swarm.agents()
        assert "'other' started: the disk is away" in gated.swarm.problems[-1]
        await gated.leave()
        with system.subscribe(kinds=[RunEnd]) as ends:
            pod = await gated.resume()
            assert await next_pod(ends) == pod.name


async def test_a_pod_gets_its_report_as_soon_as_a_store_that_failed_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawned, "_AGAIN", 0.01)
    times = 0

    def fail() -> None:
        nonlocal times
        times += 1
        store.of = gated.session if times < 3 else ""
        raise OSError("the disk is away")

    store = Asked(fail)
    async with PodSystem(store) as system:
        gated = Gated(system, tmp_path)
        await gated.leave()
        with system.subscribe(kinds=[RunEnd, PodStarted]) as events:
            pod = await gated.resume()
            await anext(aiter(events))
            store.of = gated.session
            assert await next_pod(events) == pod.name
        assert (times, await reports_of(pod), gated.swarm.problems) == (3, 1, [])


async def test_a_swarm_whose_first_look_the_store_refused_looks_again(tmp_path: Path) -> None:
    class Away(MemoryStore):
        is_away = True

        def sessions(self, *which: Any, **more: Any) -> Any:
            if self.is_away:
                raise StoreError("the disk is away")
            return super().sessions(*which, **more)

    store = Away()
    async with PodSystem(store) as system:
        swarm = Swarm(system, tmp_path / "root")
        with pytest.raises(StoreError, match="away"):
            await swarm.agents()
        store.is_away = False
        assert await swarm.agents() == []


async def test_a_pod_of_the_same_name_may_start_as_many_agents_as_any(tmp_path: Path) -> None:
    async with PodSystem(MemoryStore()) as system:
        swarm = Swarm(system, tmp_path / "root", spawn={"runner": hang})
        for _ in range(2):
            many = [spawn(f"task {number}", number) for number in range(17)]
            pod = await system.spawn(MANIFEST, client=ScriptedClient([*many, say("waiting")]))
            with pod.subscribe(kinds=[ToolResulted]) as results:
                await pod.run("start them")
                refused = [each.item.text for each in results.drain() if each.item.is_error]
            assert [each.partition(" are running")[0] for each in refused] == ["16 of your agents"]
            await pod.stop()
        assert len(await swarm.agents()) == 32


async def test_a_pod_whose_start_was_dropped_from_a_full_queue_gets_its_report(tmp_path: Path) -> None:
    answer = asyncio.get_running_loop().create_future()
    store = Asked(lambda: answer)
    async with PodSystem(store) as system:
        earlier = Gated(system, tmp_path)
        await (await earlier.start()).stop()
    async with PodSystem(store) as system:
        Swarm(system, tmp_path / "root")
        other = await system.spawn(MANIFEST, client=ScriptedClient([]), name="other")
        session = (await other.describe()).session_id
        anew, again = (
            PodStarted(pod="other", session_id=session, seq=1, at=0.0, model="", resumed=resumed)
            for resumed in (False, True)
        )
        publish = system.home().bus.publish
        with system.subscribe(kinds=[RunEnd]) as ends:
            store.of = session
            publish([again])
            await store.was_asked.wait()
            client = ScriptedClient([say("seen")])
            pod = await system.spawn(MANIFEST, client=client, resume=earlier.session)
            publish([anew] * QUEUE_SIZE)
            answer.set_result(await settled(store.info(session)))
            assert await next_pod(ends) == pod.name
