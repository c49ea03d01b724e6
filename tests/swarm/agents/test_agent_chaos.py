"""Hundreds of agents started, sent to, cancelled, stopped, resumed, removed and orphaned by a seed: nothing is left
over, and nothing that was recorded is lost or doubled.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from effort import times
from process_kit import children_of, descriptors
from swarm.agent_kit import echo, fail, hang, run_and_kill, swarm_in, talk

from actors.sessions.chain import verified
from actors.swarm.agents.projections import EVENTS, STDOUT, read_lines
from polypod import Agent, AgentError, PodSystem, PolypodError, ScriptedClient, Swarm, runner_func, say

AGENTS = times(120)
ENDED = {"done", "failed", "killed"}


class Talkative(ScriptedClient):
    """Has more to say than anybody asks for."""

    def check(self) -> None:
        return


def start(swarm: Swarm, dice: random.Random) -> Any:
    """An agent of a kind by chance."""
    kind = dice.choice(["pod", "echo", "fail", "hang", "talk", "busy"])
    if kind == "pod":
        client = Talkative([say(f"answer {number}") for number in range(50)])
        return swarm.start("chaos", client=client, name=kind)
    runner = {
        "echo": echo,
        "fail": fail,
        "hang": hang,
        "talk": runner_func(talk, session="s"),
        "busy": runner_func(talk, joins=False, session="s"),
    }[kind]
    restart = {"policy": "on_failure", "max_restarts": dice.randrange(3)}
    return swarm.start("chaos", runner, name=kind, restart=restart)


async def trouble(agent: Agent, dice: random.Random) -> None:
    """Some things that people do to agents, at once and in any order."""
    asked = []
    for _ in range(dice.randrange(6)):
        what = dice.choice(["send", "send", "cancel", "stop", "resume", "remove", "yield"])
        if what == "yield":
            await asyncio.sleep(0)
        else:
            asked.append(agent.send("more") if what == "send" else getattr(agent, what)())
    for each in asked:
        with contextlib.suppress(PolypodError):
            await each


def check(swarm_root: Path, system: PodSystem, agents: list[Agent]) -> None:
    """Each session is sound, each file says what its session says, once."""
    store = system.store
    for agent in agents:
        entries = verified(agent.session_id, store.read(agent.session_id))
        folder = swarm_root / "agents" / agent.id
        own = Counter(
            line["seq"]
            for line in read_lines(folder / EVENTS)
            if line["type"] in {"agent_stopped", "agent_started"}
        )
        bodies = [(each.seq, each.body) for each in entries]
        recorded = Counter(
            seq for seq, body in bodies if b'"AgentStopped"' in body or b'"type":"AgentStarted"' in body
        )
        assert own == recorded, agent.id
        stops = sum(b'"type":"AgentStopped"' in body for _, body in bodies)
        results = [line for line in read_lines(folder / STDOUT) if line["type"] == "result"]
        assert len(results) == stops, agent.id


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(times(2)))
async def test_agents_in_chaos_leave_nothing_over_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    before, children = descriptors(), children_of(os.getpid())
    async with swarm_in(tmp_path) as swarm:
        agents = [await start(swarm, dice) for _ in range(AGENTS)]
        await asyncio.gather(*(trouble(each, random.Random(f"{seed} {each.id}")) for each in agents))
        await swarm.aclose()
        left = [each for each in agents if not each._keeper.removed]
        assert {each.status for each in left} <= ENDED
        assert not any(each._keeper._tasks for each in agents)
        check(swarm.root, swarm.home.system, left)
        assert swarm.home.roster.reserved == set()
    async with swarm_in(tmp_path) as swarm:
        found = await swarm.agents()
        assert {each.id for each in found} == {each.id for each in left}
        check(swarm.root, swarm.home.system, found)
        for each in found:
            await each.remove()
        assert swarm.home.store.sessions() == []
        assert list((swarm.root / "agents").iterdir()) == []
    assert descriptors() <= before
    assert children_of(os.getpid()) <= children


@pytest.mark.slow
def test_agents_whose_supervisor_is_killed_in_chaos_have_each_one_end(tmp_path: Path) -> None:
    for seed in range(times(3)):

        async def play(swarm: Swarm, ready: Callable[[], None], seed: int = seed) -> None:
            dice = random.Random(seed)
            agents = [await start(swarm, dice) for _ in range(AGENTS // 4)]
            troubled = asyncio.gather(*(trouble(each, random.Random(f"{seed} {each.id}")) for each in agents))
            await asyncio.sleep(0)
            ready()
            await troubled

        run_and_kill(tmp_path, play)

    async def after() -> None:
        async with swarm_in(tmp_path) as swarm:
            agents = await swarm.agents()
            assert agents
            assert {each.status for each in agents} <= ENDED
            check(swarm.root, swarm.home.system, agents)
            for each in agents:
                with contextlib.suppress(AgentError):
                    await each.remove()
            assert list((swarm.root / "agents").iterdir()) == []

    asyncio.run(after())
