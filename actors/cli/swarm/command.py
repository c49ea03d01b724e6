"""``polypod swarm``: starts agents, lists them, and does with them what a person wants."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from actors.cli import options
from actors.cli.display.event_format import Line, event_line
from actors.cli.display.format import count, cut, seconds, tokens
from actors.cli.display.help_format import Commands
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import CANCELLED, FAILED, Exit
from actors.cli.places import default_store, working_folder
from actors.cli.pods.manifest import Wishes, manifest_for
from actors.cli.swarm.client import Client
from actors.cli.swarm.environment import differing, digests_of
from actors.cli.swarm.files import read_rows
from actors.cli.swarm.rows import Row, lines_of, status_shown
from actors.cli.swarm.wire import Asked, Said
from actors.runtime.arguments import path_of
from actors.runtime.lasting_loop import run_on_own_loop
from actors.runtime.user_folders import state_path
from protocol.agents import stands
from protocol.errors import PolypodError
from protocol.events import Lagged, Retry, StreamRestart
from protocol.manifest import PodManifest, RestartSection
from protocol.text import is_encodable

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds after which a service that nobody needs ends.
_IDLE = 30.0
#: Columns that a list has where it is not shown at a terminal.
_PIPED = 100
#: What is said where agents have other variables than the command that starts one.
_OTHER_VARIABLES = (
    "agents get their environment variables from the swarm's service, where these differ from "
    "here: {} (it ends soon after the last agent, and the next command starts it again with its "
    "own variables)"
)
#: The runners that are pods.
_PODS = ("pod", "process")


def _root(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    root = (state_path() / "swarm" if value is None else path_of("--root", value)).resolve()
    if not is_encodable(str(root)):  # the service could not be given it
        raise click.UsageError(f"no agents can be kept in {root}: its name is not UTF-8")
    return root


root_option = click.option(
    "--root",
    metavar="DIR",
    callback=_root,
    envvar="POLYPOD_SWARM",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the agents  [default: swarm in your state folder]",
)


def _of_a_swarm(command: F) -> F:
    """The options of commands that ask a swarm."""
    for option in (options.as_json, options.store, root_option):
        command = option(command)
    return command


@click.group(cls=Commands)
def swarm() -> None:
    """Manage agents that work in the background: pods and other programs.

    One service for each folder supervises them: the first command starts it, and it ends when no agent is
    alive. AGENT is an id, or the beginning of one.
    """


@swarm.command(short_help="Start an agent with a task.")
@click.argument("task")
@click.option(
    "--runner",
    default="pod",
    show_default=True,
    help="pod, process, local, claude, codex, gemini, acp:COMMAND, a [[runner]] of polypod.toml, or the "
    "command of a program of yours.",
)
@click.option(
    "--cwd",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Its working directory  [default: the current one]",
)
@click.option("--name", help="The beginning of its id.")
@click.option("--provider", help="The provider of the model, for a program that is not polypod's.")
@click.option("--keep", is_flag=True, help="Let its program outlive the service.")
@click.option(
    "--restart",
    type=click.Choice(["pause", "resume"]),
    help=(
        "Restart it if it fails or the service is killed; its task then waits (pause) or continues (resume)."
    ),
)
@click.option("--wait", "waits", is_flag=True, help="Wait for its task to end, and print the answer.")
@options.manifest
@options.profile
@options.model
@options.base_url
@options.allow
@_of_a_swarm
def start(task: str, waits: bool, root: Path, store: str | None, as_json: bool, **wanted: Any) -> None:
    """Start an agent with TASK and print its id; - reads the task from standard input."""
    text = sys.stdin.read() if task == "-" else task
    terminal = Terminal()
    asked, notes = asked_to_start(text, **wanted)
    for note in notes:
        terminal.note(note)
    client = Client(root, store)
    row = client.ask(asked).rows[0]
    if others := _other_variables(client):
        terminal.note(_OTHER_VARIABLES.format(", ".join(others)), "note")
    if waits:
        row = _wait(client, row.id, terminal)
    _show(row, terminal, as_json=as_json, answer=waits)


def _other_variables(client: Client) -> list[str]:
    """The variables that matter to agents and that the service has otherwise than this command."""
    theirs: dict[str, str] = {}
    with contextlib.suppress(PolypodError):  # the agent is started in any case
        theirs = client.ask(Asked(do="ping")).environment
    return differing(digests_of(os.environ), theirs) if theirs else []


def asked_to_start(
    task: str,
    *,
    runner: str,
    cwd: Path | None,
    name: str | None,
    provider: str | None,
    keep: bool,
    restart: Literal["pause", "resume"] | None,
    manifest: Path | None,
    model: str | None,
    base_url: str | None,
    allow: tuple[Path, ...],
    profile: str | None = None,
) -> tuple[Asked, list[str]]:
    """The question for a new agent, and notes on its model. Raises UsageError, ManifestError."""
    if not task.strip():
        raise click.UsageError("the task is empty")
    place = working_folder(cwd)
    wishes = Wishes(manifest, None, model, base_url, allow, profile)
    # A pod that is to outlive the service is `polypod agent`, which makes its own manifest of a model alone.
    plain = manifest is None and profile is None and base_url is None and not allow
    alone = keep and runner == "process" and plain
    is_pod = runner in _PODS and not alone
    pod, notes = _manifest(wishes, place) if is_pod else (None, [])
    asked = Asked(
        do="start",
        text=task,
        runner=_runner(runner),
        name=name,
        cwd=str(place),
        model=None if is_pod else model,
        provider=provider,
        keep=keep,
        restart=None if restart is None else RestartSection(policy="on_failure", on_restart=restart),
        manifest=pod,
    )
    return asked, notes


def _runner(named: str) -> str | tuple[str, ...]:
    """A name, or the words of a command. Raises UsageError."""
    try:
        words = tuple(shlex.split(named))
    except ValueError as error:
        raise click.UsageError(f"--runner is not a valid command: {error}") from error
    return words if not named.startswith("acp:") and (len(words) > 1 or "/" in named) else named


def _manifest(wishes: Wishes, place: Path) -> tuple[PodManifest, list[str]]:
    """What a pod is to be, that works in ``place``, and what is noted of it. Raises ManifestError."""
    with contextlib.chdir(place):
        return manifest_for(wishes)


def _show(row: Row, terminal: Terminal, *, as_json: bool, answer: bool = False) -> None:
    """Print an agent that was asked something; with ``answer`` how its task ended."""
    if as_json:
        put_json(row)
    elif not answer:
        terminal.row(Line("answer", row.id))
    elif row.text:
        terminal.write(row.text)
        terminal.end_line()
    if answer and row.result in {"failed", "killed"}:
        how = "failed" if row.result == "failed" else "was cancelled"
        why = "" if row.error is None else f": {row.error}"
        terminal.note(f"polypod: the task of agent {row.id} {how}{why}", "error")
        raise Exit(FAILED)


@swarm.command("ls", short_help="List the agents: which need you, which are working, which have ended.")
@_of_a_swarm
def list_agents(root: Path, store: str | None, as_json: bool) -> None:
    """List the agents: those that need you, those that work, and those that have ended."""
    said, trouble = _list(Client(root, store), root)
    rows, terminal = said.rows, Terminal()
    for problem in said.problems:
        terminal.note(f"passed over: {problem}", "note")
    if as_json:
        for row in rows:
            put_json(row)
    else:
        if not rows and trouble is None:
            terminal.note(f"no agents in {root}")
        for line in lines_of(rows, time.time(), _width()):
            terminal.row(line)
    if trouble is not None:
        raise trouble


def _list(client: Client, root: Path) -> tuple[Said, Exception | None]:
    """All agents; where no service starts, as on a full disk, as their files have them, and why. Raises
    PolypodError, OSError.
    """
    try:
        return client.ask(Asked(do="ls")), None
    except (PolypodError, OSError) as error:
        if not client.is_reached:
            with contextlib.suppress(OSError):
                return Said(rows=tuple(read_rows(root))), error
        raise


def _width() -> int:
    """Columns of the terminal that the list is shown at."""
    return shutil.get_terminal_size((_PIPED, 0)).columns


@swarm.command(short_help="Follow what an agent does; Ctrl-C leaves it running.")
@click.argument("agent")
@_of_a_swarm
def attach(agent: str, root: Path, store: str | None, as_json: bool) -> None:
    """Show what AGENT has done and does, until it ends; Ctrl-C leaves it running."""
    _follow(Asked(do="events", id=agent, follow=True), root, store, as_json=as_json)


@swarm.command(short_help="Print what an agent has done.")
@click.argument("agent")
@click.option("--follow", is_flag=True, help="Keep printing what it does until it ends.")
@click.option("--since", metavar="N", default=0, help="Only entries after number N.")
@_of_a_swarm
def logs(agent: str, follow: bool, since: int, root: Path, store: str | None, as_json: bool) -> None:
    """Print what AGENT has done, an event a line."""
    _follow(Asked(do="events", id=agent, follow=follow, since=since), root, store, as_json=as_json)


def _follow(asked: Asked, root: Path, store: str | None, *, as_json: bool) -> None:
    terminal = Terminal()

    def again() -> None:
        terminal.note("the swarm's service has ended; reading on from a new one")

    with _leaving_at_work(asked.id, terminal):
        for event in Client(root, store).events(asked, again):
            if as_json:
                put_json(event)
            elif event.durable or isinstance(event, Lagged | Retry | StreamRestart):
                terminal.row(event_line(event, _width()))


def _wait(client: Client, agent: str, terminal: Terminal) -> Row:
    """How the task of an agent ends. Raises PolypodError, and Exit at Ctrl-C."""
    terminal.busy(f"agent {agent} is at work…")
    try:
        with _leaving_at_work(agent, terminal):
            return client.wait(agent).rows[0]
    finally:
        terminal.idle()


@contextlib.contextmanager
def _leaving_at_work(agent: str, terminal: Terminal) -> Iterator[None]:
    """Say at Ctrl-C that the agent is left as it is: only the command ends. Raises Exit."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.note(f"agent {agent} is left as it is; polypod swarm attach {agent} shows what it does")
        raise Exit(CANCELLED) from None


