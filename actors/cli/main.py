"""The command ``polypod``: its table of commands, and the one place where it ends."""

from __future__ import annotations

import sys
from pkgutil import resolve_name

import click

from actors.cli.completion import answer_shell
from actors.cli.display.help_format import WIDEST, Commands, HelpContext
from actors.cli.errors import run_guarded
from actors.cli.interrupts import ignore_signals_at_the_end, leave
from actors.cli.streams import open_closed
from actors.version import __version__
from protocol.text import encodable

#: Where each command is below ``actors.cli`` and what it is for, in the order of the help: a start imports
#: the one that it runs and no other, and the help none.
_COMMANDS = {
    "demo": ("demo:demo", "Watch a pod being killed in the middle of a tool, and continuing."),
    "run": ("run:run", "Run a task with a new pod."),
    "chat": ("chat.command:chat", "Chat with a pod, turn by turn."),
    "resume": ("run:resume", "Continue an interrupted run, or say something new."),
    "agent": ("agent.command:agent", "Run a pod as an agent that listens on a socket and prints JSON lines."),
    "swarm": ("swarm.command:swarm", "Start agents, list them, send to them, stop and resume them."),
    "top": ("top.command:top", "Watch agents and pods on one screen, send to them and answer them."),
    "pool": ("pool.command:pool", "Queue jobs, and work them off with a limited number of runners."),
    "approvals": ("approvals.command:approvals", "List the calls that wait for approval."),
    "approve": ("approvals.command:approve", "Allow a call that waits for approval."),
    "deny": ("approvals.command:deny", "Refuse a call that waits for approval."),
    "ps": ("sessions.inspect:ps", "List the sessions, the most recently changed first."),
    "show": ("sessions.inspect:show", "Show a session and what it used."),
    "log": ("sessions.inspect:log", "Print the entries of a session."),
    "events": ("sessions.events:events", "Print the events of pods in all processes."),
    "compact": ("sessions.compact:compact", "Replace the older part of a history with a summary."),
    "memory": ("memory:memory", "List, search and show the notes of lasting memory."),
    "fork": ("sessions.maintenance:fork", "Branch off a session."),
    "export": ("sessions.maintenance:export", "Write a session to a file."),
    "import": ("sessions.maintenance:import_", "Import an exported session into the store."),
    "fsck": ("sessions.maintenance:fsck", "Check every session's hash chain."),
    "gc": ("sessions.maintenance:gc", "Delete old sessions for good."),
    "rm": ("sessions.maintenance:rm", "Delete sessions for good."),
    "config": ("config.command:config", "Show what polypod.toml sets, and trust a project's file."),
    "models": ("models:models", "List the models that can be used."),
    "doctor": ("doctor:doctor", "Show what this machine can and cannot do."),
    "bench": ("bench.command:bench", "Measure your own set-up."),
    "schema": ("schema:schema", "Print the JSON Schema of events, commands and of what --json prints."),
    "completion": ("completion:completion", "Print the completion script for your shell."),
}


class _Polypod(Commands):
    """Words that are not UTF-8 have a replacement character where they are not."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(dict.fromkeys((*_COMMANDS, *self.commands)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := super().get_command(ctx, cmd_name)) is None and cmd_name in _COMMANDS:
            place, words = _COMMANDS[cmd_name]
            command = resolve_name(f"actors.cli.{place}")
            command.short_help = words
            self.add_command(command)
        return command

    def list_short_helps(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002
        found = {name: words for name, (_, words) in _COMMANDS.items()}
        for name, command in self.commands.items():
            found[name] = command.get_short_help_str(WIDEST)
        return list(found.items())

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
