"""Runs turns on a user's own pods, several at once, and measures where each turn spends its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct

from actors.cli.bench.timing_client import Asked, TimingClient
from actors.llm.base import LLMClient
from actors.pod.client_factory import ClientFactory
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.system import PodSystem
from protocol.errors import Failure, RunFailed
from protocol.events import RunOutcome, ToolResulted
from protocol.manifest import PodManifest

PROMPT = "Count from one to twenty, in words."


class Plan(Struct, frozen=True):
    """What to do: ``turns`` runs of ``prompt`` in all, by ``pods`` pods at once.

    Each pod has ``warmup`` turns before any is counted. A pod's turns follow one another in its session,
    whose history grows; with ``fresh`` each has a pod and a session of its own. ``store`` is where
    sessions are kept, ``timeout`` how many seconds all of it may take, warm-up included.
    """

    turns: int = 20
    pods: int = 1
    prompt: str = PROMPT
    warmup: int = 1
    fresh: bool = False
    store: str = "memory:"
    timeout: float | None = None


class Turn(Struct, frozen=True):
    """One run: how long it took, its requests, the seconds of its tools, and how it ended."""

    seconds: float
    asked: list[Asked]
    tools: float
    outcome: RunOutcome
    failure: Failure | None = None


class Bench(Struct):
    """What has been measured up to now: turns in order of their ends, and the time of all together."""

    plan: Plan
    turns: list[Turn] = []
    seconds: float = 0.0
    cpu: float = 0.0
    interrupted: bool = False
    timed_out: bool = False

    @property
    def cut_short(self) -> bool:
        """Whether there is less than was wanted."""
        return self.interrupted or self.timed_out


class _Driver:
    """One pod at a time, its clocked client, and what its tools report."""

    def __init__(
        self, system: PodSystem, manifest: PodManifest, tools: tuple[Any, ...], inner: LLMClient, plan: Plan
    ) -> None:
        self._system = system
        self._manifest = manifest
        self._tools = tools
        self._client = TimingClient(inner)
        self._plan = plan
        self._pod: Pod | None = None
        self._results: Subscription | None = None

    async def warm(self) -> None:
        """Run turns that are not counted. Raises what a run raises."""
        for _ in range(self._plan.warmup):
            turn = await self._turn(raising=True)
            assert turn.failure is None

    async def drive(self, numbers: Iterator[int], keep: Callable[[Turn], None]) -> None:
        """Do turns as long as there are numbers."""
        for _ in numbers:
            keep(await self._turn(raising=False))

    async def _turn(self, *, raising: bool) -> Turn:
        pod = await self._prepare_pod()
        self._client.take()
        self._tool_seconds()
        outcome: RunOutcome = "failed"
        failure: Failure | None = None
        began = time.perf_counter()
        try:
            outcome = (await pod.run(self._plan.prompt)).outcome
        except RunFailed as error:
            if raising:
                raise
            failure = error.failure
        took = time.perf_counter() - began
        return Turn(took, self._client.take(), self._tool_seconds(), outcome, failure)

    async def _prepare_pod(self) -> Pod:
        if self._pod is not None and not self._plan.fresh:
            return self._pod
        if self._pod is not None:
            await self._pod.stop()
        if self._results is not None:
            self._results.close()
        self._pod = await self._system.spawn(self._manifest, client=self._client, tools=self._tools)
        if self._tools or self._manifest.tools.builtin:
            self._results = self._pod.subscribe(ToolResulted)
        return self._pod

    def _tool_seconds(self) -> float:
        """What the tools took since the last time; calls that ran together count one by one."""
        if self._results is None:
            return 0.0
        results = [event for event in self._results.drain() if isinstance(event, ToolResulted)]
        return sum(event.seconds or 0.0 for event in results)


class _Ends:
    """Ends a benchmark early: when a person interrupts it, or its time is up."""

    def __init__(self, interrupted: asyncio.Event, timeout: float | None) -> None:
        self._interrupted = interrupted
        self._deadline = None if timeout is None else time.monotonic() + timeout

    async def until(self, bench: Bench, work: Any) -> None:
        """Wait for ``work``, or cancel it early and set why on ``bench``."""
        doing = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self._interrupted.wait())
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        await asyncio.wait({doing, waiting}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if doing.done():
            await doing
            return
        bench.interrupted = self._interrupted.is_set()
        bench.timed_out = not bench.interrupted
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


async def run_benchmark(
    manifest: PodManifest,
    *,
    tools: Iterable[Any] = (),
    client: LLMClient | None = None,
    plan: Plan | None = None,
    on_turn: Callable[[Bench], None] | None = None,
    interrupted: asyncio.Event | None = None,
) -> Bench:
    """Run the turns of ``plan`` on pods of ``manifest``, and return what was measured.

    ``client`` answers instead of the manifest's model. ``on_turn`` is called after each turn; once
    ``interrupted`` is set, or the plan's time is over, what was measured by then is returned. Raises
    RunFailed where a warm-up turn fails, and what ``spawn`` raises; a turn that fails later is counted
    and stops nothing.
    """
    bench = Bench(plan or Plan())
    ends = _Ends(interrupted or asyncio.Event(), bench.plan.timeout)
    clients = ClientFactory()
    inner = clients.client(manifest.model) if client is None else client
    try:
        async with PodSystem(store=bench.plan.store) as system:
            drivers = [
                _Driver(system, manifest, tuple(tools), inner, bench.plan)
                for _ in range(min(bench.plan.pods, bench.plan.turns))
            ]
            await ends.until(bench, _warm_up(drivers))
            if not bench.cut_short:
                await _measure(bench, drivers, on_turn, ends)
    finally:
        await clients.aclose()
    return bench


async def _warm_up(drivers: list[_Driver]) -> None:
    """Run the turns that are not counted, the first pod alone: where nothing works, one error says so."""
    await drivers[0].warm()
    await asyncio.gather(*(driver.warm() for driver in drivers[1:]))


async def _measure(
    bench: Bench,
    drivers: list[_Driver],
    on_turn: Callable[[Bench], None] | None,
    ends: _Ends,
) -> None:
    def keep(turn: Turn) -> None:
        bench.turns.append(turn)
        if on_turn is not None:
            on_turn(bench)

    numbers = iter(range(bench.plan.turns))
    wall, cpu = time.perf_counter(), time.process_time()
    driving = asyncio.gather(*(driver.drive(numbers, keep) for driver in drivers))
    try:
        await ends.until(bench, driving)
    finally:
        bench.seconds, bench.cpu = time.perf_counter() - wall, time.process_time() - cpu
