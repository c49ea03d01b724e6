"""Running: one run of a pod, shown as it goes on, under the hand of a person who may press Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from actors.cli.lines import event_line
from actors.cli.terminal import Terminal
from actors.cli.views import View
from actors.pod.handle import Pod
from actors.runtime.bus import Subscription
from actors.runtime.future import AsyncFuture
from actors.system import PodSystem
from actors.tools.scope import REFUSED
from protocol.errors import RunFailed
from protocol.events import Alert, ConsolidateFailed, ExtractFailed, ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.results import RunResult

#: How long a command waits for memory jobs before it leaves, in seconds.
MEMORY_PATIENCE = 60.0
#: What tells a person that memory is not kept.
MEMORY_FAILURES = (ExtractFailed, ConsolidateFailed, Alert)


class Plan(NamedTuple):
    """The pod that a command wants: its manifest, the store, and the session to go on with, if any."""

    manifest: PodManifest
    store: str
    session: str | None = None

    def pod(self, system: PodSystem) -> AsyncFuture[Pod]:
        """That pod, in a system whose store is the plan's."""
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


async def followed(pod: Pod, start: Callable[[], AsyncFuture[RunResult]], view: View) -> Followed:
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
    try:
        ended = await result
    except RunFailed as error:
        view.failed(error.failure, error.run_id, session_id)
        raise
    view.ended(ended)
    return Followed(ended, last_call)


async def remembered(pod: Pod, terminal: Terminal, failures: Subscription) -> None:
    """Let the memory jobs that a run left come to their end, for a while (a stop waits less long), and tell
    what ``failures``, a subscription to MEMORY_FAILURES, has heard.
    """
    if not await pod.wait_for_memory_jobs(timeout=0):
        terminal.busy("keeping what matters in memory…")
        await pod.wait_for_memory_jobs(timeout=MEMORY_PATIENCE)
        terminal.idle()
    for line in dict.fromkeys(event_line(event, terminal.width) for event in failures.drain()):
        terminal.say(line)


@contextmanager
def interruptible(pod: Pod, terminal: Terminal) -> Iterator[None]:
    """The first Ctrl-C cancels the pod's run, the second kills the process."""
    loop = asyncio.get_running_loop()
    pressed: list[AsyncFuture[None]] = []

    def press() -> None:
        if pressed:
            terminal.idle()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        terminal.note("cancelling… (Ctrl-C again kills)", "note")
        pressed.append(pod.cancel())

    with suppress(NotImplementedError):  # a loop that cannot: Ctrl-C then ends the command at once
        loop.add_signal_handler(signal.SIGINT, press)
        loop.add_signal_handler(signal.SIGTERM, press)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)
