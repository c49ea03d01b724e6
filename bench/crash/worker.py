"""The process under test: a store, and pods that work in it until they are killed or the faults are over."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from actors.pod.handle import Pod
from actors.pod.session.restore import tip
from actors.runtime.events.subscription import Subscription
from actors.sessions.answers import wait
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from bench.crash import faults
from bench.crash.driver import Driver, of_the_store
from bench.crash.fault import Fault
from bench.crash.file_faults import Forked, LogDeleted, Swapped
from bench.crash.player import Player, Toolkit
from bench.crash.reports import Broke, Refused, Spell, Teller
from protocol.events import DURABLE_EVENTS
from protocol.manifest import PodManifest

#: Pods that work at the same time.
PODS = 6
#: The longest pause of a model between two blocks, and of a tool, in seconds.
PACE = 0.003


class Work(Struct, frozen=True):
    """What one process under test does: in ``folder``, with which random seed, and under which fault."""

    store: str
    folder: Path
    mark: str
    seed: str
    fault: str | None = None
    seconds: float = 0.0


def manifest(number: int) -> PodManifest:
    """A pod whose history is compacted and read often."""
    return PodManifest.of(
        name=f"pod-{number}",
        compact_threshold=1500,
        compact_request_threshold=2200,
        compact_retained_tokens=400,
        extract_threshold=500,
    )


@contextmanager
def toolkit(work: Work, chance: random.Random, teller: Teller, pace: float) -> Iterator[Toolkit]:
    """The tools, and the file that they append to."""
    descriptor = os.open(work.folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield Toolkit(descriptor, chance, teller, pace)
    finally:
        os.close(descriptor)


def system(work: Work, store: SessionStore) -> PodSystem:
    """A system over the store; everything else that it writes is beside that."""
    return PodSystem(store, outputs=work.folder / "outputs", memory=work.folder / "memory")


async def work_on(work: Work, teller: Teller) -> None:
    """Work until killed, or under a fault until that is over."""
    chance = random.Random(work.seed)
    fault = faults.of(work.fault, work.folder, chance)
    with toolkit(work, chance, teller, PACE) as tools:
        store = faults.open_store(work.store, work.folder, fault)
        if isinstance(fault, Forked):
            fault.store = store
        try:
            async with system(work, store) as opened:
                stage = _Stage(work, opened, tools, chance, teller)
                events = opened.subscribe(kinds=DURABLE_EVENTS)
                listening = asyncio.ensure_future(_listen(events, teller))
                with teller.doing("start"):
                    drivers = await stage.drivers()
                await stage.play(drivers, fault)
            await listening  # up to the last event of the last pod
        finally:
            store.close()


async def _listen(events: Subscription, teller: Teller) -> None:
    async for event in events:
        if event.durable:
            teller.report_event(event)


class _Stage:
    def __init__(
        self, work: Work, opened: PodSystem, tools: Toolkit, chance: random.Random, teller: Teller
    ) -> None:
        self._work = work
        self._system = opened
        self._tools = tools.tools()
        self._chance = chance
        self._teller = teller
        self._spawned = 0

    async def drivers(self) -> list[Driver]:
        """Drivers of pods for some of the existing sessions, and for new ones."""
        tips = tips_of(self._system.store)
        self._chance.shuffle(tips)
        resumed = [await self._spawn(session_id) for session_id in tips[: PODS - 1]]
        pods = resumed + [await self._spawn() for _ in range(PODS - len(resumed))]
        return [self._driver(pod) for pod in pods]

    def _driver(self, pod: Pod) -> Driver:
        chance = random.Random(f"{self._work.seed}/{pod.name}")
        fault = self._work.fault
        return Driver(
            pod,
            chance,
            self._teller,
            faults=fault is not None,
            swapped=fault == Swapped.name,
            unnoticed=fault in {Swapped.name, LogDeleted.name},
        )

    async def _spawn(self, resume: str | None = None) -> Pod:
        self._spawned += 1
        chance = random.Random(f"{self._work.seed}/model/{self._spawned}")
        wanted = manifest(self._spawned)
        player = Player(wanted.name, f"{self._work.mark}-{self._spawned}", chance, self._teller, PACE)
        return await self._system.spawn(wanted, client=player, tools=self._tools, resume=resume)

    async def play(self, drivers: list[Driver], fault: Fault | None) -> None:
        """Have all pods work; under a fault for its time, and then once more each."""
        over = asyncio.Event()
        working = asyncio.gather(*(driver.live(over) for driver in drivers))
        if fault is not None:
            late = await self._haunt(fault)
            over.set()
            await working
            await asyncio.gather(*(driver.prove() for driver in [*drivers, *late]))
        await working

    async def _haunt(self, fault: Fault) -> list[Driver]:
        """Turn the fault on and off; pods that are spawned meanwhile live, or are refused."""
        loop, late = asyncio.get_running_loop(), list[Driver]()
        end = loop.time() + self._work.seconds
        while loop.time() < end:
            await asyncio.sleep(self._chance.uniform(0.002, 0.02))
            with fault:
                late += await self._spawn_late()
                await asyncio.sleep(self._chance.uniform(0.002, 0.03))
            self._teller.tell(Spell(fault.name, fault.hits))
        return late

    async def _spawn_late(self) -> list[Driver]:
        if self._chance.random() < 0.7:
            return []
        try:
            return [self._driver(await self._spawn())]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            typed = of_the_store(error)
            self._teller.tell(
                Refused("spawn", str(error)) if typed else Broke(f"spawn: {type(error).__name__}: {error}")
            )
            return []


def tips_of(store: SessionStore) -> list[str]:
    """The sessions that are not compacted into another, in order of creation."""
    infos = sorted(wait(store.sessions()), key=lambda info: info.created_at)
    return [info.session_id for info in infos if wait(tip(store, info.session_id)) == info.session_id]
