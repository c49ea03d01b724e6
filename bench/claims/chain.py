"""Claim: a run on a chain of two tiers with models in memory, beside the same two answers as two turns."""

from __future__ import annotations

import asyncio

from actors.llm.base import LLMClient
from actors.routing.chain.chain import EscalationChain
from actors.system import PodSystem
from bench.claim import Claim, at_most_times
from bench.measure import Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading

CLAIM = Claim("chain", "chain: a run whose first tier is rejected, two models in memory")

_TURNS = "its turns"


async def _reject(*_: str) -> bool:
    return False


async def _runs(count: int, client: LLMClient, each: int) -> list[Reading]:
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=client)
        with Stopwatch() as watch:
            for _ in range(count * each):
                await pod.run("What is the answer?")
    return [watch.each("time of a run", count)]


@CLAIM.case("two tiers", full=2000, quick=500, targets={"time of a run": at_most_times(1.5, _TURNS)})
def two_tiers(runs: int) -> list[Reading]:
    """The first tier is asked, verified and rejected, then the second one is asked."""
    chain = EscalationChain(["small", "claude-large"], local=Parrot(), cloud=Parrot(), verifier=_reject)
    return asyncio.run(_runs(runs, chain, 1))


@CLAIM.case("two tiers", by=_TURNS, kind="floor", full=2000, quick=500)
def two_turns(runs: int) -> list[Reading]:
    """Two runs of a pod, one on each of the models."""
    return asyncio.run(_runs(runs, Parrot(), 2))
