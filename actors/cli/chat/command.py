"""The command ``polypod chat``."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TextIO

import click

from actors.cli.approvals.approver import approver
from actors.cli.chat.carry_out import carry_out
from actors.cli.chat.current import Current
from actors.cli.chat.earlier import show_earlier
from actors.cli.chat.lines import Asker, Lines
from actors.cli.chat.plain_prompt import PlainPrompt
from actors.cli.chat.talk import Talk
from actors.cli.display.choice import Loudness, view_of
from actors.cli.display.screen import Screen
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View
from actors.cli.follow import MEMORY_FAILURES, Plan, finish_memory_jobs, resumable
from actors.cli.interrupts import farewell, run_interruptible
from actors.cli.places import memory_folder
from actors.cli.pods.manifest import name_in_errors
from actors.cli.pods.options import Given, images, loudness, of_a_pod
from actors.cli.pods.planning import new_plan, plan_again
from actors.cli.sessions.complete import complete_sessions
from actors.cli.streams import private_stdin
from actors.system import PodSystem
from protocol.items import ImagePart
from protocol.lifecycle import PodState

if TYPE_CHECKING:
    from actors.cli.chat.talk import Answering


@click.command
@click.option(
    "-r",
    "--resume",
    "session",
    metavar="SESSION",
    shell_complete=complete_sessions,
    help="Continue this session.",
)
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Continue the last session of this folder.")
@of_a_pod()
@images
@loudness
def chat(
    session: str | None,
    *,
    goes_on: bool,
    given: Given,
    images: tuple[ImagePart, ...],
    loudness: Loudness,
    as_json: bool,
) -> None:
    """Chat with a pod: each line is a turn, and the session is kept when you leave.

    /help shows the commands and keys. From a pipe or a file each line is a turn.
    """
    if session is not None and goes_on:
        raise click.UsageError("--resume and --continue exclude each other")
    plan, notes = plan_again(given, session) if session is not None or goes_on else new_plan(given)
    screen = Screen(sys.stdout, sys.stderr)
    terminal = Terminal(screen.out, screen.err, screen)
    view = view_of(terminal, as_json=as_json, loudness=loudness, renders=True)
    for note in notes:
        view.note(note)
    stdin = private_stdin()
    with name_in_errors(given.manifest):
        answering = partial(approver, manifest=plan.manifest, terminal=terminal, stdin=stdin, as_json=as_json)
        seat = _Seat(stdin, screen, terminal, view, answering, as_json=as_json, images=images)
        run_interruptible(_chat(plan, seat))


class _Seat(NamedTuple):
    """Where a person sits: what is shown to them, and how they are asked."""

    stdin: TextIO
    screen: Screen
    terminal: Terminal
    view: View
    answering: Answering
    as_json: bool
    images: tuple[ImagePart, ...]


async def _chat(plan: Plan, seat: _Seat) -> None:
    terminal = seat.terminal
    async with PodSystem(store=plan.store, memory=memory_folder()) as system:
        current = await Current.begin(system, plan, seat.view)
        talk = Talk(current, terminal, seat.view, seat.answering)
        talk.joins += seat.images
        asker = _asker(seat, talk)
        try:
            async with resumable(current.way_on, terminal):
                try:
                    with farewell(asker.close):
                        await _talk(talk, asker, seat)
                finally:
                    asker.close()
        finally:
            await current.leave()


def _asker(seat: _Seat, talk: Talk) -> Asker:
    """A line editor, where a person sits at a terminal."""
    if seat.as_json or not seat.stdin.isatty():
        return Lines(seat.stdin, seat.terminal)
    if os.environ.get("TERM", "dumb") in {"", "dumb", "unknown"}:
        return PlainPrompt(seat.stdin, seat.terminal)
    from actors.cli.chat.completion import ChatCompleter  # noqa: PLC0415 - only a chat at a terminal pays for it
    from actors.cli.chat.prompt import Prompt  # noqa: PLC0415 - the same

    completer = ChatCompleter(talk.current.context)
    prompt = Prompt(seat.stdin, seat.terminal, seat.screen, completer, talk.footer)
    seat.terminal.keyboard = prompt.suspended
    return prompt


async def _talk(talk: Talk, asker: Asker, seat: _Seat) -> None:
    described = talk.current.described
    seat.view.note(f"session {described.session_id}; /help shows more")
    if talk.current.plan.session is not None and not seat.as_json and seat.stdin.isatty():
        show_earlier(await talk.current.pod.history(), seat.terminal)
    if described.state is PodState.PAUSED:
        seat.view.note("its last run was interrupted: /resume continues it, a new message starts another")
    with talk.current.system.subscribe(kinds=MEMORY_FAILURES) as failures:
        while (typed := await talk.next_line(asker)) is not None and await carry_out(typed, talk, asker):
            pass
        await finish_memory_jobs(talk.current.pod, seat.view, seat.terminal, failures)
