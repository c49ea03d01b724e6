"""``run_whole``: runs a program to its end with a given input, and returns what it printed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from msgspec import Struct

from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.pipes import ChildInput, ChildOutput
from actors.runtime.cleaning import cleaned
from protocol.errors import ChildNotListening

#: Bytes kept of the beginning of its output, and of the end of both output and errors.
_MOST, _MOST_LAST = 1 << 20, 1 << 14
_LADDER = Ladder(term_wait=1.0)


class Ran(Struct, frozen=True):
    """How a program ended: its exit code (or minus the number of the signal that ended it); beginning and end
    of its output; the end of its errors.
    """

    code: int
    stdout: bytes
    stdout_end: bytes
    stderr: bytes

    @property
    def last_words(self) -> str:
        """The last line of its errors, or of its output if there are none."""
        said = (self.stderr.strip() or self.stdout_end.strip()).decode("utf-8", "replace")
        lines = cleaned(said).strip().splitlines()
        return lines[-1].strip() if lines else ""


async def run_whole(
    launcher: Launcher,
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    stdin: bytes = b"",
    seconds: float,
) -> Ran:
    """Run a program to its end. If it takes longer than ``seconds`` it is ended, with everything that it
    started.

    Raises ChildError if it cannot be started, TimeoutError.
    """
    async with asyncio.timeout(seconds):
        child = await launcher.start(list(argv), cwd=cwd, env=env, stdin="pipe", ladder=_LADDER, wait=seconds)
        try:
            return await _to_its_end(child, stdin)
        finally:
            child.ask_to_stop()


async def _to_its_end(child: Child, data: bytes) -> Ran:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(_give(child.stdin, data))
        output = group.create_task(_both_ends_of(child.stdout))
        errors = group.create_task(_both_ends_of(child.stderr))
        end = await child.wait()
    return Ran(end.code, *output.result(), errors.result()[1])


async def _give(stdin: ChildInput, data: bytes) -> None:
    try:
        await stdin.write(data)
    except ChildNotListening:
        return  # it does not have to read its input
    stdin.close()


async def _both_ends_of(output: ChildOutput) -> tuple[bytes, bytes]:
    """The beginning and the end of what is printed."""
    first, last = bytearray(), b""
    while piece := await output.read():
        first += piece[: _MOST - len(first)]
        last = (last + piece)[-_MOST_LAST:]
    return bytes(first), last
