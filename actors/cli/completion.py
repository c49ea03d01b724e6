"""``polypod completion``: what has a shell complete commands, options, sessions and models."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from actors.cli.sessions.store_reader import LAST, Reading
from actors.sessions.head import short_id
from protocol.errors import PolypodError

#: The variable by which a shell asks, and the program's name.
VARIABLE, PROGRAM = "_POLYPOD_COMPLETE", "polypod"
SHELLS = ("bash", "zsh", "fish")
#: Sessions that are offered.
_OFFERED = 30

F = TypeVar("F", bound=Callable[..., object])


def complete_sessions(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """The last changed sessions, by the ids that a person types, with their tasks."""
    found = [CompletionItem(LAST, help="the most recently changed one")] if LAST.startswith(typed) else []
    with suppress(PolypodError, OSError), Reading(_option(context, "store")) as reading:
        for info in reading.sessions(limit=_OFFERED):
            task = ""
            with suppress(PolypodError):
                task = reading.task(info.session_id)
            short = short_id(info.session_id)
            name = short if short.startswith(typed) else info.session_id
            if name.startswith(typed):
                found.append(CompletionItem(name, help=f"{info.pod}: {task}" if task else info.pod))
    return found


def complete_pods(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """The names of pods that have sessions."""
    names: dict[str, None] = {}
    with suppress(PolypodError, OSError), Reading(_option(context, "store")) as reading:
        names = dict.fromkeys(info.pod for info in reading.sessions(limit=_OFFERED * 10))
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def _option(context: click.Context, name: str) -> str | None:
    value = context.params.get(name)
    return value if isinstance(value, str) else None


@click.command(short_help="Print the completion script for your shell.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the script with which SHELL (by default yours) completes commands, options, sessions and models.

    Save it where your shell looks for such files: docs/terminal.md names the places.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name)
    if name not in SHELLS or kind is None:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}")
    root = context.find_root().command
    click.echo(kind(root, {}, PROGRAM, VARIABLE).source())


def answer_shell(command: click.Command) -> int | None:
    """Answer a shell that asks what may come next; the exit code, None where none asks."""
    from click.shell_completion import shell_complete  # noqa: PLC0415 - where a shell asks

    instruction = os.environ.get(VARIABLE)
    return None if not instruction else shell_complete(command, {}, PROGRAM, VARIABLE, instruction)