@swarm.command(short_help="Send a message to an agent.")
@click.argument("agent")
@click.argument("words")
@click.option("--wait", "waits", is_flag=True, help="Wait for its task to end, and print the answer.")
@_of_a_swarm
def send(agent: str, words: str, waits: bool, root: Path, store: str | None, as_json: bool) -> None:
    """Send WORDS to AGENT, for its current task or as its next one; - reads them from standard input."""
    text = sys.stdin.read() if words == "-" else words
    client, terminal = Client(root, store), Terminal()
    row = client.ask(Asked(do="send", id=agent, text=text)).rows[0]
    if waits:
        row = _wait(client, row.id, terminal)
    _show(row, terminal, as_json=as_json, answer=waits)


def _simple(do: str, short: str, text: str) -> None:
    """Make a command that asks one thing of one agent, or of several."""

    @swarm.command(do, short_help=short, help=text)
    @click.argument("agents", nargs=-1, required=True)
    @_of_a_swarm
    def ask(agents: tuple[str, ...], root: Path, store: str | None, as_json: bool) -> None:
        _ask_of_each(do, agents, Client(root, store), as_json=as_json)


def _ask_of_each(do: str, agents: Sequence[str], client: Client, *, as_json: bool) -> None:
    """Ask the same of each; where one refuses, the others are asked as well."""
    terminal, failed = Terminal(), 0
    for agent in agents:
        try:
            row = client.ask(Asked(do=do, id=agent)).rows[0]
        except PolypodError as error:
            if len(agents) == 1:
                raise
            failed += 1
            terminal.note(f"polypod: {error}", "error")
        else:
            _show_end(row, terminal, as_json=as_json, removed=do == "rm")
    if failed:
        terminal.note(f"polypod: {failed} of {count(len(agents), 'agent')} could not be reached", "error")
        raise Exit(FAILED)


