"""The command ``polypod``: its table of commands, and the one place where it ends."""

from __future__ import annotations

import sys
from pkgutil import resolve_name

import click

from actors.cli.completion import answer_shell
from actors.cli.display.help_format import Commands, HelpContext
from actors.cli.errors import run_guarded
from actors.cli.interrupts import ignore_signals_at_the_end, leave
from actors.cli.streams import open_closed
from actors.version import __version__
from protocol.text import encodable

#: Where each command is, in the order of the help: a start imports the one it runs and no other.
_COMMANDS = {
    "demo": "actors.cli.demo:demo",
    "run": "actors.cli.run:run",
    "chat": "actors.cli.chat.command:chat",
    "resume": "actors.cli.run:resume",
    "agent": "actors.cli.agent.command:agent",
    "swarm": "actors.cli.swarm.command:swarm",
    "top": "actors.cli.top.command:top",
    "pool": "actors.cli.pool.command:pool",
    "approvals": "actors.cli.approvals.command:approvals",
    "approve": "actors.cli.approvals.command:approve",
    "deny": "actors.cli.approvals.command:deny",
    "ps": "actors.cli.sessions.inspect:ps",
    "show": "actors.cli.sessions.inspect:show",
    "log": "actors.cli.sessions.inspect:log",
    "events": "actors.cli.sessions.events:events",
    "compact": "actors.cli.sessions.compact:compact",
    "memory": "actors.cli.memory:memory",
    "fork": "actors.cli.sessions.maintenance:fork",
    "export": "actors.cli.sessions.maintenance:export",
    "import": "actors.cli.sessions.maintenance:import_",
    "fsck": "actors.cli.sessions.maintenance:fsck",
    "gc": "actors.cli.sessions.maintenance:gc",
    "rm": "actors.cli.sessions.maintenance:rm",
    "config": "actors.cli.config.command:config",
    "models": "actors.cli.models:models",
    "doctor": "actors.cli.doctor:doctor",
    "bench": "actors.cli.bench.command:bench",
    "schema": "actors.cli.schema:schema",
    "completion": "actors.cli.completion:completion",
}


class _Polypod(Commands):
    """Words that are not UTF-8 have a replacement character where they are not."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(dict.fromkeys((*_COMMANDS, *self.commands)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := super().get_command(ctx, cmd_name)) is None and cmd_name in _COMMANDS:
            command = resolve_name(_COMMANDS[cmd_name])
            self.add_command(command)
        return command

    def no_such_command(self, ctx: click.Context, word: str) -> click.UsageError:
        if " " not in word:
            return super().no_such_command(ctx, word)
        return click.UsageError(f"No such command {word!r:.60}; to run a task: polypod run TASK", ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [encodable(word) for word in args])


@click.group(
    cls=_Polypod,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog="Exit codes: 0 finished, 1 failed (or refused by the scope at its last step), 2 bad input, "
    "3 a limit or budget, 4 refused by the model or its provider, 130 cancelled, "
    "129, 130 or 143 interrupted.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def polypod(context: click.Context) -> None:
    """Run LLM agents as pods: each with a durable session, a scope and a budget.

    Answers go to standard output, progress to standard error; --json prints JSON lines instead.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@polypod.command("help", short_help="Show this help, or that of a command.")
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or that of polypod itself."""
    parent = context.parent
    assert parent is not None
    group: click.Command = polypod
    for word in words:
        if not isinstance(group, Commands):
            raise click.UsageError(f"No such command {word!r}", parent)
        if (found := group.get_command(parent, word)) is None:
            raise group.no_such_command(parent, word)
        parent, group = HelpContext(found, parent, info_name=word, **found.context_settings), found
    click.echo(group.get_help(parent))


def main() -> None:
    """Run the command line and leave with its exit code."""
    if (answered := answer_shell(polypod)) is not None:
        sys.exit(answered)
    open_closed()
    ignore_signals_at_the_end()
    leave(run_guarded(lambda: polypod(prog_name="polypod", standalone_mode=False)))


if __name__ == "__main__":
    main()
