"""``polypod agent``: its options, its credentials, and its life from the first line to the last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from actors.cli import options
from actors.cli.agent.daemon import AgentDaemon
from actors.cli.agent.inbox import Inbox, default_path, error_line
from actors.cli.agent.output import LineOutput
from actors.cli.errors import Exit
from actors.cli.mcp_servers import with_servers
from actors.cli.places import default_store, memory_folder
from actors.cli.pods.manifest import Wishes, allowing, manifest_for, with_model
from actors.cli.sessions.store_reader import Reading
from actors.cli.user_tools import with_tools
from actors.llm.http.presets import PRESETS
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.runtime.lasting_loop import run_on_own_loop
from actors.system import PodSystem
from actors.version import __version__
from protocol.errors import InvalidInput, PolypodError, SessionNotFound
from protocol.foreign import shown
from protocol.manifest import PodManifest
from protocol.names import check_name
from protocol.text import UNDECODABLE

#: The agent's id and the file that it may write where nobody reads its output, from who starts it.
AGENT_ID, AGENT_LOG = "POLYPOD_AGENT_ID", "POLYPOD_AGENT_LOG"
#: Whether keys come as a JSON object by standard input.
CREDENTIALS = "POLYPOD_AGENT_CREDENTIALS"
#: Bytes of credentials that are read at most.
_LARGEST = 1 << 20


class _Asked(Struct, frozen=True):
    """What the options say."""

    inbox: Path | None
    session: str | None
    cwd: Path
    task: str | None
    wishes: Wishes
    tools: tuple[str, ...]
    mcp: tuple[Path, ...]
    store: str | None
    idle_seconds: float | None


@click.command
@click.argument("task", required=False)
@click.option(
    "--inbox",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The socket to listen on, a message a line  [default: one in the user's runtime folder]",
)
@click.option("--session", metavar="ID", help="The session to continue, or the id for a new one.")
@click.option(
    "--cwd",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Its working directory  [default: the current one]",
)
@click.option("--model", metavar="[SCHEME/]ID", envvar="POLYPOD_MODEL", help="The model that answers.")
@click.option("--provider", metavar="SCHEME", help="The kind of server that serves the model.")
@options.base_url
@options.manifest
@options.allow
@options.tools
@options.mcp
@options.store
@click.option(
    "--idle-timeout",
    metavar="SECONDS",
    type=options.Seconds(min=0, min_open=True),
    help="End after this time without a turn  [default: never]",
)
def agent(
    task: str | None,
    inbox: Path | None,
    session: str | None,
    cwd: Path | None,
    model: str | None,
    provider: str | None,
    base_url: str | None,
    manifest: Path | None,
    allow: tuple[Path, ...],
    tools: tuple[str, ...],
    mcp_files: tuple[Path, ...],
    store: str | None,
    idle_timeout: float | None,
) -> None:
    """Run a pod that begins with TASK and then does what its inbox receives.

    Put -- before a TASK that begins with a dash. Standard output has a JSON object a
    line, {"type": …, "time": …}: agent_ready once it listens, turn_start, turn_end, and
    agent_stopped at the end. The inbox takes a message a line: user TEXT, user-json
    "TEXT", cancel, shutdown, and the protocol's commands as JSON.
    """
    named = "/".join(filter(None, (provider, model))) or None
    wishes = Wishes(manifest, os.environ.get(AGENT_ID), named, base_url, allow)
    folder = (cwd or Path.cwd()).absolute()
    asked = _Asked(
        inbox,
        session,
        folder,
        task or None,
        wishes,
        tools,
        mcp_files,
        store,
        idle_timeout,
    )
    output = _own_output()
    if code := run_on_own_loop(_live(asked, output)):
        raise Exit(code)


def _own_output() -> int:
    """A descriptor of standard output that nothing else prints to: that goes to standard error."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


