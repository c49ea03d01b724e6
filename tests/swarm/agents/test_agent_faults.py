"""Agents where the store, or the disk of their files, refuses what is to be kept."""

import asyncio
import resource
from pathlib import Path
from typing import Any

import pytest
from child_kit import in_child
from swarm.agent_kit import Moody, all_events, echo, hang, lines, talk, types, until

from actors.swarm.agents.projections import EVENTS, STDOUT
from polypod import (
    AgentIdle,
    AgentStopRequested,
    AssistantMessage,
    PodSystem,
    RunStart,
    Swarm,
)


async def test_what_the_store_refuses_for_a_moment_is_recorded_once_it_takes_it(tmp_path: Path) -> None:
    store = Moody(b'"AssistantMessage"', 2)
    async with PodSystem(store=store) as system:
        swarm = Swarm(system, tmp_path / "root")
        agent = await swarm.start("this", echo)
        assert (await agent.wait()).text == "did this"
        said = [each for each in await all_events(agent) if isinstance(each, AssistantMessage)]
        assert (len(said), store.refused) == (1, 2)
        assert types(agent, swarm).count("assistant_message") == 1


async def test_an_agent_whose_store_takes_nothing_more_is_ended_and_nothing_unrecorded_is_seen(
    tmp_path: Path,
) -> None:
    store = Moody()
    ended = asyncio.Event()

    async def works(agent: Any) -> None:
        try:
            while True:
                await agent.receive("one more")
        finally:
            ended.set()

    async with PodSystem(store=store) as system:
        swarm = Swarm(system, tmp_path / "root")
        with system.subscribe() as published:
            agent = await swarm.start("this", works)
            await until(agent, AgentIdle)
            store.words, store.times = b"", 10**6
            sending = agent.send("go on")
            result = await agent.wait()
            with pytest.raises(Exception, match=r"never received|ended"):
                await sending
            assert result.status == "failed"
            assert "the disk is full" in result.error
            await ended.wait()
            seen = [each.seq for each in published.drain() if each.durable and each.pod == agent.id]
        assert seen == list(range(2, store.info(agent.session_id).head.seq + 1))
        store.times = 0
        [found] = await swarm.agents()
        assert found.status == "failed"
        await found.remove()


async def test_an_agent_can_be_stopped_though_its_intent_cannot_be_recorded(tmp_path: Path) -> None:
    store = Moody()
    async with PodSystem(store=store) as system:
        agent = await Swarm(system, tmp_path / "root").start("stay", hang)
        await until(agent, RunStart)
        store.words, store.times = b'"AgentStopRequested"', 10**6
        await agent.stop()
        kinds = [type(each) for each in await all_events(agent)]
        assert AgentStopRequested not in kinds
        assert agent.status == "killed"


async def test_an_agent_that_is_a_pod_ends_though_the_store_keeps_nothing_of_that(tmp_path: Path) -> None:
    store = Moody()
    async with PodSystem(store=store) as system:
        agent = await Swarm(system, tmp_path / "root").start("hello", model="offline")
        await agent.wait()
        store.words, store.times = b"", 10**6
        await agent.stop()
        assert agent.status == "failed"


def test_a_full_disk_stops_no_agent_and_its_files_are_made_good(tmp_path: Path) -> None:
    async def play() -> bool:
        async with PodSystem() as system:
            swarm = Swarm(system, tmp_path / "root")
            agent = await swarm.start("x", talk)
            await until(agent, AgentIdle)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
            for number in range(20):
                await agent.send(f"words {number}")
                assert (await agent.wait()).text == f"got words {number}"
            files = [swarm.root / "agents" / agent.id / name for name in (EVENTS, STDOUT)]
            assert all(each.stat().st_size <= 3000 for each in files)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await agent.stop()
            assert types(agent, swarm).count("assistant_message") == 21
            assert [line["type"] for line in lines(agent, swarm, STDOUT)].count("assistant") == 21
            return types(agent, swarm, STDOUT)[-1] == "result"

    assert in_child(lambda: asyncio.run(play())) == 0
