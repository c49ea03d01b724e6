"""A process with a pod on a chain that comes to a halt at a moment that is agreed on, to be killed there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from child_kit import end_with_parent
from halted_child import HaltedChild, halt, tell

from actors.llm.scripted import ScriptedClient, call, say
from actors.routing.chain.chain import EscalationChain
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.manifest import PodManifest
from protocol.routing import Verdict

SMALL, LARGE = "ollama/phi4", "claude-opus-5"
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


class Child(HaltedChild):
    """The process, halted in the ``tool`` loop of its second tier, or in the ``verifier`` of that."""

    def __init__(self, folder: Path, scene: str) -> None:
        super().__init__(__file__, folder, scene)


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
        tell((await pod.describe()).session_id)
        await pod.run("go")


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(_main(*sys.argv[1:]))
