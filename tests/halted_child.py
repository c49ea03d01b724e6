"""Processes that come to a halt at a moment that is agreed on, to be killed there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from warm import Popen

PATHS = [str(Path(__file__).parents[each]) for each in (0, 1)]


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


class HaltedChild:
    """The process of a ``program`` that works in a store, halted in a scene; ``session`` is its pod's."""

    def __init__(self, program: str, folder: Path, scene: str) -> None:
        self.store, self.file = folder / "pods.db", folder / "words"
        self.file.touch()
        self.process = Popen(
            [sys.executable, program, str(self.store), str(self.file), scene],
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
