"""Sub-agents in chaos: whatever is paused, resumed, stopped and left, each has its end, and gives back what it had."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from delegation_kit import lead, spawn
from effort import times

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, call, say
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.system import PodSystem
from protocol.errors import PolypodError
from protocol.events import ChildEnded, ChildStarted, Event
from protocol.lifecycle import PodState

NAMES = "abc"
LIMIT, ANSWER = 60_000, 20


class Chance:
    """A model that spawns, stops, reads and answers by chance, and does no more than so much."""

    model = "chance"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._left = 60

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        self._left -= 1
        async for block in self._reply({tool.name for tool in request.tools}).stream():
            yield block

    def _reply(self, tools: set[str]) -> Reply:
        chance, dice = self._chance, self._chance.random()
        if self._left > 0 and "spawn_pod" in tools and dice < 0.6:
            name = chance.choice(NAMES)
            if dice < 0.45:
                budget = {"budget": {"tokens": chance.choice([3_000, 20_000])}} if dice < 0.3 else {}
                return spawn(name, **budget)
            return call(chance.choice(["stop_pod", "read_pod_output"]), {"name": name})
        return say("ok", input_tokens=chance.randrange(500), output_tokens=5)


async def disturb(chance: random.Random, system: PodSystem, pod: Pod) -> list[Any]:
    """Have the pods do this and that: what is to resolve by the time that all have come to their end."""
    asked: list[Any] = []
    for _ in range(chance.randrange(4, 20)):
        dice, one = chance.random(), chance.choice(system.pods())
        if dice < 0.4:
            asked.append(pod.run("go"))
        elif dice < 0.5:
            asked.append(one.pause())
        elif dice < 0.6:
            asked.append(one.resume())
        elif dice < 0.65 and one.name != pod.name:
            asked.append(one.stop())
        elif dice < 0.7:
            asked.append(one.cancel())
        else:
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
    return asked


async def to_the_end(system: PodSystem, pod: Pod, asked: Iterable[Any]) -> None:
    """Have all go on until none has anything left to do."""
    resumed: list[Any] = []
    while True:
        for each in system.pods():
            try:
                if (await each.describe()).state is PodState.PAUSED:
                    resumed.append(each.resume())
            except PolypodError:
                continue
        ended = await pod.wait_for_sub_agents(timeout=0.2)
        if ended and (await pod.describe()).state is PodState.IDLE:
            break
    await asyncio.gather(*asked, *resumed, return_exceptions=True)


def check_ends(events: list[Event]) -> None:
    """Each sub-agent that has begun has ended, once."""
    living: set[str] = set()
    for event in events:
        if isinstance(event, ChildStarted):
            living.add(event.child_session)
        elif isinstance(event, ChildEnded):
            assert event.child_session in living
            living.remove(event.child_session)
    assert not living


@pytest.mark.parametrize("seed", range(times(12)))
async def test_every_sub_agent_has_its_end_and_gives_back_its_budget(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    manifest = lead(
        tokens=LIMIT,
        max_tokens=ANSWER,
        max_repeats=0,
        max_steps=12,
        delegation={"max_depth": 3, "max_children": 3},
    )
    session_id: str | None = None
    for life in reversed(range(chance.randrange(1, 4))):
        async with asyncio.timeout(100), PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
            pod = await system.spawn(manifest, client=Chance(chance), resume=session_id)
            session_id = (await pod.describe()).session_id
            asked = await disturb(chance, system, pod)
            if life and chance.random() < 0.5:
                continue  # it is left in the middle
            await to_the_end(system, pod, asked)
            assert [each.name for each in system.pods()] == ["lead"]
            budget = actor_of(pod).delegation.budget  # type: ignore[union-attr]
            assert budget is not None
            assert budget.use().reserved_tokens == 0
            assert budget.use().tokens <= LIMIT + 500 + ANSWER
            with pod.subscribe((ChildStarted, ChildEnded), since=0, children=True) as past:
                check_ends([event for event in past.drain() if event.pod == "lead"])