def _show_end(row: Row, terminal: Terminal, *, as_json: bool, removed: bool) -> None:
    """Print how an agent stands now."""
    if as_json:
        put_json(row)
        return
    if removed:
        terminal.note(f"agent {row.id} is removed")
        return
    used = [] if row.usage is None else [tokens(row.usage)]
    took = [] if row.seconds is None else [seconds(row.seconds)]
    terminal.note(cut(", ".join([f"agent {row.id} {stands(status_shown(row))}", *took, *used]), 200))


_simple(
    "show", "Show the state of an agent.", "Show the state of AGENT; --json prints everything known about it."
)
_simple(
    "cancel",
    "Cancel what an agent does.",
    "Cancel the task of AGENT, which keeps running if its program can.",
)
_simple("stop", "Stop an agent.", "Stop AGENT. Only polypod swarm resume starts it again.")
_simple("rm", "Remove the record of an agent.", "Remove the record of AGENT, which must have ended.")


@swarm.command(short_help="Restart agents that have ended.")
@click.argument("agents", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All agents that failed or ended with the service.")
@_of_a_swarm
def resume(agents: tuple[str, ...], every: bool, root: Path, store: str | None, as_json: bool) -> None:
    """Restart each AGENT in its conversation; a pod continues a task that was interrupted.

    With --all, restart all that failed or were cut off, for example by a power loss. Agents that a person
    stopped or cancelled stay as they are, and so do those that finished.
    """
    if every == bool(agents):
        raise click.UsageError("name the agents to resume, or use --all")
    client = Client(root, store)
    if every:
        rows = client.ask(Asked(do="ls")).rows
        agents = tuple(row.id for row in reversed(rows) if row.is_cut_off)
    if not agents:
        Terminal().note("no agent failed or ended with the service")
    _ask_of_each("resume", agents, client, as_json=as_json)


@swarm.command(short_help="Allow what an agent asks for.")
@click.argument("approval")
@click.option("--always", is_flag=True, help="Do not ask for the same again.")
@click.option("--note", help="A message for the agent.")
@_of_a_swarm
def approve(
    approval: str, always: bool, note: str | None, root: Path, store: str | None, as_json: bool
) -> None:
    """Allow what waits under the id APPROVAL, which the list shows."""
    asked = Asked(do="approve", id=approval, always=always, note=note)
    row = Client(root, store).ask(asked).rows[0]
    _show_end(row, Terminal(), as_json=as_json, removed=False)


@swarm.command(short_help="Refuse what an agent asks for.")
@click.argument("approval")
@click.option("--note", help="A message for the agent.")
@_of_a_swarm
def deny(approval: str, note: str | None, root: Path, store: str | None, as_json: bool) -> None:
    """Refuse what waits under the id APPROVAL, which the list shows."""
    row = Client(root, store).ask(Asked(do="deny", id=approval, note=note)).rows[0]
    _show_end(row, Terminal(), as_json=as_json, removed=False)


@swarm.command("serve", short_help="Run the service for the agents of a folder; other commands start it.")
@click.option(
    "--idle-seconds",
    type=options.Seconds(min=0.05),
    default=_IDLE,
    show_default=True,
    envvar="POLYPOD_SWARM_IDLE",
    help="Seconds after which it ends when nobody needs it.",
)
@root_option
@options.store
def serve_command(idle_seconds: float, root: Path, store: str | None) -> None:
    """Run the service for the agents of a folder until no agent is alive and no command needs it.

    The other commands start this if it is not running.
    """
    from actors.cli.swarm.service import only_one, serve  # noqa: PLC0415 - imports all of a swarm

    with only_one(root) as alone:
        if alone:
            logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
            run_on_own_loop(serve(store or default_store(), root, idle_seconds))
