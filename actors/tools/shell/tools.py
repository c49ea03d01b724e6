"""The tools by which a model runs commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.extras import COMMANDS, LAUNCHER
from actors.tools.output import Output
from actors.tools.shell.command import Command, start
from actors.tools.shell.pod_commands import PodCommands
from protocol.errors import ToolError
from protocol.items import TextPart

if TYPE_CHECKING:
    from actors.runtime.children.launcher import Launcher

#: Seconds that a command has, unless the call says otherwise, and the most that a call may say.
TIMEOUT, LONGEST = 120, 86_400
#: The longest that a look at a command in the background may wait, in seconds.
MOST_WAIT = 600
#: Seconds behind TERM in which a command whose call was cancelled may end by itself.
_CANCELLED_WAIT = 0.5
#: Seconds in which a command that is to go on in the background may turn out to end at once.
_AT_ONCE = 0.1

#: What `git clone URL .` says where names are reserved, and what the model learns then.
_NOT_EMPTY = "already exists and is not an empty directory"
_NO_CLONE_HERE = (
    "while a command runs, the top folder of your scope holds reserved names, so it is never "
    "empty: use `git init && git pull URL` there instead, or clone into a subfolder"
)
#: What the system says where something is removed or renamed that is mounted over.
_BUSY = "Device or resource busy"
_HIDDEN_STAYS = (
    "files whose names look like secrets are hidden from commands, and `polypod.toml` is "
    "reserved: neither can be removed or renamed; the user can allow a secret by name in the "
    "scope"
)
Seconds = Annotated[
    float,
    Meta(
        gt=0,
        le=LONGEST,
        description=f"until the command is stopped; default: {TIMEOUT}, or no limit in the background",
    ),
]
Id = Annotated[str, Meta(description="the id that `shell` returned")]


async def shell(
    command: Annotated[str, Meta(min_length=1, description="the command line to run")],
    timeout: Seconds | None = None,  # noqa: ASYNC109 - of the command, and said to the model
    background: Annotated[
        bool, Meta(description="do not wait for the command: return an id for shell_output and shell_stop")
    ] = False,
    *,
    ctx: ToolContext,
) -> Any:
    """Run a command in a shell of its own, and see what it writes and how it ends.

    It begins in the working folder each time: `cd`, variables and functions do not last from one call to the
    next. It has no terminal and an empty standard input, so nothing can be typed into it. What it leaves
    running ends with it: a server, or what is to go on meanwhile, is for `background`, and you get word when
    that has ended. Output that is too long is cut in the middle, and kept whole in a named file.
    """
    commands = _commands(ctx)
    if background:
        commands.check_room()
    seconds = timeout or TIMEOUT
    started = await start(command, ctx, _launcher(ctx), seconds, await commands.confine())
    if background:
        return await _go_on(started, timeout, commands)
    started.end_after(seconds)
    await _in_time_of_call(started, None)
    return await _show_output(started, started.end)


async def _go_on(command: Command, seconds: float | None, commands: PodCommands) -> Output:
    """Have a command go on in the background, unless it has ended at once."""
    if await _in_time_of_call(command, _AT_ONCE):
        return await _show_output(command, command.end)
    if seconds is not None:
        command.end_after(seconds)
    return await _show_output(command, f"continues in the background as {commands.add(command)}")


async def _in_time_of_call(command: Command, seconds: float | None) -> bool:
    """Whether a command has ended in so many seconds; it ends with the call where that is cancelled."""
    try:
        return await command.wait(seconds)
    except asyncio.CancelledError:
        await command.stop(_CANCELLED_WAIT)
        raise


@tool(concurrency="read_only")
async def shell_output(
    id: Id,  # noqa: A002 - the name that models know
    wait: Annotated[
        float, Meta(ge=0, le=MOST_WAIT, description="seconds to wait if there is nothing new")
    ] = 0,
    *,
    ctx: ToolContext,
) -> Any:
    """Read what a command in the background has written since the last look, and whether it has ended."""
    commands = _commands(ctx)
    command = commands.find(id)
    await commands.until(command.wait_for_news(wait), id, command)
    return await _show_output(command, command.end if command.ended else "still running")


@tool
async def shell_stop(id: Id, ctx: ToolContext) -> Any:  # noqa: A002 - the same
    """End a command in the background, with all that it has started, and read what it wrote last."""
    commands = _commands(ctx)
    command = commands.find(id)
    command.ask_to_stop()
    await commands.until(command.wait(), id, command)
    return await _show_output(command, command.end)


async def _show_output(command: Command, words: str) -> Output:
    """What a command has written since the last look, and words behind it."""
    text = await command.recording.look()
    if command.confined and _NOT_EMPTY in text and "git clone" in command.text:
        words = f"{words}; {_NO_CLONE_HERE}"
    elif command.confined and _BUSY in text:
        words = f"{words}; {_HIDDEN_STAYS}"
    line = "" if not text or text.endswith("\n") else "\n"
    return Output((TextPart(f"{text}{line}[{words}]"),), command.recording.kept)


def _launcher(ctx: ToolContext) -> Launcher:
    found: Callable[[], Launcher] | None = ctx.extras.get(LAUNCHER)
    if found is None:
        raise ToolError("this pod cannot start processes")
    return found()


def _commands(ctx: ToolContext) -> PodCommands:
    of: Callable[[str], PodCommands | None] | None = ctx.extras.get(COMMANDS)
    found = None if of is None else of(ctx.pod)
    if found is None:
        raise ToolError("this pod cannot run commands")
    return found


SHELL_TOOLS: tuple[Tool, ...] = (Tool(shell, asks=True), shell_output, shell_stop)
