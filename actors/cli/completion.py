"""``polypod completion``: what has a shell complete commands, options, sessions and models."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class, shell_complete

#: The variable by which a shell asks, and the program's name.
VARIABLE, PROGRAM = "_POLYPOD_COMPLETE", "polypod"
SHELLS = ("bash", "zsh", "fish")


@click.command
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
    instruction = os.environ.get(VARIABLE)
    return None if not instruction else shell_complete(command, {}, PROGRAM, VARIABLE, instruction)
