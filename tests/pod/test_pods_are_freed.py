"""A pod that has stopped is freed at once: nothing of it waits for a pass of the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from actors import PodManifest, PodSystem, ScriptedClient, call, say, tool
from actors.pod.handle import Pod
from actors.pod.local import actor_of


@pytest.fixture(autouse=True)
def _no_passes() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@tool(concurrency="read_only")
async def look() -> str:
    """Look."""
    return "seen"


async def _spawned(system: PodSystem) -> Pod:
    replies = [call("look", id="a"), say("done")]
    return await system.spawn(PodManifest.of(), client=ScriptedClient(replies, leftovers=True), tools=[look])


async def test_a_pod_that_was_stopped_is_freed_without_a_pass_of_the_collector():
    async with PodSystem() as system:
        for runs in (0, 1):
            pod = await _spawned(system)
            for _ in range(runs):
                assert (await pod.run("look")).text == "done"
            freed = asyncio.Event()
            weakref.finalize(actor_of(pod), freed.set)
            assert await pod.stop()
            del pod
            await asyncio.wait_for(freed.wait(), 10)


async def test_the_pods_of_a_system_that_was_left_are_freed_without_a_pass_of_the_collector():
    freed: list[int] = []
    async with PodSystem() as system:
        pods = [await _spawned(system) for _ in range(3)]
        await pods[0].run("look")
        for number, pod in enumerate(pods):
            weakref.finalize(actor_of(pod), freed.append, number)
        del pod, pods
    for _ in range(100):
        if len(freed) == 3:
            break
        await asyncio.sleep(0)
    assert sorted(freed) == [0, 1, 2]
