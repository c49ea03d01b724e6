"""What tests of pools share: runners that do as they are asked, and a pool in a folder."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from polypod import Execution, JobContext, PodSystem, Pool

#: A program that does what its task says: ``die``, ``fail``, ``wait`` for a cancel, or anything else.
LISTENING = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "swarm/programs/listening.py")]


@contextlib.asynccontextmanager
async def pool_in(
    folder: Path, runners: Mapping[str, Any], *args: Any, url: str = "sqlite:{}/pods.db", **more: Any
) -> AsyncIterator[Pool]:
    async with asyncio.timeout(60), PodSystem(store=url.format(folder)) as system:
        yield Pool(system, runners, *args, cwd=folder, **{"worktrees": folder / "worktrees", **more})


class Bounded:
    """Functions that are runners, and how many jobs each had at most at once."""

    def __init__(self) -> None:
        self.active: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: list[str] = []

    def runner(self, name: str) -> Any:
        async def do(job: JobContext) -> str:
            self.active[name] += 1
            self.most[name] = max(self.most[name], self.active[name])
            try:
                await asyncio.sleep(0)
                self.done.append(job.name)
                return f"{name} did {job.instructions}"
            finally:
                self.active[name] -= 1

        return do


class Held:
    """A runner whose jobs wait until they are let go."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[JobContext] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.cancelled: list[str] = []

    async def __call__(self, job: JobContext) -> str:
        self.begun.put_nowait(job)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(job.name)
            raise
        return f"did {job.name}"


def statuses(executions: list[Execution]) -> Counter[str]:
    return Counter(each.status for each in executions)
