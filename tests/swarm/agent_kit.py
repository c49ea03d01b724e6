"""What tests of agents share: a swarm in a folder, agents that do as they are asked, and what is left of them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from child_kit import fork

from actors.swarm.agents.projections import read_lines
from polypod import (
    Agent,
    AgentActivity,
    Event,
    Head,
    MemoryStore,
    PodSystem,
    StoredEntry,
    StoreError,
    Swarm,
)

#: What another process does with a swarm: it calls the function once it has done so, and then waits to be killed.
Program = Callable[[Swarm, Callable[[], Any]], Awaitable[None]]


class Moody(MemoryStore):
    """Refuses what contains some words, so many times."""

    def __init__(self, words: bytes = b"", times: int = 0) -> None:
        super().__init__()
        self.words, self.times = words, times
        self.refused = 0
        self.has_refused = asyncio.Event()

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        if self.times and any(self.words in each.body for each in batch):
            self.times -= 1
            self.refused += 1
            self.has_refused.set()
            raise StoreError("the disk is full")
        super().append(session_id, after, batch)


@contextlib.asynccontextmanager
async def swarm_in(folder: Path, **more: Any) -> AsyncIterator[Swarm]:
    """A swarm on ``folder``, whose store is a file there."""
    async with PodSystem(store=f"sqlite:{folder / 'pods.db'}", **more) as system:
        yield Swarm(system, folder / "root")


def fork_swarm(folder: Path, program: Program) -> int:
    """Run a program with a swarm in another process, and give its number once the program says so."""
    reading, writing = os.pipe()

    async def play() -> None:
        async with swarm_in(folder) as swarm:
            await program(swarm, lambda: os.write(writing, b"."))
            await asyncio.Event().wait()

    if (pid := fork()) == 0:
        try:
            asyncio.run(play())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as ready:
        if ready.read(1):
            return pid
    kill(pid)
    raise AssertionError("the program ended first")


def kill(pid: int) -> None:
    """Kill a child of this process, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run_and_kill(folder: Path, program: Program) -> None:
    """Run a program with a swarm in another process, and kill that once the program says so."""
    kill(fork_swarm(folder, program))


async def until(agent: Agent, *kinds: type[Event]) -> list[Event]:
    """The agent's events up to the last of these kinds, which come in this order."""
    wanted, seen = list(kinds), list[Event]()
    async with asyncio.timeout(30), agent.events() as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, wanted[0]):
                wanted.pop(0)
                if not wanted:
                    return seen
    raise AssertionError(f"ended with {[type(each).__name__ for each in seen]}")


async def all_events(agent: Agent) -> list[Event]:
    """All events of an agent that ends."""
    async with asyncio.timeout(30):
        return [event async for event in agent.events()]


def lines(agent: Agent, swarm: Swarm, name: str) -> list[dict[str, Any]]:
    """The lines of one of an agent's files."""
    return list(read_lines(swarm.root / "agents" / agent.id / name))


def types(agent: Agent, swarm: Swarm, name: str = "events.jsonl") -> list[str]:
    return [line["type"] for line in lines(agent, swarm, name)]


async def echo(agent: Any) -> str:
    """An agent that says its task, and ends."""
    return f"did {agent.task}"


async def talk(agent: Any) -> None:
    """An agent that answers each words, and waits for the next, for ever."""
    words = agent.task
    while True:
        words = await agent.receive(None if words is None else f"got {words}")


async def hang(agent: Any) -> None:
    """An agent that works until it is ended."""
    await agent.emit(AgentActivity, activity="hanging")
    await asyncio.Event().wait()


def wait_for_ever(begun: asyncio.Event) -> Callable[[], Awaitable[str]]:
    """A tool of that name, which says that it has begun, and never ends."""

    async def wait_for_ever() -> str:
        """Never end."""
        begun.set()
        await asyncio.Event().wait()
        return ""

    return wait_for_ever


async def fail(agent: Any) -> str:
    """An agent that fails."""
    raise RuntimeError(f"cannot {agent.task}")


def fail_times(times: int) -> Callable[[Any], Any]:
    """An agent that fails so often, and then ends well."""
    left = [times]

    async def flaky(agent: Any) -> str:
        if left[0]:
            left[0] -= 1
            raise RuntimeError(f"{left[0]} left")
        return f"at last {agent.task}"

    return flaky
