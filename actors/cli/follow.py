"""Follows one run of a pod at the terminal: shows its events, pauses or cancels it at Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from actors.cli.approvals.approver import Approver
from actors.cli.display.event_format import event_line
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View
from actors.cli.errors import Exit
from actors.cli.interrupts import Interrupted, cancel_on_signal, catching, farewell
from actors.pod.handle import Pod
from actors.runtime.events.encoded import EncodedEvent
from actors.runtime.events.subscription import Subscription
from actors.runtime.future import AsyncFuture
from actors.system import PodSystem
from actors.tools.scope import REFUSED
from protocol.error_of import error_of
from protocol.errors import PodError, PolypodError, RunFailed
from protocol.events import (
    Alert,
    ApprovalRequested,
    ApprovalResolved,
    AssistantMessage,
    ConsolidateFailed,
    Event,
    ExtractFailed,
    RunEnd,
    RunStart,
    ToolResulted,
)
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.results import RunResult
from protocol.usage import Usage

#: Starts a run, or, where None, has sub-agents alone go on.
Start = Callable[[Pod], AsyncFuture[RunResult] | None]
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
        """Start the planned pod in a system with the plan's store; ``view`` shows what it warns of as it
        starts.
        """
        with system.subscribe_encoded() as events:
            pod = await system.spawn(self.manifest, resume=self.session)
            for encoded in events.drain():
                if isinstance(encoded.event, Alert):
                    view.show_encoded(encoded)
                    view.shown.add((encoded.event.session_id, encoded.seq))
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


class Leave:
    """What ends the wait for sub-agents early: the command is to leave."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._pauses = False

    def ask(self, *, pauses: bool) -> None:
        """Wait no longer; with ``pauses`` what goes on is about to be paused."""
        self._pauses = pauses
        self._asked.set()

    async def pauses_before(self, ended: AsyncFuture[bool]) -> bool:
        """Wait for that, or until it was asked to leave; gives whether it is paused before its end. Raises
        what that raises.
        """
        asked = asyncio.ensure_future(self._asked.wait())
        waiting = asyncio.ensure_future(ended)
        await asyncio.wait({asked, waiting}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        left = not waiting.done()
        waiting.cancel()
        if not left:
            waiting.result()
        return left and self._pauses


async def follow_run(
    system: PodSystem,
    pod: Pod,
    start: Start,
    view: View,
    approver: Approver,
    leave: Leave | None = None,
) -> Followed:
    """Start a run of ``pod`` and show its events to the end, while ``approver`` answers for all calls of the
    system that wait for approval. Sub-agents that are at work then are waited for too, and the run in which
    the pod gets to know of their ends is the one that counts. Raises what the last run raises.
    """
    session_id = (await pod.describe()).session_id
    shown = _Shown(pod, view, session_id)
    async with _finishing(approver), system.subscribe_encoded() as events:
        result = start(pod)
        end = asyncio.ensure_future(_end_of_all(pod, result, leave or Leave()))
        end.add_done_callback(lambda _: events.close())  # all events of a run are queued before its result
        for request in await system.approvals():
            await approver.ask(request)
        async for encoded in events:
            event = encoded.event
            if not (isinstance(event, ApprovalRequested) and approver.shows):
                shown.show(encoded)
            if isinstance(event, ApprovalRequested):
                await approver.ask(event)
            elif isinstance(event, ApprovalResolved):
                approver.drop(event)
    try:
        first, paused = await end
        ended = shown.last_result(first)
    except RunFailed as error:
        view.show_failure(error.failure, error.run_id, shown.session_id)
        raise
    if paused and ended.outcome == "finished":
        ended = replace(ended, outcome="paused")
    view.show_end(ended)
    return Followed(ended, shown.last_call)


async def _end_of_all(
    pod: Pod, result: AsyncFuture[RunResult] | None, leave: Leave
) -> tuple[RunResult | None, bool]:
    """The result of a run, once its sub-agents have ended too, and whether they were to be paused before."""
    ended = None if result is None else await result
    if ended is not None and ended.outcome in {"paused", "cancelled"}:
        return ended, False
    return ended, await leave.pauses_before(pod.wait_for_sub_agents())


class _Shown:
    """What was shown of a pod and its sub-agents, and how its last run went."""

    def __init__(self, pod: Pod, view: View, session_id: str) -> None:
        self._pod = pod
        self._view = view
        self.session_id = session_id
        self.last_call: ToolResult | None = None
        self._answer = ""
        #: What the last run has cost so far; None where nobody knows.
        self._cost: float | None = None
        self._end: RunEnd | None = None

    def show(self, encoded: EncodedEvent) -> None:
        """Show the next event of the system, where it is the pod's or of one below it."""
        event = encoded.event
        if event.pod == self._pod.name:
            self._note(event)
            self._view.show_encoded(encoded)
        elif event.pod.startswith(f"{self._pod.name}."):
            self._view.show_sub_agent(encoded, event.pod.removeprefix(f"{self._pod.name}."))
        else:
            return
        if isinstance(event, MEMORY_FAILURES):
            self._view.shown.add((event.session_id, event.seq))

    def _note(self, event: Event) -> None:
        self.session_id = event.session_id or self.session_id
        if isinstance(event, RunStart):
            self.last_call, self._answer, self._cost, self._end = None, "", None, None
        elif isinstance(event, ToolResulted):
            self.last_call = event.item
        elif isinstance(event, AssistantMessage):
            self._answer = event.item.text
        elif isinstance(event, RunEnd):
            self._end = event
        if event.counts_usage and event.run_id is not None:
            cost: float | None = event.cost  # type: ignore[attr-defined]
            self._cost = self._cost if cost is None else (self._cost or 0.0) + cost

    def last_result(self, first: RunResult | None) -> RunResult:
        """The result of the last run that has ended; ``first`` is that of the one that was started. Raises
        RunFailed.
        """
        end = self._end
        if end is None or (first is not None and end.run_id == first.run_id):
            return first or RunResult("", "finished", Usage(), "", self.session_id)
        if end.outcome == "failed":
            cause = PodError("the run failed") if end.error is None else error_of(end.error)
            raise RunFailed(cause, run_id=end.run_id)
        return RunResult(
            self._answer,
            end.outcome,
            end.usage,
            end.run_id or "",
            end.session_id,
            cost=self._cost,
            steps=end.steps,
            seconds=end.seconds or 0.0,
            limit=end.error,
        )


@asynccontextmanager
async def _finishing(approver: Approver) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await approver.finish()


async def finish_memory_jobs(pod: Pod, view: View, terminal: Terminal, failures: Subscription) -> None:
    """Wait at most MEMORY_PATIENCE for the memory jobs that a run has started, and print their failures that
    ``view`` has not shown.

    ``failures`` is a subscription to MEMORY_FAILURES. A stop of the system waits less long.
    """
    if not await pod.wait_for_memory_jobs(timeout=0):
        terminal.busy("saving to memory…")
        await pod.wait_for_memory_jobs(timeout=MEMORY_PATIENCE)
        terminal.idle()
    left = (each for each in failures.drain() if (each.session_id, each.seq) not in view.shown)
    for line in dict.fromkeys(event_line(event, terminal.width) for event in left):
        terminal.say(line)


async def follow_until_signal(
    system: PodSystem,
    pod: Pod,
    start: Start,
    view: View,
    terminal: Terminal,
    approver: Approver,
    *,
    cancels: bool = False,
) -> Followed:
    """Follow a run that the first Ctrl-C, SIGTERM or SIGHUP pauses, with its sub-agents; a second one ends
    the process.

    With ``cancels`` Ctrl-C cancels the run instead, and sub-agents are waited for no longer. Raises
    Interrupted where it was to be paused and has not ended otherwise; with ``cancels`` however it ended,
    since more runs would follow it.
    """
    leave = Leave()
    ended: Followed | None = None
    caught: list[int] = []

    def pauses(number: int) -> bool:
        return not (cancels and number == signal.SIGINT)

    def catch(number: int) -> None:
        approver.leave()
        terminal.note(f"{'pausing' if pauses(number) else 'cancelling'}… (once more to kill)", "note")
        asked = pod.pause() if pauses(number) else pod.cancel()
        asked.when_done(partial(leave.ask, pauses=pauses(number)))

    try:
        with catching(catch, leaves=pauses) as caught:
            ended = await follow_run(system, pod, start, view, approver, leave)
    except PolypodError:
        if not (cancels and caught and pauses(caught[0])):
            raise
    if caught and pauses(caught[0]) and (ended is None or cancels or ended.result.outcome == "paused"):
        raise Interrupted(caught[0])
    assert ended is not None
    return ended


@asynccontextmanager
async def resumable(way_on: Callable[[], str], terminal: Terminal) -> AsyncIterator[None]:
    """Print how to go on, the words that ``way_on`` gives then, if a signal ends the body; and raise Exit."""
    with farewell(terminal.idle, way_on):
        try:
            with cancel_on_signal():
                yield
        except Interrupted as interrupted:
            number = interrupted.number
        else:
            return
    terminal.idle()
    terminal.note(way_on(), "note")
    raise Exit(128 + number)


@asynccontextmanager
async def pausing_sub_agents(pod: Pod, terminal: Terminal, go_on: str) -> AsyncIterator[None]:
    """Pause the sub-agents that are at work when the body's run fails, and print the command that goes on
    with them.
    """
    try:
        yield
    except RunFailed:
        await _pause_sub_agents(pod, terminal, go_on)
        raise


async def _pause_sub_agents(pod: Pod, terminal: Terminal, go_on: str) -> None:
    try:
        at_work = (await pod.describe()).sub_agents
        await pod.pause()
    except PodError:  # it has ended, and they with it
        return
    if at_work:
        names = ", ".join(each.rpartition(".")[2] for each in at_work)
        terminal.idle()
        terminal.note(f"paused: {names}; continue with: {go_on}", "note")
