"""Traces a run through the files: which of our functions are called, in which order."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct

from actors import PodManifest, PodSystem, ScriptedClient, call, say, tool
from bench.root import ROOT

_OURS = tuple(f"{ROOT / package}/" for package in ("actors", "protocol", "polypod"))


class Walk(Struct, frozen=True):
    """The calls made while something was done, each as ``file:function``."""

    what: str
    steps: list[str]

    @property
    def changes(self) -> int:
        """How often a call was in another file than the call before it."""
        files = [step.partition(":")[0] for step in self.steps]
        return sum(here != there for here, there in itertools.pairwise(files))


@tool(concurrency="read_only")
async def look() -> str:
    """Look."""
    return "seen"


async def walk_all() -> list[Walk]:
    """Trace a run, a run with a tool call, and a compaction, each after an untraced one."""
    replies = [say("a") for _ in range(4)]
    with_tool = [reply for n in range(2) for reply in (call("look", id=f"c{n}"), say("b"))]
    folded = [reply for _ in range(2) for reply in (call("write_summary", {"text": "s"}), say("done"))]
    async with PodSystem() as system:
        plain = await system.spawn(PodManifest.of(), client=ScriptedClient(replies[:2]))
        tooled = await system.spawn(PodManifest.of(), client=ScriptedClient(with_tool), tools=[look])
        folding = await system.spawn(PodManifest.of(), client=ScriptedClient([*replies[:2], *folded]))
        await folding.run("hi")
        await folding.run("hi")
        return [
            await _traced('run("hi")', lambda: plain.run("hi")),
            await _traced("run with a tool", lambda: tooled.run("hi")),
            await _traced("compact()", lambda: folding.compact(retained_tokens=0)),
        ]


async def _traced(what: str, do: Callable[[], Awaitable[Any]]) -> Walk:
    await do()
    steps: list[str] = []
    suspended: set[FrameType] = set()  # the frames themselves, so that their ids are not reused

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS) or code.co_name.startswith("<"):
            return
        if event == "call" and frame not in suspended:  # a coroutine that continues is not a new call
            steps.append(f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_qualname}")
        if code.co_flags & _SUSPENDS:
            suspended.add(frame)

    sys.setprofile(note)
    try:
        await do()
    finally:
        sys.setprofile(None)
    return Walk(what, steps)


#: CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR of ``inspect``.
_SUSPENDS = 0x20 | 0x80 | 0x200


def walks() -> list[Walk]:
    """Trace in an event loop of its own, on this thread alone."""
    return asyncio.run(walk_all())
