"""``polypod chat``: a session at the terminal, turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import click

from actors.cli.approvals.approver import Approver, approver
from actors.cli.chat_input import Asker, Lines, Prompt
from actors.cli.config import memory_folder, name_in_errors
from actors.cli.display.choice import Loudness, view_of
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View
from actors.cli.interrupts import run_interruptible
from actors.cli.pods.options import Given, loudness, of_a_pod
from actors.cli.pods.planning import new_plan, plan_again
from actors.cli.running import (
    MEMORY_FAILURES,
    Plan,
    Start,
    finish_memory_jobs,
    follow_until_signal,
    resumable,
)
from actors.cli.streams import private_stdin
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import PodStopped, PolypodError, RunFailed
from protocol.lifecycle import PodState

_HELP = """\
/resume   go on with a run that was interrupted
/exit     leave (or Ctrl-D, or Ctrl-C twice); the session stays
//…       say a line that begins with /
Alt-Enter or Ctrl-J begins a new line, Enter sends
Ctrl-C drops what was typed, and cancels a turn that goes on"""


@click.command(short_help="Talk with a pod, turn by turn.")
@click.option("-r", "--resume", "session", metavar="SESSION", help="Go on with this session.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the last session of this folder.")
@of_a_pod()
@loudness
def chat(session: str | None, *, goes_on: bool, given: Given, loudness: Loudness, as_json: bool) -> None:
    """Talk with a pod: each line is a turn, and the session stays when you leave."""
    if session is not None and goes_on:
        raise click.UsageError("--resume and --continue exclude each other")
    plan, notes = plan_again(given, session) if session is not None or goes_on else new_plan(given)
    terminal = Terminal()
    view = view_of(terminal, as_json=as_json, loudness=loudness)
    for note in notes:
        view.note(note)
    stdin = private_stdin()
    asker: Asker = Prompt(stdin, terminal) if stdin.isatty() and not as_json else Lines(stdin, terminal)
    with name_in_errors(given.manifest):
        answering = partial(approver, manifest=plan.manifest, terminal=terminal, stdin=stdin, as_json=as_json)
        run_interruptible(_chat(plan, asker, terminal, view, answering))


class _Chat(NamedTuple):
    """The pod that is talked with, and what its person is shown and asked by."""

    system: PodSystem
    pod: Pod
    terminal: Terminal
    view: View
    answering: Callable[[PodSystem], Approver]


async def _chat(
    plan: Plan, asker: Asker, terminal: Terminal, view: View, answering: Callable[[PodSystem], Approver]
) -> None:
    async with PodSystem(store=plan.store, memory=memory_folder()) as system:
        pod = await plan.spawn(system, view)
        async with resumable(pod, plan, terminal, "chat --resume"):
            try:
                await _talk(_Chat(system, pod, terminal, view, answering), asker)
            finally:
                asker.close()


async def _talk(chat: _Chat, asker: Asker) -> None:
    pod, view = chat.pod, chat.view
    described = await pod.describe()
    view.note(f"session {described.session_id}; /help shows more")
    if described.state is PodState.PAUSED:
        view.note("its last run was interrupted: /resume goes on with it, new words start anew")
    with pod.subscribe(MEMORY_FAILURES) as failures:
        while (words := await asker.ask()) is not None:
            if words.split()[:1] == ["/exit"]:
                break
            await _handle(words, chat)
        await finish_memory_jobs(pod, chat.terminal, failures)


async def _handle(words: str, chat: _Chat) -> None:
    """Carry out a command or a turn; an error is shown, and the chat goes on."""
    try:
        if words.startswith("/") and not words.startswith("//"):
            await _command(words, chat)
        elif words:
            await _turn(words.removeprefix("/") if words.startswith("//") else words, chat)
    except PodStopped:
        raise
    except PolypodError as error:
        chat.terminal.note(f"polypod: {error.message}", "error")
        if error.hint:
            chat.terminal.note(f"  hint: {error.hint}", "note")


async def _command(words: str, chat: _Chat) -> None:
    terminal = chat.terminal
    command = words.split(maxsplit=1)[0]
    if command == "/resume":
        if (await chat.pod.describe()).state is PodState.PAUSED:
            await _turn(None, chat)
        else:
            terminal.note("no run was interrupted")
    elif command == "/help":
        for line in _HELP.splitlines():
            terminal.note(line)
    else:
        terminal.note(f"no such command: {command}; /help lists them", "error")
        terminal.note("  hint: with // in front, a line that begins with / is said", "note")


async def _turn(words: str | None, chat: _Chat) -> None:
    """Do one run to its end; a failure is shown, and the chat goes on."""
    system, pod, terminal, view, answering = chat
    try:
        start: Start = Pod.resume if words is None else lambda pod: pod.run(words)
        await follow_until_signal(system, pod, start, view, terminal, answering(system), cancels=True)
    except RunFailed as error:
        terminal.note(f"polypod: the run failed: {error}", "error")
    finally:
        terminal.idle()
