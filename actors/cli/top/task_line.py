"""The line by which a person starts an agent: flags of ``polypod swarm start``, then the task as it is."""

from __future__ import annotations

import re
from pathlib import Path

import click

from actors.cli.swarm.command import asked_to_start, start
from actors.cli.swarm.wire import Asked

#: One leading flag with its value, which may stand in quotes.
_FLAG = re.compile(r"\s*--([a-z-]+)(?:(?:=|\s+)(\"[^\"]*\"|'[^']*'|\S+))?")
#: Those that say what the agent is to be: the others are about how a command answers.
_VALUED = {"runner", "cwd", "name", "provider", "manifest", "model", "base-url", "allow", "restart"}


def split(line: str) -> tuple[list[str], str]:
    """The leading flags as a command line has them, and the task; ``--`` ends them. Raises UsageError."""
    flags = list[str]()
    while found := _FLAG.match(line):
        name, value = found[1], found[2]
        if name == "keep":
            flags, line = [*flags, "--keep"], line[found.end(1) :]
        elif name in _VALUED and value is not None:
            flags, line = [*flags, f"--{name}", value.strip("\"'")], line[found.end() :]
        else:
            raise click.UsageError(
                f"--{name} cannot be used here; write -- before a task that begins with --"
            )
    line = line.strip()
    return flags, line[2:].strip() if line.startswith("-- ") else line


def asked_in(line: str) -> tuple[Asked, list[str]]:
    """The question for the agent that ``line`` describes, and notes on its model, a server of which may be
    looked for. Raises UsageError, PolypodError.
    """
    flags, task = split(line)
    with start.make_context("start", [*flags, "--", task]) as context:
        wanted = dict(context.params)
    for name in ("task", "waits", "root", "store", "as_json"):
        del wanted[name]
    if wanted["cwd"] is None:
        wanted["cwd"] = Path.cwd()
    return asked_to_start(task, **wanted)
