"""Agents that fail are started again within limits, alone or in a group with pods."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from swarm.agent_kit import Moody, all_events, echo, fail, fail_times, hang, swarm_in, until, wait_for_ever

from actors.swarm.processes.process_pod import ProcessPod
from polypod import (
    Agent,
    AgentIdle,
    AgentNotRunning,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    PodError,
    PodManifest,
    PodSystem,
    RestartsExhausted,
    RunEnd,
    ScriptedClient,
    Swarm,
    ToolStart,
    TooManyRestarts,
    UserMessage,
    call,
    runner_func,
    say,
)

AGAIN = {"policy": "on_failure", "max_restarts": 2}


async def test_an_agent_that_fails_is_started_again_within_its_limits(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", fail_times(2), restart=AGAIN)
        result = await agent.wait()
        assert (result.status, result.text) == ("done", "at last x")
        restarts = [each for each in await all_events(agent) if isinstance(each, AgentRestarted)]
        assert [(each.restarts, str(each.error)) for each in restarts] == [(1, "1 left"), (2, "0 left")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_pod_whose_process_somebody_else_ends_has_failed_and_is_started_again(
    tmp_path: Path, number: int
) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("hello", "process", model="offline", restart={**AGAIN, "max_restarts": 1})
        await agent.wait()
        assert agent.pid == process_of(swarm, agent)
        os.kill(process_of(swarm, agent), number)
        events = await until(agent, AgentStopped, AgentRestarted, AgentStarted)
        [end] = [each for each in events if isinstance(each, AgentStopped)]
        assert "is gone: it ended with" in str(end.error)
        await agent.send("hello")
        assert (await agent.wait()).status == "done"
        os.kill(process_of(swarm, agent), number)
        await until(agent, AgentStopped, AgentStopped)
        assert (await agent.wait()).status == agent.status == "failed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_task_whose_process_somebody_else_ends_goes_on_where_that_is_wished(
    tmp_path: Path, number: int
) -> None:
    manifest = PodManifest.of(
        name="worker",
        model="offline",
        tools={"builtin": ["shell"]},
        approvals={"default": "allow"},
        restart={**AGAIN, "on_restart": "resume"},
    )
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start('use shell command="sleep 1000"', "process", manifest=manifest)
        await until(agent, ToolStart)
        os.kill(process_of(swarm, agent), number)
        await until(agent, AgentStopped, AgentRestarted, RunEnd)
        assert (await agent.wait()).status == "done"


def process_of(swarm: Swarm, agent: Agent) -> int:
    """The number of the process that is an agent's pod."""
    assert agent._keeper.pod is not None
    address = swarm.home.system.get(agent._keeper.pod).address
    assert isinstance(address, ProcessPod)
    assert address._child is not None
    return address._child.pid


async def test_one_failure_too_many_goes_up(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        with swarm.home.system.subscribe(kinds=[RestartsExhausted]) as given_up:
            agent = await swarm.start("x", fail, restart=AGAIN)
            assert (await agent.wait()).status == "failed"
            [end] = given_up.drain()
        assert (end.pod, end.restarts) == (agent.id, 2)
        assert [type(each) for each in await all_events(agent)].count(AgentStarted) == 3


async def test_restarts_of_before_the_clock_was_set_back_count_as_made_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() + 86_400)
        async with swarm_in(tmp_path) as swarm:
            await all_events(await swarm.start("x", fail, restart=AGAIN))
    async with swarm_in(tmp_path) as swarm:
        [agent] = await swarm.agents()
        times = agent._keeper.membership._times
        assert len(times) == 2
        assert max(times) <= asyncio.get_running_loop().time()


async def test_what_a_person_stopped_is_never_started_again(tmp_path: Path) -> None:
    async def fails_when_stopped(agent: Any) -> None:
        try:
            await hang(agent)
        finally:
            raise RuntimeError("no")

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", fails_when_stopped, restart=AGAIN)
        await until(agent, UserMessage)
        await agent.stop()
        assert agent.status == "killed"
        assert not [each for each in await all_events(agent) if isinstance(each, AgentRestarted)]


