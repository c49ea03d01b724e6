"""Claim: what the runtime adds to a turn, with the model in memory, and sessions and events on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from actors.llm.base import TextChunk
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading

CLAIM = Claim("turn", "turn: a run with one answer of a model in memory, session and events on")

_TARGET = {"time of a turn": at_most(35e-6)}
_SUBSCRIBED = {"time of a turn": at_most(42e-6)}
_PODS = 1000


def _readings(watch: Stopwatch, turns: int) -> list[Reading]:
    return [watch.each("time of a turn", turns)]


async def in_sequence(turns: int, *, subscribed: bool = False) -> list[Reading]:
    """One pod, one run after another; a subscriber reads all events after every hundred."""
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=Parrot())
        events = system.subscribe(pod=pod.name) if subscribed else None
        with Stopwatch() as watch:
            for number in range(turns):
                await pod.run("What is the answer?")
                if events is not None and number % 100 == 0:
                    events.drain()
    return _readings(watch, turns)


async def at_once(each: int, *, pods: int = _PODS, subscribed: bool = False) -> list[Reading]:
    """Many pods at once, each with ``each`` runs one after another."""

    async def runs(pod: Pod) -> None:
        for _ in range(each):
            await pod.run("What is the answer?")

    async with PodSystem() as system:
        client, wanted = Parrot(), manifest()
        spawned = [await system.spawn(wanted, client=client) for _ in range(pods)]
        async with read_along(system) if subscribed else nullcontext():
            with Stopwatch() as watch:
                await asyncio.gather(*map(runs, spawned))
    return _readings(watch, pods * each)


@asynccontextmanager
async def read_along(system: PodSystem) -> AsyncIterator[None]:
    """Have a subscriber read all events of all pods, as soon as they come."""
    events = system.subscribe()
    reader = asyncio.create_task(_read(events))
    yield
    events.close()
    await reader


async def _read(events: Subscription) -> None:
    async for _ in events:
        events.drain()


@CLAIM.case("one pod", full=3000, quick=1000, targets=_TARGET)
def one_pod(turns: int) -> list[Reading]:
    """A pod by itself, without subscribers."""
    return asyncio.run(in_sequence(turns))


@CLAIM.case("one pod, a subscriber", full=3000, quick=1000, targets=_SUBSCRIBED)
def one_pod_subscribed(turns: int) -> list[Reading]:
    """A pod by itself, with a subscriber to all its events."""
    return asyncio.run(in_sequence(turns, subscribed=True))


@CLAIM.case("1000 pods at once", full=10, quick=3, tiny=1, targets=_TARGET)
def thousand_pods(each: int) -> list[Reading]:
    """A thousand pods at once."""
    return asyncio.run(at_once(each))


@CLAIM.case("1000 pods at once, a subscriber", full=10, quick=3, tiny=1, targets=_SUBSCRIBED)
def thousand_pods_subscribed(each: int) -> list[Reading]:
    """A thousand pods at once, with a subscriber to all events of all."""
    return asyncio.run(at_once(each, subscribed=True))


async def _by_hand(turns: int) -> list[Reading]:
    with Stopwatch() as watch:
        await _ask_by_hand(turns)
    return _readings(watch, turns)


async def _ask_by_hand(turns: int) -> None:
    client, history = Parrot(), []
    for _ in range(turns):
        history.append({"role": "user", "content": "What is the answer?"})
        text = ""
        async for block in client.stream(None):  # type: ignore[arg-type]
            if type(block) is TextChunk:
                text += block.text
        history.append({"role": "assistant", "content": text})


async def _by_tasks(each: int) -> list[Reading]:
    with Stopwatch() as watch:
        await asyncio.gather(*(_ask_by_hand(each) for _ in range(_PODS)))
    return _readings(watch, _PODS * each)


@CLAIM.case("one pod", by="loop by hand", kind="floor", full=30_000, quick=10_000)
def by_hand(turns: int) -> list[Reading]:
    """As many answers read in a loop and appended to a list: no session, no events, no mailbox."""
    return asyncio.run(_by_hand(turns))


@CLAIM.case("1000 pods at once", by="tasks by hand", kind="floor", full=50, quick=10, tiny=1)
def by_tasks(each: int) -> list[Reading]:
    """As many answers read in a thousand asyncio tasks."""
    return asyncio.run(_by_tasks(each))
