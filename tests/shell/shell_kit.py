"""Pods that run commands, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from process_kit import MARK

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.events import ToolProgress, ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest

ALLOW = [{"tool": "shell*", "policy": "allow"}]


def manifest(**sections: Any) -> PodManifest:
    """A pod that may run any command."""
    return PodManifest.of(**{"tools": {"builtin": ["shell"]}, "approval": ALLOW, **sections})


def run(command: str, **options: Any) -> Any:
    """A model's call."""
    return call("shell", {"command": command, **options})


def marking(mark: str, command: str) -> str:
    """The command, with all its processes to be found by ``mark``."""
    return f"export {MARK}={mark}\n{command}"


async def results_of(
    *calls: Any, system: PodSystem | None = None, **sections: Any
) -> tuple[list[ToolResult], list[ToolProgress]]:
    """What came of calls that one pod makes, one after the other, and what was told meanwhile."""
    async with system or PodSystem() as entered:
        client = ScriptedClient([*calls, say("done")])
        pod = await entered.spawn(manifest(**sections), client=client)
        with pod.subscribe([ToolResulted, ToolProgress]) as events:
            await pod.run("go")
            told = events.drain()
    results = [each.item for each in told if isinstance(each, ToolResulted)]
    return results, [each for each in told if isinstance(each, ToolProgress)]


async def texts_of(*calls: Any, **options: Any) -> list[str]:
    """The texts of these results."""
    return [each.text for each in (await results_of(*calls, **options))[0]]


@asynccontextmanager
async def at_work(
    command: str, *, goes_on: bool = False, **options: Any
) -> AsyncIterator[tuple[PodSystem, Pod, Any]]:
    """A system, its pod, and the run in which that runs a command which has written its first words; with
    ``goes_on`` the run comes to its end.
    """
    async with PodSystem(**options) as system:
        client = ScriptedClient([run(command), *([say("done")] if goes_on else [])])
        pod = await system.spawn(manifest(), client=client)
        with pod.subscribe(ToolProgress) as events:
            running = pod.run("go")
            await anext(events)
        yield system, pod, running


def outputs(folder: Path) -> list[Path]:
    """The files in which outputs were kept."""
    return sorted(folder.iterdir()) if folder.exists() else []
