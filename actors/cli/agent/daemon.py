"""``AgentDaemon``: one pod that does what comes to its inbox, a turn at a time, until it is asked to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from actors.cli.agent.inbox import Inbox, Message, error_line
from actors.cli.agent.output import AgentLines, LineOutput
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.errors import AgentBusy, PodStopped, PolypodError, RunFailed
from protocol.events import AgentStopReason, PodFailed
from protocol.items import parts_of
from protocol.results import RunResult

#: Seconds between two looks whether the inbox's path still leads here.
_LOOK = 1.0
#: Commands that begin a turn; the others are answered whenever they come.
_BEGIN_RUNS = (commands.Run, commands.Resume)

Answer = Callable[[dict[str, Any]], None]


class AgentDaemon:
    """Serves one pod. ``run`` returns why it has ended."""

    def __init__(self, output: LineOutput, idle_seconds: float | None) -> None:
        self._output = output
        self._idle_seconds = idle_seconds
        self._pod: Pod | None = None
        self._inbox: Inbox | None = None
        #: What came before the pod was there.
        self._early: list[tuple[Message, Answer]] = []
        self._turn: AsyncFuture[RunResult] | None = None
        self._ended: asyncio.Future[AgentStopReason] = asyncio.get_running_loop().create_future()
        self._idle: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._lines = AgentLines()
        self._printing: asyncio.Task[None] | None = None
        #: What ended the pod, where a defect did.
        self.failure: str | None = None

    def end(self, reason: AgentStopReason) -> None:
        """Come to the end for that reason; of two, the first counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    def complain(self, error: BaseException) -> None:
        """Say what went wrong, in a line; the agent goes on."""
        self._output.put(**error_line(error))

    async def run(
        self, pod: Pod, inbox: Inbox, events: Subscription, ready: dict[str, Any], task: str | None
    ) -> AgentStopReason:
        """Serve ``pod`` from the line that says so to its end; ``task`` is what it begins with."""
        self._pod, self._inbox = pod, inbox
        self._output.put("agent_ready", **ready)
        self._printing = asyncio.create_task(self._print_events(events))
        self._look_after_inbox()
        self._wait_idle()
        try:
            if task is not None:
                self.take(Message("user", task), lambda _: None)
            early, self._early = self._early, []
            for message, answer in early:
                self.take(message, answer)
            return await self._ended
        finally:
            self._stop_idle()
            if self._look is not None:
                self._look.cancel()

    async def finish(self) -> None:
        """Print what the pod still says, which has stopped."""
        self._output.take_all()
        if self._printing is not None:
            await self._printing
        turn = self._turn
        if turn is not None and turn.done() and turn.exception() is None and turn.get().outcome == "paused":
            self._output.put("turn_end", step=self._lines.step, outcome="paused", error=None)

    # -- messages ------------------------------------------------------------------------------------

    def take(self, message: Message, answer: Answer) -> None:
        """Do what a line of the inbox asks for."""
        pod = self._pod
        if message.kind == "shutdown":
            self.end("shutdown")
            answer({"type": "ok"})
        elif pod is None:
            self._early.append((message, answer))
        elif message.kind == "cancel":
            self._answer_with(pod.cancel(), answer)
        elif message.kind == "user":
            self._begin(commands.Run(parts_of(message.text)), answer)
        elif isinstance(command := message.command, _BEGIN_RUNS):
            self._begin(command, answer)
        elif isinstance(command, commands.Stop):
            self.end("shutdown")
            answer({"type": "ok"})
        elif command is not None:
            self._answer_with(pod.address.ask(pod, command), answer)

    def _begin(self, command: commands.Command, answer: Answer) -> None:
        """Begin a turn, unless one goes on."""
        assert self._pod is not None
        if self._turn is not None and not self._turn.done():
            error = AgentBusy("agent busy", hint="send 'cancel' first")
            self.complain(error)
            answer(error_line(error))
            return
        self._stop_idle()
        self._turn = turn = self._pod.address.ask(self._pod, command)
        answer({"type": "ok"})
        turn.when_done(self._turn_over)

    def _turn_over(self) -> None:
        turn = self._turn
        error = None if turn is None else turn.exception()
        if isinstance(error, PolypodError) and not isinstance(error, PodStopped | RunFailed):
            self.complain(error)
        self._wait_idle()

    def _answer_with(self, future: AsyncFuture[Any], answer: Answer) -> None:
        def resolve() -> None:
            error = future.exception()
            if error is not None:
                self.complain(error)
                answer(error_line(error))
                return
            value = future.get()
            answer({"type": "ok"} if value is None else {"type": "ok", "value": value})

        future.when_done(resolve)

    # -- events --------------------------------------------------------------------------------------

    async def _print_events(self, events: Subscription) -> None:
        async for event in events:
            await self._output.put_all(self._lines.of(event))
            if isinstance(event, PodFailed) and not event.restarts:
                self.failure = str(event.error)
                self.end("exit")

    # -- its end -------------------------------------------------------------------------------------

    def _wait_idle(self) -> None:
        self._stop_idle()
        if self._idle_seconds is not None and not self._ended.done():
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._idle_seconds, self.end, "idle")

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _look_after_inbox(self) -> None:
        """Come to the end where nobody can say anything any more; a turn that goes on is finished first."""
        assert self._inbox is not None
        works = self._turn is not None and not self._turn.done()
        if self._inbox.is_there() or works:
            self._look = asyncio.get_running_loop().call_later(_LOOK, self._look_after_inbox)
        else:
            self.end("inbox_closed")
