"""``polypod config``: says what is set and what comes of it, and has a person trust a project's file."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import click

from actors.cli import options
from actors.cli.config.checks import checks
from actors.cli.display.checks import check_lines
from actors.cli.display.format import clean
from actors.cli.display.help_format import Commands
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import Exit
from actors.cli.peers import why_no_person
from actors.cli.streams import private_stdin
from actors.config.files import ConfigFile, find_files
from actors.config.trust import distrust, trust
from protocol.errors import NotTrusted


@click.group(cls=Commands)
def config() -> None:
    """Show and trust what polypod.toml sets: here, in the folders above, and in your configuration folder."""


@config.command(short_help="Show which files were found, and what they set.")
@options.as_json
def check(as_json: bool) -> None:
    """Show which polypod.toml files apply here, what they set, and which servers answer.

    Nothing is started, and no model is called. Exit 1 if a setting cannot work.
    """
    failed = asyncio.run(_check(as_json=as_json))
    if failed:
        raise Exit(1)


async def _check(*, as_json: bool) -> bool:
    failed = False
    async for each in checks():
        failed = failed or each.status == "failed"
        if as_json:
            put_json(each)
        else:
            click.echo(check_lines(each))
    return failed


@config.command("trust", short_help="Review what a project's file starts, and trust it.")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--sha256", metavar="DIGEST", help="Trust it without a question, if this is its content.")
@click.option("--forget", is_flag=True, help="Stop trusting it.")
def trust_command(folder: Path | None, sha256: str | None, forget: bool) -> None:
    """Show what the polypod.toml that applies in FOLDER (by default here) makes polypod start and send, and
    ask whether to trust it. A change of the file needs a new answer.
    """
    if (why := why_no_person()) is not None:
        raise NotTrusted(why)
    terminal = Terminal()
    file = _of_project(folder)
    if forget:
        done = "is no longer trusted" if distrust(file.path) else "was not trusted"
        terminal.note(f"{file.path} {done}")
        return
    _show(file, terminal)
    if not file.needs:
        return
    if sha256 is not None:
        if sha256.lower() != file.digest:
            raise NotTrusted(f"{file.path} has another content: its SHA-256 is {file.digest}")
    elif not _ask_person():
        raise NotTrusted(f"{file.path} is not trusted: what needs a review is not used")
    trust(file.path, file.digest)
    undo = f"polypod config trust --forget {shlex.quote(str(file.path.parent))}"
    terminal.note(f"trusted until it changes; undo with `{undo}`")


def _of_project(folder: Path | None) -> ConfigFile:
    """The file that may need a look. Raises UsageError."""
    found = next((each for each in find_files(folder) if not each.is_own), None)
    if found is None:
        raise click.UsageError(f"no project has a polypod.toml in {folder or Path.cwd()} or above")
    return found


def _show(file: ConfigFile, terminal: Terminal) -> None:
    if not file.needs:
        terminal.note(f"{file.path} starts and sends nothing that needs a review")
        return
    terminal.note(f"{file.path}, SHA-256 {file.digest}:")
    for need in file.needs:
        terminal.note(f"  {clean(need)}")


def _ask_person() -> bool:
    """Whether the person at the terminal trusts it. Raises NotTrusted where there is none."""
    stdin = private_stdin()
    if not stdin.isatty():
        raise NotTrusted(
            "only a person may trust a file, at a terminal",
            hint="run this at a terminal, or name the reviewed content: --sha256 DIGEST",
        )
    click.echo("Trust it? [y/N] ", nl=False, err=True)
    return stdin.readline().strip().lower() in {"y", "yes"}
