"""The tool by which a model runs a command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from actors.tools.base import Tool, ToolContext
from actors.tools.extras import LAUNCHER
from actors.tools.output import Output
from actors.tools.shell.command import Command, start
from protocol.errors import ToolError
from protocol.items import TextPart

if TYPE_CHECKING:
    from actors.runtime.children.launcher import Launcher

#: Seconds that a command has, unless the call says otherwise, and the most that it may say.
TIMEOUT, LONGEST = 120, 3600
#: Seconds behind TERM in which a command whose call was cancelled may end by itself.
_CANCELLED_WAIT = 0.5


async def shell(
    command: Annotated[str, Meta(min_length=1, description="what a shell is to run")],
    timeout: Annotated[  # noqa: ASYNC109 - of the command, and said to the model
        float, Meta(gt=0, le=LONGEST, description="seconds after which it is ended")
    ] = TIMEOUT,
    *,
    ctx: ToolContext,
) -> Any:
    """Run a command in a shell of its own, and see what it writes and how it ends.

    It begins in the working folder each time: `cd`, variables and functions do not last from one call to the
    next. It has no terminal and an empty standard input, so nothing can be typed into it. What it leaves
    running ends with it. Output that is too long is cut in the middle, and kept whole in a named file.
    """
    started = await start(command, ctx, _launcher(ctx), timeout)
    try:
        in_time = await started.wait(timeout)
        if not in_time:
            await started.stop()
    except asyncio.CancelledError:
        await started.stop(_CANCELLED_WAIT)
        raise
    why = "" if in_time else f"not done after {timeout:g} s, so it was stopped: "
    return await shown(started, why + started.end)


async def shown(command: Command, words: str) -> Output:
    """What a command has written since the last look, and words behind it."""
    text = await command.recording.look()
    line = "" if not text or text.endswith("\n") else "\n"
    return Output((TextPart(f"{text}{line}[{words}]"),), command.recording.kept)


def _launcher(ctx: ToolContext) -> Launcher:
    found: Callable[[], Launcher] | None = ctx.extras.get(LAUNCHER)
    if found is None:
        raise ToolError("this pod can start no processes")
    return found()


SHELL_TOOLS: tuple[Tool, ...] = (Tool(shell, asks=True),)
