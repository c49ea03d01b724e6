"""A process with one pod that comes to a halt at a moment that is agreed on, to be killed there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from child_kit import end_with_parent
from warm import Popen

from actors.llm.base import Block, Request, TextChunk
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.manifest import PodManifest

PATHS = [str(Path(__file__).parents[each]) for each in (1, 2)]
LONG = "story " * 900

#: What the pod's model answers in each scene.
SCENES: dict[str, list[Reply]] = {
    "tool": [
        call("append", {"word": "one"}, id="a"),
        call("append", {"word": "two"}, id="b") + call("append", {"word": "hang"}, id="c"),
    ],
    "batch": [
        call("look", {"word": "one"}, id="a")
        + call("look", {"word": "hang"}, id="b")
        + call("look", {"word": "three"}, id="c")
        + call("append", {"word": "four"}, id="d")
    ],
    "stream": [call("append", {"word": "one"}, id="a"), say("never told")],
    "compaction": [call("look", {"word": LONG}, id="a")],
    "memory": [say(LONG)],
}
#: The tool whose presence in a request says who asks, where that scene halts.
_HALTS = {"compaction": "write_summary", "memory": "write_extracted"}


def manifest(scene: str) -> PodManifest:
    """What the pod of a scene is asked to be."""
    settings: dict[str, dict[str, Any]] = {
        "compaction": {"compact_request_threshold": 800, "compact_retained_tokens": 100},
        "memory": {"extract_threshold": 100},
    }
    return PodManifest.of(name="child", **settings.get(scene, {}))


def tools(file: Path, *, hang: bool = True) -> list[Tool]:
    """Two tools that append a line to a file, and hang if they are asked to."""

    async def append(word: str) -> str:
        with file.open("a") as lines:
            lines.write(f"{word[:5]}\n")
        if word == "hang" and hang:
            await halt()
        return "written"

    return [tool(append), tool(concurrency="read_only", name="look")(append)]


def tell(line: str) -> None:
    """A line for who started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def halt() -> None:
    """Let all others come as far as they can, say so, and wait to be killed."""
    for _ in range(20):
        await asyncio.sleep(0)
    tell("here")
    await asyncio.Event().wait()


class Halting(ScriptedClient):
    """Plays a script; halts in its last answer, or where the summariser or the memory job asks."""

    def __init__(self, scene: str) -> None:
        super().__init__(SCENES[scene])
        self._scene = scene

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Play, or halt."""
        if _HALTS.get(self._scene) in {spec.name for spec in request.tools}:
            await halt()
        async for block in super().stream(request):
            yield block
            if self._scene == "stream" and isinstance(block, TextChunk):
                await halt()


class Child:
    """The process, halted; ``session`` is the pod's first one."""

    def __init__(self, folder: Path, scene: str = "tool") -> None:
        self.store, self.file = folder / "pods.db", folder / "words"
        self.file.touch()
        self.process = Popen(
            [sys.executable, __file__, str(self.store), str(self.file), scene],
            stdin=subprocess.PIPE,  # its end is the child's end
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        )
        assert self.process.stdout is not None
        self.session = self.process.stdout.readline().strip()
        assert self.process.stdout.readline().strip() == "here"

    @property
    def ran(self) -> list[str]:
        """What the tools have appended."""
        return self.file.read_text().split()

    def kill(self) -> None:
        """Kill -9, and wait for its end."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()


async def _main(store: str, file: str, scene: str) -> None:
    async with PodSystem(f"sqlite:{store}") as system:
        pod = await system.spawn(manifest(scene), client=Halting(scene), tools=tools(Path(file)))
        tell((await pod.describe()).session_id)
        await pod.run("go")
        await asyncio.Event().wait()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(_main(*sys.argv[1:]))
