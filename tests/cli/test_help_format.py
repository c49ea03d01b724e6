"""The help of every command fits a narrow terminal, and says all it has to say there."""

from collections.abc import Iterator

import click
import pytest

from actors.cli.display.help_format import HelpContext
from actors.cli.main import polypod


def every_command(
    command: click.Command = polypod, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The name and the help of a command, and of those below it."""
    context = HelpContext(command, parent, info_name=command.name, **command.context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from every_command(each, context)


@pytest.mark.parametrize("columns", [36, 40, 60, 100])
def test_no_line_of_any_help_is_wider_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = [
        (name, line) for name, text in every_command() for line in text.splitlines() if len(line) > columns
    ]
    assert not wide


def test_a_narrow_terminal_cuts_no_words_off(monkeypatch: pytest.MonkeyPatch):
    reported: list[list[list[str]]] = []
    for columns in ("40", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        reported.append([text.split() for _, text in every_command()])
    assert reported[0] == reported[1]


def test_the_commands_at_a_terminal_are_those_with_the_help_that_fits():
    contexts = {name: command.context_class for name, command in polypod.commands.items()}
    assert set(contexts.values()) == {HelpContext}
