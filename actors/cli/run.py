"""``polypod run`` and ``polypod resume``: run a task to its end, or go on with an interrupted one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import click

from actors.cli.approvals.approver import Approver, approver
from actors.cli.display.choice import Loudness, view_of
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View, show_failures
from actors.cli.errors import CODES, FAILED, Exit
from actors.cli.follow import (
    MEMORY_FAILURES,
    Plan,
    Start,
    finish_memory_jobs,
    follow_until_signal,
    pausing_sub_agents,
    resumable,
)
from actors.cli.interrupts import run_interruptible
from actors.cli.places import memory_folder, store_option
from actors.cli.pods.attachments import STDIN, attached
from actors.cli.pods.manifest import name_in_errors
from actors.cli.pods.options import Given, files, images, loudness, of_a_pod, schema
from actors.cli.pods.planning import new_plan, plan_again
from actors.cli.sessions.complete import complete_sessions
from actors.cli.streams import private_stdin
from actors.pod.handle import Pod
from actors.pod.runs.options import Content
from actors.sessions.head import short_id
from actors.system import PodSystem
from protocol.items import ImagePart
from protocol.lifecycle import PodState


class Shown(NamedTuple):
    """How a run is shown: the manifest that errors name, where a person answers, and how much of it."""

    manifest: Path | None
    stdin: TextIO
    as_json: bool
    loudness: Loudness
    structured: bool = False


@click.command
@click.argument("task")
@click.option(
    "-c", "--continue", "goes_on", is_flag=True, help="Give the task to the last session of this folder."
)
@of_a_pod()
@files
@images
@schema
@loudness
def run(
    task: str,
    *,
    goes_on: bool,
    given: Given,
    files: tuple[str, ...],
    images: tuple[ImagePart, ...],
    answer: Any,
    loudness: Loudness,
    as_json: bool,
) -> None:
    """Run TASK with a new pod, and print its answer (- reads the task from standard input).

    The answer goes to standard output, progress to standard error. Ctrl-C,
    SIGTERM and closing the terminal pause the run, and the command that
    continues it is printed.
    """
    stdin = private_stdin()
    text = stdin.read().removeprefix("\ufeff") if task == "-" else task  # Windows writes it ahead of texts
    if not text.strip():
        raise click.UsageError("the task is empty")
    if task == "-" and STDIN in files:
        raise click.UsageError("standard input can be the task or a file (--file -), not both")
    structured, with_it = answer is not None, (*attached(files, stdin), *images)
    content: Content = (text, *with_it) if with_it else text
    _follow(
        lambda: plan_again(given, None) if goes_on else new_plan(given),
        lambda pod: pod.run(content, output=answer),
        Shown(given.manifest, stdin, as_json=as_json, loudness=loudness, structured=structured),
    )


@click.command
@click.argument("session", shell_complete=complete_sessions)
@click.argument("words", required=False)
@of_a_pod(is_new=False)
@loudness
def resume(session: str, words: str | None, *, given: Given, loudness: Loudness, as_json: bool) -> None:
    """Continue SESSION (an id, the beginning of it or of its last group, or last).

    WORDS are the task of a new run. Without them, the run that was interrupted by a
    crash or a pause continues where it stopped. The session keeps the model, the scope
    and the tools that it was opened with, unless an option says otherwise.
    """
    stdin = private_stdin()
    start: Start = Pod.resume if words is None else lambda pod: pod.run(words)
    _follow(lambda: plan_again(given, session), start, Shown(None, stdin, as_json=as_json, loudness=loudness))


def _follow(make_plan: Callable[[], tuple[Plan, list[str]]], start: Start, shown: Shown) -> None:
    """Follow the run that ``start`` begins in the pod of a plan; what goes wrong is shown too."""
    terminal = Terminal()
    view = view_of(terminal, as_json=shown.as_json, loudness=shown.loudness, structured=shown.structured)
    with show_failures(view), name_in_errors(shown.manifest):
        plan, notes = make_plan()
        for note in notes:
            view.note(note)
        answering = partial(
            approver, manifest=plan.manifest, terminal=terminal, stdin=shown.stdin, as_json=shown.as_json
        )
        run_interruptible(_run(plan, terminal, view, answering, start))


async def _run(
    plan: Plan,
    terminal: Terminal,
    view: View,
    answering: Callable[[PodSystem], Approver],
    start: Start,
) -> None:
    async with PodSystem(store=plan.store, memory=memory_folder()) as system:
        pod = await plan.spawn(system, view)
        session_id = short_id((await pod.describe()).session_id)
        go_on = f"polypod resume {session_id}{store_option(plan.store)}"
        if start is Pod.resume and not await _is_paused(pod):
            start = _let_sub_agents_go_on
        try:
            way_on = f"interrupted; continue with: {go_on}"
            async with resumable(lambda: way_on, terminal), pausing_sub_agents(pod, terminal, go_on):
                with pod.subscribe(MEMORY_FAILURES) as failures:
                    done = await follow_until_signal(system, pod, start, view, terminal, answering(system))
                    await finish_memory_jobs(pod, view, terminal, failures)
        finally:
            terminal.idle()
    if CODES[done.result.outcome]:
        raise Exit(CODES[done.result.outcome])
    if done.refused is not None:
        terminal.note(f"polypod: {done.refused}", "error")
        terminal.note("  hint: allow more with --allow DIR, or [[scope.allow]] in a manifest", "note")
        raise Exit(FAILED)


async def _is_paused(pod: Pod) -> bool:
    """Whether the session's last run is paused; else its sub-agents may be. Raises UsageError where nothing
    was interrupted: then only new words can continue it.
    """
    described = await pod.describe()
    if described.state is not PodState.PAUSED and not described.sub_agents:
        raise click.UsageError(
            f"the last run of session {described.session_id} ended: say what to do next, as in "
            f'polypod resume {described.session_id} "…"'
        )
    return described.state is PodState.PAUSED


def _let_sub_agents_go_on(_: Pod) -> None:
    """Start no run: who waits for sub-agents has them go on."""
