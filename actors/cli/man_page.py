"""The manual page, made from the commands themselves: ``python -m actors.cli.man_page`` prints it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from actors.cli.display.help_format import each_command
from actors.version import __version__

_ENVIRONMENT = {
    "POLYPOD_MODEL, POLYPOD_BASE_URL": "stand for --model and --base-url of new pods.",
    "POLYPOD_STORE": "stands for --store.",
    "POLYPOD_MEMORY": "is the folder of lasting memory.",
    "POLYPOD_DEBUG": "shows where an error comes from.",
    "NO_COLOR": "leaves colours out.",
    "OPENAI_API_KEY, ANTHROPIC_API_KEY": "are the keys of these vendors.",
}
_EXITS = {
    "0": "finished",
    "1": "failed, or refused by the scope at its last step",
    "2": "bad input",
    "3": "a limit or budget was reached",
    "4": "refused by the model or its provider",
    "129, 130, 143": "interrupted by a signal (130 also: cancelled)",
}
_FILES = {"~/.local/state/polypod/pods.db": "the sessions, where --store says nothing else"}


def man_page(command: click.Group) -> str:
    """The page of a command and all below it, as troff."""
    name = "polypod"
    lines = [
        f'.TH POLYPOD 1 "" "polypod {__version__}" "User Commands"',
        ".SH NAME",
        f"{name} \\- run LLM agents as pods",
        ".SH SYNOPSIS",
        f".B {name}",
        '.RI [ OPTIONS ] " COMMAND " [ ARGUMENTS ]',
        ".SH DESCRIPTION",
        *_prose(command.help or ""),
        ".SH COMMANDS",
    ]
    for path, each, context in _commands(command, name, None):
        lines += _section(path, each, context)
    for title, rows in (("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _EXITS), ("FILES", _FILES)):
        lines.append(f".SH {title}")
        for term, words in rows.items():
            lines += [".TP", f".B {_escaped(term)}", _escaped(words)]
    return "\n".join(lines) + "\n"


def _commands(
    group: click.Group, path: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(group, parent, info_name=path)
    for name, command in each_command(group, context):
        below = f"{path} {name}"
        yield below, command, click.Context(command, context, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(command, below, context)


def _section(path: str, command: click.Command, context: click.Context) -> list[str]:
    arguments = " ".join(command.collect_usage_pieces(context))
    lines = [f'.SS "{_escaped(path)} {_escaped(arguments)}"', *_prose(command.help or "")]
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            lines += [".TP", f".B {_escaped(record[0])}", _escaped(_one_line(record[1]))]
    return lines


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of a help; those behind a \\b keep their lines."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_escaped, paragraph.splitlines()[1:]), ".fi")
        elif paragraph.strip():
            yield _escaped(_one_line(paragraph))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """Text that troff takes as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return re.sub(r"^([.'])", r"\\&\1", escaped)


if __name__ == "__main__":
    from actors.cli.main import polypod

    click.echo(man_page(polypod), nl=False)