async def _live(asked: _Asked, descriptor: int) -> int:
    """Live from the first line to the last: the exit code."""
    log = os.environ.get(AGENT_LOG)
    output = LineOutput(descriptor, Path(log) if log else None)
    daemon = AgentDaemon(output, asked.idle_seconds)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, _end_by_signal, daemon, number)
    reason, error = "exit", None
    try:
        await asyncio.to_thread(_take_credentials)
        reason = await _serve(asked, daemon)
        error = daemon.failure
    except (PolypodError, click.ClickException, OSError) as raised:
        line = error_line(raised)
        error = line["message"]
        output.put(**line)
    code = 0 if error is None else 1
    output.put("agent_stopped", reason=reason, code=code, error=error)
    await output.close()
    return code


def _end_by_signal(daemon: AgentDaemon, number: int) -> None:
    """The first signal ends it well; a second one of that kind at once."""
    signal.signal(number, signal.SIG_DFL)
    daemon.end("shutdown")


async def _serve(asked: _Asked, daemon: AgentDaemon) -> str:
    os.chdir(asked.cwd)
    url = asked.store or default_store()
    manifest, resume, task = await asyncio.to_thread(_plan, asked, url)
    name = manifest.pod.name
    inbox = Inbox(asked.inbox or default_path(name), daemon.take, daemon.complain)
    await inbox.listen()
    try:
        async with PodSystem(store=url, memory=memory_folder()) as system:
            events = system.subscribe()
            new = None if resume else asked.session
            pod = await system.spawn(manifest, resume=resume, session=new)
            ready = await _ready(pod, asked, inbox)
            reason = await daemon.run(pod, inbox, events, ready, task)
        await daemon.finish()
    finally:
        await inbox.close()
    return reason


async def _ready(pod: Pod, asked: _Asked, inbox: Inbox) -> dict[str, Any]:
    described = await pod.describe()
    return {
        "version": __version__,
        "cwd": str(asked.cwd),
        "model": actor_of(pod).resources.template.model,
        "session": described.session_id,
        "inbox": str(inbox.path),
        "pid": os.getpid(),
    }


def _plan(asked: _Asked, url: str) -> tuple[PodManifest, str | None, str | None]:
    """The pod's manifest, the session that it goes on with, and the task that it is to begin with: one that
    its session began with is not done again. Raises PolypodError.
    """
    with Reading(url) as reading:
        session = None if asked.session is None else _exact(reading, asked.session)
        if session is not None:
            manifest = allowing(with_model(reading.manifest(session), asked.wishes), asked.wishes.allow)
            if asked.wishes.name is not None:
                manifest = manifest.replace(pod=msgspec.structs.replace(manifest.pod, name=asked.wishes.name))
            task = None if asked.task == reading.first_words(session) else asked.task
        else:
            manifest, _ = manifest_for(asked.wishes)
            task = asked.task
    manifest, _ = with_tools(manifest, asked.tools)
    manifest, _ = with_servers(manifest, asked.mcp)
    return manifest, session, task


def _exact(reading: Reading, session_id: str) -> str | None:
    """The session of that very id; None where there is none. Raises InvalidInput for what is not an id."""
    try:
        check_name(session_id, "the id of a session")
    except PolypodError as error:
        raise InvalidInput(error.message, hint=error.hint) from None
    with contextlib.suppress(SessionNotFound):
        found = reading.find(session_id).session_id
        return found if found == session_id else None
    return None


def _take_credentials() -> None:
    """Take keys from standard input, where who started this says that they come by it: as variables, by their
    names or by those of providers. Raises InvalidInput.
    """
    flag = os.environ.pop(CREDENTIALS, "")
    data = _read_object() if flag not in {"", "0"} else b""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if not data.strip():
        return
    try:
        keys = msgspec.json.decode(data, type=dict[str, str])
    except UNDECODABLE:
        raise InvalidInput("the credentials on standard input are not a JSON object of strings") from None
    for name, value in keys.items():
        preset = PRESETS.get(name)
        try:
            os.environ[preset.key_env if preset is not None and preset.key_env else name] = value
        except (OSError, ValueError):
            raise InvalidInput(f"the credential {shown(name)} cannot be an environment variable") from None


def _read_object() -> bytes:
    """Standard input up to its end, or to that of an object."""
    data = b""
    while len(data) < _LARGEST and (more := os.read(0, _LARGEST)):
        data += more
        if data.rstrip().endswith(b"}"):
            with contextlib.suppress(*UNDECODABLE):
                msgspec.json.decode(data)
                break
    return data
