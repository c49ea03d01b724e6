"""A process with one pod that comes to a halt at a moment that is agreed on, to be killed there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from child_kit import end_with_parent
from halted_child import HaltedChild, halt, tell

from actors.llm.base import Block, Request, TextChunk
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.manifest import PodManifest

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


class Child(HaltedChild):
    """The process, halted; ``session`` is the pod's first one."""

    def __init__(self, folder: Path, scene: str = "tool") -> None:
        super().__init__(__file__, folder, scene)


async def _main(store: str, file: str, scene: str) -> None:
    async with PodSystem(f"sqlite:{store}") as system:
        pod = await system.spawn(manifest(scene), client=Halting(scene), tools=tools(Path(file)))
        tell((await pod.describe()).session_id)
        await pod.run("go")
        await asyncio.Event().wait()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(_main(*sys.argv[1:]))
