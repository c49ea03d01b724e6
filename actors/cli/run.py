"""``polypod run`` and ``polypod resume``: run a task to its end, or go on with an interrupted one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from actors.cli import options
from actors.cli.approvals.approver import Approver, approver
from actors.cli.config import (
    Wishes,
    allowing,
    default_store,
    manifest_for,
    memory_folder,
    name_in_errors,
    with_model,
)
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import JsonView, PeopleView, View, show_failures
from actors.cli.errors import CODES, FAILED, Exit
from actors.cli.interrupts import run_interruptible
from actors.cli.loading import with_tools, with_tools_again
from actors.cli.mcp_servers import with_servers, without_servers
from actors.cli.running import (
    MEMORY_FAILURES,
    Plan,
    Start,
    finish_memory_jobs,
    follow_until_signal,
    resumable,
)
from actors.cli.store_reader import Reading
from actors.cli.streams import private_stdin
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.lifecycle import PodState


@click.command(short_help="Have a new pod do a task.")
@click.argument("task")
@options.of_a_pod
def run(
    task: str,
    manifest: Path | None,
    model: str | None,
    base_url: str | None,
    name: str | None,
    allow: tuple[Path, ...],
    tools: tuple[str, ...],
    mcp_files: tuple[Path, ...],
    store: str | None,
    as_json: bool,
) -> None:
    """Have a new pod do TASK (- reads it from standard input), and print its answer.

    The answer goes to standard output, progress to standard error. Ctrl-C,
    SIGTERM and a terminal that is closed pause the run; the command that goes on
    with it is printed.
    """
    stdin = private_stdin()
    text = stdin.read().removeprefix("\ufeff") if task == "-" else task  # Windows writes it ahead of texts
    if not text.strip():
        raise click.UsageError("the task is empty")
    terminal = Terminal()
    view = view_of(terminal, as_json=as_json)
    with show_failures(view), name_in_errors(manifest):
        asked, notes = manifest_for(Wishes(manifest, name, model, base_url, allow))
        asked, tool_notes = with_tools(asked, tools)
        asked, server_notes = with_servers(asked, mcp_files)
        plan = Plan(asked, store or default_store())
        for note in (*notes, *tool_notes, *server_notes):
            view.note(note)
        answering = partial(approver, manifest=plan.manifest, terminal=terminal, stdin=stdin, as_json=as_json)
        run_interruptible(_run(plan, terminal, view, answering, lambda pod: pod.run(text)))


@click.command(short_help="Go on with an interrupted run, or say something new.")
@click.argument("session")
@click.argument("words", required=False)
@options.model_again
@options.base_url_again
@options.allow
@options.tools
@options.mcp
@options.no_tools
@options.store
@options.as_json
def resume(
    session: str,
    words: str | None,
    model: str | None,
    base_url: str | None,
    allow: tuple[Path, ...],
    tools: tuple[str, ...],
    mcp_files: tuple[Path, ...],
    no_tools: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Go on with SESSION (an id, the beginning of it or of its last group, or last).

    WORDS, if any are given, are the task of a new run. Without them the run that
    was interrupted, by a crash or a pause, goes on where it stood. The session has
    the model, the scope and the tools that it was opened with, where no option
    says otherwise.
    """
    stdin = private_stdin()
    terminal = Terminal()
    view = view_of(terminal, as_json=as_json)
    start: Start = Pod.resume if words is None else lambda pod: pod.run(words)
    with show_failures(view):
        with Reading(store) as reading:
            session_id, url = reading.find(session).session_id, reading.url
            manifest = with_model(reading.manifest(session_id), Wishes(model=model, base_url=base_url))
        manifest, tool_notes = with_tools_again(allowing(manifest, allow), tools, without=no_tools)
        manifest, server_notes = with_servers(without_servers(manifest) if no_tools else manifest, mcp_files)
        plan = Plan(manifest, url, session_id)
        for note in (*tool_notes, *server_notes):
            view.note(note)
        answering = partial(approver, manifest=plan.manifest, terminal=terminal, stdin=stdin, as_json=as_json)
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
        if start is Pod.resume and not await _is_paused(pod):
            start = _let_sub_agents_go_on
        try:
            async with resumable(pod, plan, terminal, "resume"):
                with pod.subscribe(MEMORY_FAILURES) as failures:
                    done = await follow_until_signal(system, pod, start, view, terminal, answering(system))
                    await finish_memory_jobs(pod, terminal, failures)
        finally:
            terminal.idle()
    if CODES[done.result.outcome]:
        raise Exit(CODES[done.result.outcome])
    if done.refused is not None:
        terminal.note(f"polypod: {done.refused}", "error")
        terminal.note("  hint: --allow DIR, or [[scope.allow]] in a manifest, permits more", "note")
        raise Exit(FAILED)


async def _is_paused(pod: Pod) -> bool:
    """Whether the session's last run is paused; else its sub-agents may be. Raises UsageError where nothing
    was interrupted: then only new words can continue it.
    """
    described = await pod.describe()
    if described.state is not PodState.PAUSED and not described.sub_agents:
        raise click.UsageError(
            f"the last run of session {described.session_id} has ended: "
            f'say what to do next, as in polypod resume {described.session_id} "…"'
        )
    return described.state is PodState.PAUSED


def _let_sub_agents_go_on(_: Pod) -> None:
    """Start no run: who waits for sub-agents has them go on."""


def view_of(terminal: Terminal, *, as_json: bool) -> View:
    """The view that a person or a program asked for."""
    return JsonView() if as_json else PeopleView(terminal)
