"""Pods that run commands, for tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from process_kit import MARK

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.events import ToolProgress, ToolResulted, UserMessage
from protocol.items import ToolResult
from protocol.manifest import PodManifest

ALLOW = [{"tool": "shell*", "policy": "allow"}]


def manifest(**sections: Any) -> PodManifest:
    """A pod that may run any command, with nothing that confines it."""
    open_to_all = {"approval": ALLOW, "sandbox": {"mode": "off"}}
    return PodManifest.of(**{"tools": {"builtin": ["shell"]}, **open_to_all, **sections})


def run(command: str, **options: Any) -> Any:
    """A model's call."""
    return call("shell", {"command": command, **options})


def marking(mark: str, command: str) -> str:
    """The command, with all its processes to be found by ``mark``."""
    return f"export {MARK}={mark}\n{command}"


class Model:
    """Makes its replies one after the other; one that is a function gets the id that the last result named."""

    def __init__(self, *steps: Any) -> None:
        self._steps = iter(steps)

    def stream(self, request: Any) -> AsyncIterator[Any]:
        """The next reply."""
        step = next(self._steps)
        if callable(step):
            named = re.findall(r"in the background as (\S+)\]", repr(list(request.items)))
            step = step(named[-1])
        played: AsyncIterator[Any] = step.stream()
        return played


def begin(command: str, **options: Any) -> Any:
    """A model's call that has a command go on in the background."""
    return run(command, background=True, **options)


def look(wait: float = 0) -> Any:
    """A model's look at what it has in the background."""
    return lambda name: call("shell_output", {"id": name, "wait": wait})


def stop(name: str) -> Any:
    """A model's end of what it has in the background."""
    return call("shell_stop", {"id": name})


def texts(events: Iterable[Any]) -> list[str]:
    """What the model was shown, with ids left out: results of its tools, and words."""
    found = (
        each.item.text if isinstance(each, ToolResulted) else "".join(part.text for part in each.item.content)
        for each in events
        if isinstance(each, ToolResulted | UserMessage)
    )
    return [re.sub(r"\b[0-9a-f]{4}-(\d+)\b", r"ID-\1", text) for text in found]


async def results_of(
    *calls: Any, system: PodSystem | None = None, **sections: Any
) -> tuple[list[ToolResult], list[ToolProgress]]:
    """What came of calls that one pod makes, one after the other, and what was reported meanwhile."""
    async with system or PodSystem() as entered:
        client = ScriptedClient([*calls, say("done")])
        pod = await entered.spawn(manifest(**sections), client=client)
        with pod.subscribe([ToolResulted, ToolProgress]) as events:
            await pod.run("go")
            shown = events.drain()
    results = [each.item for each in shown if isinstance(each, ToolResulted)]
    return results, [each for each in shown if isinstance(each, ToolProgress)]


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
