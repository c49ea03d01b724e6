"""Follows one run of a pod at the terminal: shows its events, pauses or cancels it at Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from actors.cli.approvals.approver import Approver
from actors.cli.config import store_option
from actors.cli.display.event_format import event_line
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View
from actors.cli.errors import Exit
from actors.cli.interrupts import Interrupted, cancel_on_signal, catching, farewell
from actors.pod.handle import Pod
from actors.runtime.future import AsyncFuture
from actors.runtime.subscription import Subscription
from actors.sessions.head import short_id
from actors.system import PodSystem
from actors.tools.scope import REFUSED
from protocol.errors import RunFailed
from protocol.events import (
    Alert,
    ApprovalRequested,
    ApprovalResolved,
    ConsolidateFailed,
    ExtractFailed,
    ToolResulted,
)
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.results import RunResult

#: How long a command waits for memory jobs before it leaves, in seconds.
MEMORY_PATIENCE = 60.0
#: The events that report that memory is not kept.
MEMORY_FAILURES = (ExtractFailed, ConsolidateFailed, Alert)


class Plan(NamedTuple):
    """The pod that a command wants: its manifest, the store, and the session to go on with, if any."""

    manifest: PodManifest
    store: str
    session: str | None = None

    async def spawn(self, system: PodSystem, view: View) -> Pod:
        """That pod, in a system whose store is the plan's; ``view`` shows what it warns of as it starts."""
        with system.subscribe_encoded() as events:
            pod = await system.spawn(self.manifest, resume=self.session)
            for encoded in events.drain():
                if isinstance(encoded.event, Alert):
                    view.show_encoded(encoded)
        return pod


class Followed(NamedTuple):
    """How a run ended, and the result of its last tool call, None if it made none."""

    result: RunResult
    last_call: ToolResult | None

    @property
    def refused(self) -> str | None:
        """The words of the scope where it refused the last thing that the run tried to do."""
        last = self.last_call
        return last.text if last is not None and last.is_error and last.text.startswith(REFUSED) else None


async def follow_run(
    system: PodSystem,
    pod: Pod,
    start: Callable[[], AsyncFuture[RunResult]],
    view: View,
    approver: Approver,
) -> Followed:
    """Start a run of ``pod`` and show its events to the end, while ``approver`` answers for all calls of the
    system that wait for approval. Raises what the run raises.
    """
    last_call: ToolResult | None = None
    session_id = (await pod.describe()).session_id
    async with _finishing(approver), system.subscribe_encoded() as events:
        result = start()
        result.when_done(events.close)  # all events of a run are queued before its result is there
        for request in await system.approvals():
            await approver.ask(request)
        async for encoded in events:
            event = encoded.event
            asked = isinstance(event, ApprovalRequested)
            if event.pod == pod.name and not (asked and approver.shows):
                session_id = event.session_id or session_id
                last_call = event.item if isinstance(event, ToolResulted) else last_call
                view.show_encoded(encoded)
            if isinstance(event, ApprovalRequested):
                await approver.ask(event)
            elif isinstance(event, ApprovalResolved):
                approver.drop(event)
    try:
        ended = await result
    except RunFailed as error:
        view.show_failure(error.failure, error.run_id, session_id)
        raise
    view.show_end(ended)
    return Followed(ended, last_call)


@asynccontextmanager
async def _finishing(approver: Approver) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await approver.finish()


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
    system: PodSystem,
    pod: Pod,
    start: Callable[[], AsyncFuture[RunResult]],
    view: View,
    terminal: Terminal,
    approver: Approver,
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
        approver.leave()
        terminal.note(f"{'pausing' if pauses(number) else 'cancelling'}… (once more kills)", "note")
        if pauses(number):
            paused.append(number)
        asked.append(pod.pause() if pauses(number) else pod.cancel())

    with catching(catch, leaves=pauses):
        done = await follow_run(system, pod, start, view, approver)
    if paused and (cancels or done.result.outcome == "paused"):
        raise Interrupted(paused[0])
    return done


@asynccontextmanager
async def resumable(pod: Pod, plan: Plan, terminal: Terminal, command: str) -> AsyncIterator[None]:
    """Print how to go on by ``command`` if a signal ends the body, and raise Exit then."""
    session_id = short_id((await pod.describe()).session_id)
    way_on = f"interrupted; this goes on with it: polypod {command} {session_id}{store_option(plan.store)}"
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
