"""Claim: what a turn with a long history costs more than the first one, and how long it holds up the loop."""

from __future__ import annotations

import asyncio
from io import BytesIO

import aiohttp

from actors.llm.base import Request
from actors.llm.openai.dialect import Dialect
from actors.llm.openai.request import body_of
from actors.pod.handle import Pod
from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.histories import items
from bench.measure import Holds, Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from bench.server import port

CLAIM = Claim("history", "a turn on top of 10,000 items, beside the first turns of a pod")

_ITEMS = 10_000
#: So high that the policy checks every request and never compacts.
_HIGH = 100_000_000


async def _filled(system: PodSystem, count: int, **model: str) -> Pod:
    client = None if model else Parrot()
    wanted = manifest(compact_threshold=_HIGH, compact_request_threshold=_HIGH, **model)
    pod = await system.spawn(wanted, client=client)
    for item in items(count):
        await pod.push_item(item)
    return pod


async def _runs(pod: Pod, count: int) -> None:
    for _ in range(count):
        await pod.run("And now?")


async def _compared(turns: int, **model: str) -> list[Reading]:
    async with PodSystem() as system:
        short, long = await _filled(system, 0, **model), await _filled(system, _ITEMS, **model)
        with Holds() as holds:
            await _runs(long, 2)
        await _runs(short, 2)
        first, on_top = Stopwatch(), Stopwatch()
        with first:
            await _runs(short, turns)
        with on_top:
            await _runs(long, turns)
        with holds:
            await _runs(long, min(turns, 50))
    return [
        on_top.each("time of a turn", turns),
        first.each("time of one of the first turns", turns),
        Reading("times the first", "count", on_top.cpu / first.cpu),
        holds.reading(),
    ]


@CLAIM.case(
    "model in memory",
    full=1000,
    quick=200,
    targets={"times the first": at_most(2), "longest hold of the loop": at_most(0.010)},
)
def in_memory(turns: int) -> list[Reading]:
    """The runtime alone: view, policy, log."""
    return asyncio.run(_compared(turns))


@CLAIM.case("over HTTP", full=20, quick=5, rounds=1, targets={"longest hold of the loop": at_most(0.010)})
def over_http(turns: int) -> list[Reading]:
    """The whole history goes over the wire with each request, some 4 MB: that much is due to the API."""
    return asyncio.run(
        _compared(turns, model="llama_cpp/bench", base_url=f"http://127.0.0.1:{port()}/burst/v1")
    )


@CLAIM.case("over HTTP", by="aiohttp, the same bytes", kind="floor", full=20, quick=5, rounds=1)
def by_aiohttp(turns: int) -> list[Reading]:
    """A prepared body is posted as it is; the answer is read and not decoded."""
    return asyncio.run(_posted(turns))


async def _posted(turns: int) -> list[Reading]:
    body = body_of(Request(list(items(_ITEMS))), "bench", Dialect())
    async with aiohttp.ClientSession() as session:
        with Stopwatch() as watch:
            for _ in range(turns):
                url = f"http://127.0.0.1:{port()}/burst/v1/chat/completions"
                async with session.post(url, data=BytesIO(body)) as response:
                    await response.read()
    return [watch.each("time of a turn", turns)]


@CLAIM.case("model in memory", by="loop by hand", kind="floor", full=1000, quick=200)
def by_hand(turns: int) -> list[Reading]:
    """A list that is handed to the model as it is, and appended to."""
    return asyncio.run(_by_hand(turns))


async def _by_hand(turns: int) -> list[Reading]:
    client, history = Parrot(), list(items(_ITEMS))
    with Stopwatch() as watch:
        for _ in range(turns):
            async for _block in client.stream(Request(history)):
                pass
            history.append(history[0])
    return [watch.each("time of a turn", turns)]
