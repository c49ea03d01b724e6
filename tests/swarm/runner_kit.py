"""What tests of runners share: a host, a launch, and the events of a life."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from actors.runtime.children.launcher import Launcher
from actors.swarm.runners.base import Answer, Launch, Life, Permission
from polypod import AgentStopped, Event

E = TypeVar("E", bound=Event)


class KitHost:
    """Surroundings with a launcher of their own unless they are given one, and a person who answers as asked."""

    def __init__(
        self,
        answer: Callable[[Permission], Awaitable[Answer]] | None = None,
        *,
        launcher: Launcher | None = None,
    ) -> None:
        self.asked: list[Permission] = []
        self._answer = answer
        self._given = launcher
        self._launcher = launcher or Launcher()

    def launcher(self) -> Launcher:
        return self._launcher

    async def ask(self, permission: Permission, /) -> Answer:
        self.asked.append(permission)
        if self._answer is None:
            return Answer(approved=False, note="nobody is there")
        return await self._answer(permission)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._given is None:
            await self._launcher.aclose()


def launch(folder: Path, task: str | None = "do it", **more: Any) -> Launch:
    inbox, log = folder / "inbox", folder / "events.jsonl"
    return Launch(**{"agent_id": "a-1", "cwd": folder, "inbox": inbox, "log": log, "task": task, **more})


class Reader:
    """Reads a life in a task of its own, and waits for events."""

    def __init__(self, life: Life) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._read(life))

    async def _read(self, life: Life) -> None:
        async for event in life:
            self.events.append(event)
            self._changed.set()
        self._changed.set()

    async def until(self, *kinds: type[Event], after: int = 0) -> list[Event]:
        """All events up to the last of these kinds, which come in this order."""
        async with asyncio.timeout(30):
            while True:
                wanted = list(kinds)
                for index, event in enumerate(self.events[after:], after):
                    if isinstance(event, wanted[0]):
                        wanted.pop(0)
                        if not wanted:
                            return self.events[: index + 1]
                assert not self.task.done(), f"ended with {names(self.events)}"
                self._changed.clear()
                await self._changed.wait()

    async def all(self) -> list[Event]:
        """Every event, once the life has ended."""
        async with asyncio.timeout(60):
            await self.task
        assert [isinstance(event, AgentStopped) for event in self.events].count(True) == 1
        return self.events


def left_in(folder: Path) -> list[str]:
    """The commands of processes that are at work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def one(events: list[Event], kind: type[E]) -> E:
    [found] = [event for event in events if isinstance(event, kind)]
    return found
