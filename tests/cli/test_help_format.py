"""The help of every command fits a narrow terminal, and says all it has to say there."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from actors.cli.display.help_format import HelpContext, each_command
from actors.cli.main import polypod


def every_command(
    command: click.Command = polypod, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The name and the help of a command, and of those below it."""
    context = HelpContext(command, parent, info_name=command.name, **command.context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for _, each in each_command(command, context):
            yield from every_command(each, context)


@pytest.mark.parametrize("columns", [36, 40, 60, 100])
def test_no_line_of_any_help_is_wider_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = [
        (name, line) for name, text in every_command() for line in text.splitlines() if len(line) > columns
    ]
    assert not wide


def test_the_help_lists_every_command_and_imports_none():
    program = "import sys; from actors.cli.main import polypod; polypod(['--help'], standalone_mode=False); "
    program += "sys.exit('actors.cli.run' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in polypod.list_commands(click.Context(polypod)))


def test_a_narrow_terminal_cuts_no_words_off(monkeypatch: pytest.MonkeyPatch):
    reported: list[list[list[str]]] = []
    for columns in ("40", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        reported.append([text.split() for _, text in every_command()])
    assert reported[0] == reported[1]


def test_the_commands_at_a_terminal_are_those_with_the_help_that_fits():
    commands = dict(each_command(polypod, click.Context(polypod)))
    assert len(commands) > 20
    assert {command.context_class for command in commands.values()} == {HelpContext}
