"""Groups of commands whose help fits the terminal, also a narrow one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from protocol.closest import closest

#: Columns of the widest help, and those that it takes at least.
WIDEST, _NARROWEST = 100, 20


class _HelpFormatter(click.HelpFormatter):
    """Click's own takes 50 columns at least, and up to 32 of them for the names of options."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        columns = min(shutil.get_terminal_size().columns, max_width or WIDEST)
        super().__init__(indent_increment, max(columns - 2, _NARROWEST) if width is None else width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and what they mean side by side; a name that is longer has a line of its own."""
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


class HelpContext(click.Context):
    """The context of a command whose help fits the terminal."""

    formatter_class = _HelpFormatter


class Commands(click.Group):
    """Commands are listed as they are added, what one needs first comes first, none of their lines is cut."""

    context_class = HelpContext

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.context_class = HelpContext
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not ctx.resilient_parsing and not word.startswith("-") and self.get_command(ctx, word) is None:
            raise self.no_such_command(ctx, word)
        return super().resolve_command(ctx, args)

    def no_such_command(self, ctx: click.Context, word: str) -> click.UsageError:
        """The refusal of a word that is not a command, with the one that may be meant."""
        near = closest(word, self.list_commands(ctx))
        return click.UsageError(
            f"No such command {word!r}" + (f"; did you mean {near!r}?" if near else ""), ctx
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click's own cuts a line where the terminal ends, and does not wrap it.
        with formatter.section("Commands"):
            formatter.write_dl(self.list_short_helps(ctx))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = self.list_short_helps(ctx)
        commands = [CompletionItem(name, help=words) for name, words in found if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def list_short_helps(self, ctx: click.Context) -> list[tuple[str, str]]:
        """The names of the commands, in the order of the help, and what each is for."""
        return [(name, command.get_short_help_str(WIDEST)) for name, command in each_command(self, ctx)]


def each_command(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group with their names, in the order of its help."""
    for name in group.list_commands(context):
        if (command := group.get_command(context, name)) is not None:
            yield name, command
