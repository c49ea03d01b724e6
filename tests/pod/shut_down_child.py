"""A process with one pod that is asked to end while it is at a certain point, as servers are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from child_kit import end_with_parent
from warm import Popen

from actors.llm.base import Block, Request, TextChunk
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.errors import PodStopped
from protocol.manifest import PodManifest

PATHS = [str(Path(__file__).parents[each]) for each in (1, 2)]
LONG = "story " * 900

SCENES: dict[str, list[Reply]] = {
    "async": [call("note", {"word": "one"}, id="a"), call("wait", id="b")],
    "plain": [call("note", {"word": "one"}, id="a"), call("block", id="b")],
    "deaf": [call("note", {"word": "one"}, id="a"), call("deaf", id="b")],
    "stream": [call("note", {"word": "one"}, id="a"), say("never told")],
    "compaction": [call("note", {"word": LONG}, id="a")],
}


def manifest(scene: str) -> PodManifest:
    """What the pod of a scene is asked to be."""
    settings = {"compact_request_threshold": 800, "compact_retained_tokens": 100}
    return PodManifest.of(name="child", **(settings if scene == "compaction" else {}))


def tell(line: str) -> None:
    """A line for who started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tools(file: Path) -> list[Tool]:
    """One tool that takes a note, and some that never end by themselves."""

    def wrote(word: str) -> None:
        with file.open("a") as lines:
            lines.write(f"{word[:5]}\n")

    async def note(word: str) -> str:
        wrote(word)
        return "written"

    async def wait() -> None:
        wrote("wait")
        tell("here")
        await asyncio.Event().wait()

    def block() -> None:
        wrote("block")
        tell("here")
        threading.Event().wait()

    async def deaf() -> None:
        wrote("deaf")
        tell("here")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tell("asked to end")
            await asyncio.Event().wait()

    return [tool(note), tool(wait), tool(block), tool(deaf)]


class Halting(ScriptedClient):
    """Plays a script; halts in its last answer, or where the summariser asks."""

    def __init__(self, scene: str) -> None:
        super().__init__(SCENES[scene])
        self._scene = scene

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Play, or halt."""
        if self._scene == "compaction" and "write_summary" in {spec.name for spec in request.tools}:
            tell("here")
            await asyncio.Event().wait()
        async for block in super().stream(request):
            yield block
            if self._scene == "stream" and isinstance(block, TextChunk):
                tell("here")
                await asyncio.Event().wait()


class Child:
    """The process, at its point; ``how`` it lives: ``async`` with, ``with``, or without either (``crash``)."""

    def __init__(self, folder: Path, scene: str, how: str = "async") -> None:
        self.store, self.file = folder / "pods.db", folder / "words"
        self.file.touch()
        self.process = Popen(
            [sys.executable, __file__, str(self.store), str(self.file), scene, how],
            stdin=subprocess.PIPE,  # its end is the child's end
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        )
        self.wait_for("here")

    def wait_for(self, line: str) -> None:
        """Read until the process says so."""
        assert self.process.stdout is not None
        for each in self.process.stdout:
            if each.strip() == line:
                return
        raise AssertionError(f"it never said {line}")

    def signal(self, number: int) -> None:
        """Have it end."""
        os.kill(self.process.pid, number)

    def rest(self) -> list[str]:
        """What it says until its end, which comes soon."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()  # with communicate() its input would end before
        self.process.communicate()
        return lines

    @property
    def ran(self) -> list[str]:
        """What the tools have noted."""
        return self.file.read_text().split()


async def _serve(system: PodSystem, file: str, scene: str, published: list[str]) -> None:
    pod = await system.spawn(manifest(scene), client=Halting(scene), tools=tools(Path(file)))
    runs = [pod.run("go"), pod.run("queued")]
    runs[0].when_done(lambda: published.append(runs[0].get().outcome))

    def note_queued() -> None:
        try:
            runs[1].get()
        except PodStopped:
            published.append("PodStopped")

    runs[1].when_done(note_queued)


async def _in_loop(store: str, file: str, scene: str) -> None:
    """As a server does it: a signal cancels the task that serves, and so leaves ``async with``."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    published: list[str] = []
    try:
        async with PodSystem(f"sqlite:{store}", grace=0.5) as system:
            await _serve(system, file, scene, published)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        tell(" ".join([*published, "left"]))


def _in_thread(store: str, file: str, scene: str) -> None:
    """As a script does it: SIGTERM ends it like SIGINT does, by an exception."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    both = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)  # the tool may be there before this thread waits
    published: list[str] = []
    try:
        with PodSystem(f"sqlite:{store}", grace=0.5) as system:
            pod = system.spawn(manifest(scene), client=Halting(scene), tools=tools(Path(file))).get()
            run = pod.run("go")
            run.when_done(lambda: published.append(run.get().outcome))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
            run.get()
    except (KeyboardInterrupt, SystemExit):
        tell(" ".join([*published, "left"]))


async def _crashing(store: str, file: str, scene: str) -> None:
    """A program that enters its system by hand, and comes to grief."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    system = PodSystem(f"sqlite:{store}")
    await system.__aenter__()
    await _serve(system, file, scene, [])
    await ended.wait()
    raise LookupError("the program's own")


if __name__ == "__main__":
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    *given, way = sys.argv[1:]
    if way == "async":
        asyncio.run(_in_loop(*given))
    elif way == "crash":
        asyncio.run(_crashing(*given))
    else:
        _in_thread(*given)
