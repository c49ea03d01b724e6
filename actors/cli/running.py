"""Running: one run of a pod, shown as it goes on, under the hand of a person who may press Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

from actors.cli.config import default_store
from actors.cli.errors import Exit
from actors.cli.event_format import event_line
from actors.cli.terminal import Terminal
from actors.cli.views import View
from actors.pod.handle import Pod
from actors.runtime.bus import Subscription
from actors.runtime.future import AsyncFuture
from actors.sessions.head import short_id
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


class Interrupted(Exception):  # noqa: N818 - an end, not an error
    """A signal of that number paused the run, and the command is to leave."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


async def followed_by_hand(
    pod: Pod,
    start: Callable[[], AsyncFuture[RunResult]],
    view: View,
    terminal: Terminal,
    *,
    cancels: bool = False,
) -> Followed:
    """The same under the hand of a person: the first Ctrl-C or SIGTERM pauses the run, the second kills the
    process. With ``cancels`` Ctrl-C cancels the run instead. Raises Interrupted where the run was paused.
    """
    with _interruptible(pod, terminal, cancels=cancels) as caught:
        done = await followed(pod, start, view)
    if caught and done.result.outcome == "paused":
        raise Interrupted(caught[0])
    return done


@contextmanager
def _interruptible(pod: Pod, terminal: Terminal, *, cancels: bool) -> Iterator[list[int]]:
    caught: list[int] = []
    asked: list[AsyncFuture[None]] = []

    def catch(number: int) -> None:
        if caught:
            terminal.idle()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        caught.append(number)
        cancel = cancels and number == signal.SIGINT
        terminal.note(f"{'cancelling' if cancel else 'pausing'}… (once more kills)", "note")
        asked.append(pod.cancel() if cancel else pod.pause())

    with _catching(catch, signal.SIGINT, signal.SIGTERM):
        yield caught


#: Who catches a signal; the last one does.
_catchers: dict[int, list[Callable[[int], None]]] = {}


@contextmanager
def _catching(catch: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """Have ``catch`` called with the number of each of these signals, on the loop."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        _catchers.setdefault(number, []).append(catch)
        with suppress(NotImplementedError):  # a loop that cannot: Ctrl-C then ends the command at once
            loop.add_signal_handler(number, catch, number)
    try:
        yield
    finally:
        for number in numbers:
            _catchers[number].pop()
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
                if _catchers[number]:
                    loop.add_signal_handler(number, _catchers[number][-1], number)


@asynccontextmanager
async def resumable(pod: Pod, plan: Plan, terminal: Terminal, command: str) -> AsyncIterator[None]:
    """Where a signal ends what is done here, tell a person how to go on by ``command``; raises Exit then."""
    me = asyncio.current_task()
    assert me is not None
    caught: list[int] = []

    def catch(number: int) -> None:
        caught.append(number)
        me.cancel()

    try:
        with _catching(catch, signal.SIGTERM):
            yield
    except Interrupted as interrupted:
        number = interrupted.number
    except asyncio.CancelledError:  # the loop's own doing at Ctrl-C
        number = caught[0] if caught else signal.SIGINT
        me.uncancel()
    else:
        return
    terminal.idle()
    session_id = short_id((await pod.describe()).session_id)
    where = "" if plan.store == default_store() else f" --store {shlex.quote(plan.store)}"
    terminal.note(f"interrupted; this goes on with it: polypod {command} {session_id}{where}", "note")
    raise Exit(128 + number)
