"""A process with a pod on a chain that comes to a halt at a moment that is agreed on, to be killed there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from child_kit import end_with_parent
from warm import Popen

from actors.llm.scripted import ScriptedClient, call, say
from actors.routing.chain import EscalationChain
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.manifest import PodManifest
from protocol.routing import Verdict

SMALL, LARGE = "ollama/phi4", "claude-opus-5"
PATHS = [str(Path(__file__).parents[each]) for each in (1, 2)]
PLAIN = PodManifest.of(name="child")


def append_to(file: Path, *, hang: bool) -> Tool:
    """A tool that writes a word down, and hangs behind the word ``hang``."""

    async def append(word: str) -> str:
        with file.open("a") as lines:
            lines.write(f"{word}\n")
        if word == "hang" and hang:
            await halt()
        return "written"

    return tool(append)


async def halt() -> None:
    """Let all others come as far as they can, say so, and wait to be killed."""
    for _ in range(20):
        await asyncio.sleep(0)
    print("here", flush=True)  # noqa: T201 - to who started us
    await asyncio.Event().wait()


class Child:
    """The process, halted in the ``tool`` loop of its second tier, or in the ``verifier`` of that."""

    def __init__(self, folder: Path, scene: str) -> None:
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

    def kill(self) -> None:
        """Kill -9, and wait for its end."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()


async def _main(store: str, file: str, scene: str) -> None:
    asked = 0

    async def verify(*_: Any) -> Verdict:
        nonlocal asked
        asked += 1
        if asked == 2:
            await halt()
        return Verdict(accept=False, feedback="count again")

    entries = [SMALL, LARGE] if scene == "tool" else ["a", "b"]
    local = ScriptedClient(
        [say("12", input_tokens=10, output_tokens=1), say("13", input_tokens=20, output_tokens=2)]
    )
    cloud = ScriptedClient(
        [
            call("append", {"word": "one"}, input_tokens=30, output_tokens=3),
            call("append", {"word": "hang"}, input_tokens=40, output_tokens=4),
        ]
    )
    chain = EscalationChain(entries, local=local, cloud=cloud, verifier=verify)
    async with PodSystem(f"sqlite:{store}") as system:
        pod = await system.spawn(PLAIN, client=chain, tools=[append_to(Path(file), hang=True)])
        print((await pod.describe()).session_id, flush=True)  # noqa: T201
        await pod.run("go")


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(_main(*sys.argv[1:]))
