"""Pods of a system fail, are stopped, asked and cancelled at moments by chance: everybody is answered."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from effort import times

from actors.llm.base import Block, Request
from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.runtime.future import AsyncFuture
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import PolypodError
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

ASKS = ("run", "run", "run", "cancel", "pause", "resume", "describe", "compact", "fork", "notify", "stop")
REST = ("fail", "fail", "fail", "turn", "turn", "turn", "wait")


@tool
async def act() -> str:
    """Act."""
    await asyncio.sleep(0)
    return "done"


class Model:
    """Answers at once or in a while, and calls a tool now and then."""

    model = "chance"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def stream(self, _: Request) -> AsyncIterator[Block]:
        for _ in range(self._chance.randrange(30)):
            await asyncio.sleep(0)
        reply = call("act", {}) if self._chance.random() < 0.2 else say("ok")
        async for block in reply.stream():
            yield block


def wanted(name: str, chance: random.Random) -> PodManifest:
    restart = {
        "policy": chance.choice(["on_failure", "never"]),
        "max_restarts": chance.randrange(4),
        "window_seconds": chance.choice([0.01, 60.0]),
        "on_restart": chance.choice(["pause", "resume"]),
    }
    return PodManifest.of(name=name, max_repeats=0, restart=restart)


def ask(pod: Pod, what: str) -> AsyncFuture[object]:
    return getattr(pod, what)(*(["hi"] if what in {"run", "notify"} else []))


async def finish(pod: Pod) -> None:
    """Resume what is paused, until nothing is at work."""
    with contextlib.suppress(PolypodError):
        while (state := (await pod.describe()).state) is not PodState.IDLE:
            if state is PodState.PAUSED:
                with contextlib.suppress(PolypodError):
                    await pod.resume()
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(times(60)))
async def test_whoever_asks_pods_that_fail_at_any_moment_is_answered(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    asked: list[AsyncFuture[object]] = []
    async with PodSystem(chance.choice(["memory:", f"sqlite:{tmp_path}/pods.db"])) as system:
        names = [f"p{number}" for number in range(chance.randrange(1, 4))]
        pods = [await system.spawn(wanted(each, chance), client=Model(chance), tools=[act]) for each in names]
        if chance.random() < 0.5:
            system.supervise(pods, max_restarts=chance.randrange(4), window_seconds=chance.choice([0.01, 60]))
        for _ in range(chance.randrange(5, 40)):
            pod, what = chance.choice(pods), chance.choice(ASKS + REST)
            if what == "fail":
                if not pod.ref.actor.ended:
                    pod.ref.actor.end_by_defect(RuntimeError("boom"))
            elif what == "wait":
                await asyncio.sleep(0.002)
            elif what == "turn":
                await asyncio.sleep(0)
            elif what != "stop" or chance.random() < 0.2:
                asked.append(ask(pod, what))
        async with asyncio.timeout(20):
            for pod in pods:
                await finish(pod)
            for future in asked:
                with contextlib.suppress(PolypodError):
                    await future
    assert asyncio.all_tasks() == {asyncio.current_task()}
