"""Follows one run of a pod at the terminal: shows its events, pauses or cancels it at Ctrl-C."""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from actors.cli.config import default_store
from actors.cli.errors import Exit
from actors.cli.event_format import event_line
from actors.cli.interrupts import Interrupted, cancel_on_signal, catching, farewell
from actors.cli.terminal import Terminal
from actors.cli.views import View
from actors.pod.handle import Pod
from actors.runtime.future import AsyncFuture
from actors.runtime.subscription import Subscription
from actors.sessions.head import short_id
from actors.system import PodSystem
from actors.tools.scope import REFUSED
from protocol.errors import AlreadyResolved, PodStopped, RunFailed, StoreError
from protocol.events import Alert, ApprovalRequested, ConsolidateFailed, ExtractFailed, ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.results import RunResult

#: How long a command waits for memory jobs before it leaves, in seconds.
MEMORY_PATIENCE = 60.0
#: What tells a person that memory is not kept.
MEMORY_FAILURES = (ExtractFailed, ConsolidateFailed, Alert)


#: What a model is told where a call has to be asked for.
_NOBODY = "nobody can be asked here; do without it, or say what you need"


class Plan(NamedTuple):
    """The pod that a command wants: its manifest, the store, and the session to go on with, if any."""

    manifest: PodManifest
    store: str
    session: str | None = None

    def pod(self, system: PodSystem) -> AsyncFuture[Pod]:
        """Spawn that pod, in a system whose store is the plan's."""
        return system.spawn(self.manifest, resume=self.session)


class Followed(NamedTuple):
    """How a run ended, and the result of its last tool call, None if it made none."""

    result: RunResult
    last_call: ToolResult | None

    @property
    def refused(self) -> str | None:
        """The words of the scope where it refused the last thing that the run tried to do."""
        last = self.last_call
        return last.text if last is not None and last.is_error and last.text.startswith(REFUSED) else None


async def deny_open(system: PodSystem) -> None:
    """Deny what a session that goes on has asked for: nobody is asked by a command."""
    for request in await system.approvals():
        await system.deny(request.approval_id, note=_NOBODY)


async def follow_run(pod: Pod, start: Callable[[], AsyncFuture[RunResult]], view: View) -> Followed:
    """Start a run of ``pod`` and show its events to the end. Raises what the run raises."""
    last_call: ToolResult | None = None
    session_id = (await pod.describe()).session_id
    with pod.subscribe() as events:
        result = start()
        result.when_done(events.close)  # all events of a run are queued before its result is there
        async for event in events:
            session_id = event.session_id or session_id
            last_call = event.item if isinstance(event, ToolResulted) else last_call
            view.show(event)
            if isinstance(event, ApprovalRequested):
                with suppress(AlreadyResolved, PodStopped):
                    await pod.deny(event.approval_id, note=_NOBODY)
    try:
        ended = await result
    except RunFailed as error:
        view.show_failure(error.failure, error.run_id, session_id)
        raise
    view.show_end(ended)
    return Followed(ended, last_call)


async def finish_memory_jobs(pod: Pod, terminal: Terminal, failures: Subscription) -> None:
    """Wait at most MEMORY_PATIENCE for the memory jobs that a run has started, and print their failures.

    ``failures`` is a subscription to MEMORY_FAILURES. A stop of the system waits less long.
    """
    if not await pod.wait_for_memory_jobs(timeout=0):
        terminal.busy("keeping what matters in memory…")
        await pod.wait_for_memory_jobs(timeout=MEMORY_PATIENCE)
        terminal.idle()
    for line in dict.fromkeys(event_line(event, terminal.width) for event in failures.drain()):
        terminal.say(line)


async def follow_until_signal(
    pod: Pod,
    start: Callable[[], AsyncFuture[RunResult]],
    view: View,
    terminal: Terminal,
    *,
    cancels: bool = False,
) -> Followed:
    """Follow a run that the first Ctrl-C, SIGTERM or SIGHUP pauses; a second one ends the process.

    With ``cancels`` Ctrl-C cancels the run instead. Raises Interrupted where it was to be paused and has
    not ended otherwise; with ``cancels`` however it ended, since more runs would follow it.
    """
    paused: list[int] = []
    asked: list[AsyncFuture[None]] = []

    def pauses(number: int) -> bool:
        return not (cancels and number == signal.SIGINT)

    def catch(number: int) -> None:
        terminal.note(f"{'pausing' if pauses(number) else 'cancelling'}… (once more kills)", "note")
        if pauses(number):
            paused.append(number)
        asked.append(pod.pause() if pauses(number) else pod.cancel())

    with catching(catch, leaves=pauses):
        done = await follow_run(pod, start, view)
    if paused and (cancels or done.result.outcome == "paused"):
        raise Interrupted(paused[0])
    return done


@asynccontextmanager
async def resumable(pod: Pod, plan: Plan, terminal: Terminal, command: str) -> AsyncIterator[None]:
    """Print how to go on by ``command`` if a signal ends the body, and raise Exit then."""
    session_id = short_id((await pod.describe()).session_id)
    way_on = f"interrupted; this goes on with it: polypod {command} {session_id}{_where(plan.store)}"
    with farewell(terminal.idle, way_on):
        try:
            with cancel_on_signal():
                yield
        except Interrupted as interrupted:
            number = interrupted.number
        else:
            return
    terminal.idle()
    terminal.note(way_on, "note")
    raise Exit(128 + number)


def _where(store: str) -> str:
    """The option that names a store which is not the default one."""
    with suppress(StoreError):  # there is no folder for a default one
        if store == default_store():
            return ""
    return f" --store {shlex.quote(store)}"