async def test_an_agent_that_is_started_again_goes_on_in_its_session_with_no_task(tmp_path: Path) -> None:
    tasks: list[str | None] = []

    async def flaky(agent: Any) -> None:
        tasks.append(agent.task)
        if len(tasks) == 1:
            raise RuntimeError("once")
        await agent.receive()

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", runner_func(flaky, session="known"), restart=AGAIN)
        await agent.wait()
        assert (tasks, agent.status) == (["x", None], "idle")


async def test_a_pod_that_a_defect_ended_goes_on_with_its_run_where_that_is_wished(tmp_path: Path) -> None:
    begun = asyncio.Event()
    async with swarm_in(tmp_path) as swarm:
        client = ScriptedClient([call("wait_for_ever", {}), say("went on")])
        manifest = PodManifest.of(restart={**AGAIN, "on_restart": "resume"})
        agent = await swarm.start("x", client=client, manifest=manifest, tools=[wait_for_ever(begun)])
        await begun.wait()
        swarm.home.system.get(f"{agent.id}.pod").ref.actor.end_by_defect(RuntimeError("boom"))
        await until(agent, AgentRestarted)
        result = await agent.wait()
        assert (result.status, result.text) == ("done", "went on")
        said = [each.item.text for each in await until(agent, AgentIdle) if isinstance(each, UserMessage)]
        assert said == ["x"]


async def test_the_limits_of_a_group_stand_in_place_of_its_agents(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        pod = await system.spawn(PodManifest.of(name="beside"), client=ScriptedClient([]))
        agents = [await swarm.start("x", fail_later) for _ in range(2)]
        group = system.supervise([pod, *agents], max_restarts=1)
        with pytest.raises(PodError, match="already in a group"):
            system.supervise([agents[0]])
        for agent in agents:
            await until(agent, AgentIdle)
        await agents[0].send("fail")
        await until(agents[0], AgentRestarted)
        await agents[0].wait()
        await agents[1].send("fail")
        with system.subscribe(kinds=[RestartsExhausted]) as published:
            with pytest.raises(TooManyRestarts, match="reached its limit of restarts"):
                await group.wait()
            [given_up] = published.drain()
        assert (given_up.pod, given_up.stopped) == (agents[1].id, (agents[0].id, pod.name))
        assert [each.status for each in agents] == ["done", "failed"]
        assert not pod.address.is_alive(pod)


async def fail_later(agent: Any) -> None:
    """An agent that fails once it is sent words."""
    await agent.receive()
    raise RuntimeError("asked to")


async def test_a_group_ends_well_once_all_of_it_were_stopped(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        agents = [await swarm.start("x", hang) for _ in range(2)]
        group = system.supervise(agents)
        for agent in agents:
            await agent.stop()
        assert await group.wait() is None
        with pytest.raises(AgentNotRunning):
            system.supervise(agents)


async def test_a_group_that_gives_up_says_so_though_the_end_of_a_member_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.swarm.agents.journal._RETRY_WAIT", 0.0)

    class OneShot:
        """Ends with its task, so that nothing of it is at work once it is resumed."""

        name, one_shot = "echo", True

        def start(self, launch: Any, host: Any, /) -> Any:
            return runner_func(echo).start(launch, host)

    store = Moody()
    async with PodSystem(store=store) as system:
        swarm = Swarm(system, tmp_path / "root")
        last = await swarm.start("x", hang)
        idle, failing = await swarm.start("x", OneShot()), await swarm.start("x", fail_later)
        await idle.wait()
        await idle.resume()
        await until(failing, AgentIdle)
        group = system.supervise([last, idle, failing], max_restarts=0)
        store.words, store.times = b'"AgentStopped"', 100
        with system.subscribe(kinds=[RestartsExhausted]) as published:
            await failing.send("fail")
            with pytest.raises(TooManyRestarts):
                await asyncio.wait_for(group.wait(), 30)
            [event] = published.drain()
        assert event.stopped == (idle.id, last.id)
        store.times = 0
