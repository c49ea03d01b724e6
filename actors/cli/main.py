"""The command ``polypod``: its table of commands, and the one place where it ends."""

from __future__ import annotations

import sys

import click

from actors.cli.agent.command import agent
from actors.cli.approvals.command import approvals, approve, deny
from actors.cli.bench.command import bench
from actors.cli.chat.command import chat
from actors.cli.compact import compact
from actors.cli.completion import answer_shell, completion
from actors.cli.configuration.command import config
from actors.cli.demo import demo
from actors.cli.display.help_format import Commands, HelpContext
from actors.cli.doctor import doctor
from actors.cli.errors import run_guarded
from actors.cli.events import events
from actors.cli.inspect import log, ps, show
from actors.cli.interrupts import ignore_at_the_end
from actors.cli.maintenance import export, fork, fsck, gc, import_, rm
from actors.cli.memory import memory
from actors.cli.models import models
from actors.cli.pool.command import pool
from actors.cli.run import resume, run
from actors.cli.schema import schema
from actors.cli.streams import open_closed
from actors.cli.swarm.command import swarm
from actors.cli.top.command import top
from actors.version import __version__
from protocol.text import encodable


class _Polypod(Commands):
    """Words that are no UTF-8 have a replacement character where they are not."""

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


@click.command("help", short_help="Show this help, or that of a command.")
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or that of polypod itself."""
    parent = context.parent
    assert parent is not None
    group: click.Command = polypod
    for word in words:
        found = group.get_command(parent, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"No such command {word!r}", parent)
        parent, group = HelpContext(found, parent, info_name=word, **found.context_settings), found
    click.echo(group.get_help(parent))


_SESSIONS = (ps, show, log, events, compact, memory, fork, export, import_, fsck, gc, rm)

_APPROVALS = (approvals, approve, deny)

_AGENTS = (agent, swarm, top, pool)

for command in (
    demo,
    run,
    chat,
    resume,
    *_AGENTS,
    *_APPROVALS,
    *_SESSIONS,
    config,
    models,
    doctor,
    bench,
    schema,
    completion,
    help_,
):
    polypod.add_command(command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    if (answered := answer_shell(polypod)) is not None:
        sys.exit(answered)
    open_closed()
    ignore_at_the_end()
    sys.exit(run_guarded(lambda: polypod(prog_name="polypod", standalone_mode=False)))


if __name__ == "__main__":
    main()
