"""``polypod chat``: a session at the terminal, turn by turn."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Protocol

import click

from actors.cli import options
from actors.cli.loading import tools_named, tools_told
from actors.cli.reading import Reading
from actors.cli.run import view_of
from actors.cli.running import MEMORY_FAILURES, Plan, followed_by_hand, remembered, resumable
from actors.cli.setting import (
    Wishes,
    default_store,
    manifest_for,
    memory_folder,
    named_in_errors,
    state_folder,
    with_model,
)
from actors.cli.terminal import Terminal
from actors.cli.views import View
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import RunFailed
from protocol.lifecycle import PodState

_HELP = """\
/resume   go on with a run that was interrupted
/exit     leave (or Ctrl-D); the session stays
Ctrl-C cancels the turn that goes on; at the prompt, a second one leaves"""


#: Bytes of the longest line that a chat takes from a pipe.
_LONGEST_LINE = 1 << 24


class Asker(Protocol):
    """Where the next words of a person come from."""

    async def ask(self) -> str | None:
        """The next line, or None when the person leaves."""


@click.command(short_help="Talk with a pod, turn by turn.")
@click.option("--resume", "session", metavar="SESSION", help="Go on with this session.")
@options.of_a_pod
def chat(
    session: str | None,
    manifest: Path | None,
    model: str | None,
    base_url: str | None,
    name: str | None,
    allow: tuple[Path, ...],
    tools: tuple[str, ...],
    store: str | None,
    as_json: bool,
) -> None:
    """Talk with a pod: each line is a turn, and the session stays when you leave."""
    wishes = Wishes(manifest, name, model, base_url, allow)
    session_id: str | None = None
    notes: list[str] = []
    if session is None:
        asked, notes = manifest_for(wishes)
    else:
        if manifest is not None or name is not None or allow:
            raise click.UsageError(
                "a session goes on as it began: --manifest, --name and --allow are for new ones"
            )
        with Reading(store) as reading:
            session_id = reading.find(session).session_id
            asked = with_model(reading.manifest(session_id), wishes)
    terminal = Terminal()
    view = view_of(terminal, as_json=as_json)
    plan = Plan(asked, store or default_store(), tools_named(tools), session_id)
    for note in (*notes, *tools_told(plan.tools)):
        view.note(note)
    asker = _Prompt(terminal) if sys.stdin.isatty() and not as_json else _Lines()
    with named_in_errors(manifest):
        asyncio.run(_chat(plan, asker, terminal, view))


async def _chat(plan: Plan, asker: Asker, terminal: Terminal, view: View) -> None:
    async with PodSystem(store=plan.store, memory=memory_folder()) as system:
        pod = await plan.pod(system)
        async with resumable(pod, plan, terminal, "chat --resume"):
            await _talk(pod, asker, terminal, view)


async def _talk(pod: Pod, asker: Asker, terminal: Terminal, view: View) -> None:
    described = await pod.describe()
    view.note(f"session {described.session_id}; /help tells more")
    if described.state is PodState.PAUSED:
        view.note("its last run was interrupted: /resume goes on with it, new words start anew")
    with pod.subscribe(MEMORY_FAILURES) as failures:
        while (words := await asker.ask()) is not None:
            if words.startswith("/"):
                if words == "/exit":
                    break
                await _command(words, pod, terminal, view)
            elif words:
                await _turn(words, pod, terminal, view)
        await remembered(pod, terminal, failures)


async def _command(words: str, pod: Pod, terminal: Terminal, view: View) -> None:
    if words == "/resume":
        if (await pod.describe()).state is PodState.PAUSED:
            await _turn(None, pod, terminal, view)
        else:
            terminal.note("no run was interrupted")
    elif words == "/help":
        for line in _HELP.splitlines():
            terminal.note(line)
    else:
        terminal.note(f"no such command: {words}; /help lists them", "error")


async def _turn(words: str | None, pod: Pod, terminal: Terminal, view: View) -> None:
    """One run to its end; a failure is told, and the chat goes on."""
    try:
        start = pod.resume if words is None else lambda: pod.run(words)
        await followed_by_hand(pod, start, view, terminal, cancels=True)
    except RunFailed as error:
        terminal.note(f"polypod: the run failed: {error}", "error")
    finally:
        terminal.idle()


class _Lines:
    """Words from a pipe or a file: each line is a turn."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None

    async def ask(self) -> str | None:
        line = await self._read()
        return line.decode("utf-8", "replace").strip() if line else None

    async def _read(self) -> bytes:
        """The next line; from a pipe without a thread, which a Ctrl-C would have to wait for."""
        if self._reader is None:
            if not _can_be_awaited(sys.stdin.fileno()):
                return sys.stdin.buffer.readline()
            reader = self._reader = asyncio.StreamReader(limit=_LONGEST_LINE)
            protocol = asyncio.StreamReaderProtocol(reader)
            # A copy of the descriptor: at its end the loop closes what it reads.
            copy = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, copy)
        return await self._reader.readline()


def _can_be_awaited(descriptor: int) -> bool:
    """Whether a loop can watch it: it cannot a file, and a terminal would be changed for all who use it."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _Prompt:
    """Words from a person: a line editor with a history of its own."""

    def __init__(self, terminal: Terminal) -> None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - only a chat at a terminal pays for it
        from prompt_toolkit.history import FileHistory  # noqa: PLC0415

        self._terminal = terminal
        history = state_folder() / "chat-history"
        history.touch(mode=0o600)
        self._session: PromptSession[str] = PromptSession(history=FileHistory(str(history)))

    async def ask(self) -> str | None:
        for attempt in range(2):
            try:
                return (await self._session.prompt_async("> ")).strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if attempt == 0:
                    self._terminal.note("Ctrl-C again leaves")
        return None
