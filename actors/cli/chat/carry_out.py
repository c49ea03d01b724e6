"""Carries out what a person has typed: a command of the chat, a command of the shell, or words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from actors.cli.chat.interruptible import interruptible
from actors.cli.chat.lines import Asker
from actors.cli.chat.session_commands import clear, compact, fork, resume, undo
from actors.cli.chat.shell_line import run_shell_line
from actors.cli.chat.show_commands import cost, help_, model, tools
from actors.cli.chat.slash import command_named, likely
from actors.cli.chat.talk import Talk
from actors.cli.chat.typed import ShellLine, SlashCommand, Typed
from protocol.errors import PodStopped, PolypodError

Action = Callable[[str, Talk, Asker], Awaitable[None]]

_ACTIONS: dict[str, Action] = {
    "help": help_,
    "cost": cost,
    "tools": tools,
    "model": model,
    "clear": clear,
    "compact": compact,
    "fork": fork,
    "undo": undo,
    "resume": resume,
}


async def carry_out(typed: Typed, talk: Talk, asker: Asker) -> bool:
    """Carry out what was typed; an error is shown, and the chat goes on. Gives whether the person stays."""
    try:
        if isinstance(typed, SlashCommand):
            return await _command(typed, talk, asker)
        if isinstance(typed, ShellLine):
            part = await interruptible(
                run_shell_line(typed.command, talk.current, talk.terminal), talk.terminal
            )
            if part is not None:
                talk.joins.append(part)
        else:
            await talk.say(typed.text, asker)
    except PodStopped:
        raise
    except PolypodError as error:
        talk.show_error(error)
    return True


async def _command(typed: SlashCommand, talk: Talk, asker: Asker) -> bool:
    name = command_named(typed.name)
    if name == "exit":
        return False
    if name is None:
        meant = likely(typed.name)
        guess = f"; did you mean /{meant}?" if meant else "; /help lists them"
        talk.terminal.note(f"no such command: /{typed.name}{guess}", "error")
        talk.terminal.note("  hint: to send a line that begins with /, write // in front", "note")
    elif name == "compact":
        await interruptible(_ACTIONS[name](typed.rest, talk, asker), talk.terminal)
    else:
        await _ACTIONS[name](typed.rest, talk, asker)
    return True
