"""What tests of agents share: a swarm in a folder, agents that do as they are asked, and what is left of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from actors.swarm.agents.projections import read_lines
from polypod import Agent, AgentActivity, Event, PodSystem, Swarm


@contextlib.asynccontextmanager
async def swarm_in(folder: Path, **more: Any) -> AsyncIterator[Swarm]:
    """A swarm on ``folder``, whose store is a file there."""
    async with PodSystem(store=f"sqlite:{folder / 'pods.db'}", **more) as system:
        yield Swarm(system, folder / "root")


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
