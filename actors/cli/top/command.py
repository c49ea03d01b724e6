"""The command ``polypod top``; what it shows is imported only once it is run."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from actors.cli import options
from actors.cli.errors import Exit
from actors.cli.swarm.client import Client
from actors.cli.swarm.command import root_option
from actors.runtime.lasting_loop import run_on_own_loop
from protocol.errors import AgentError


@click.command
@options.store
@root_option
def top(root: Path, store: str | None) -> None:
    """Watch the agents of a swarm and the pods of its store on one screen.

    Keys: n new, p send, k stop, R resume, r remove, a answer what waits for approval, enter shows what an
    agent has done, esc goes back, q quits. The agents continue after it has ended.
    """
    if find_spec("textual") is None:
        raise AgentError("polypod top needs textual", hint="pip install 'polypod[top]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("polypod top needs a terminal; polypod swarm ls prints the agents anywhere")
    from actors.cli.top.app import Top  # noqa: PLC0415 - takes 0.3 s, which only who looks at it pays

    screen = Top(Client(root, store))
    run_on_own_loop(screen.run_at_terminal())  # which waits for no thread that still looks for pods or models
    if screen.return_code:
        raise Exit(screen.return_code)
