"""``runner_func``: an async function as a runner, for programs and tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from actors.runtime.arguments import text_of
from actors.swarm.runners.base import Answer, Host, Launch, Permission, Runner, RunnerFunction
from actors.swarm.runners.stream import EventStream, Recorder
from protocol.errors import AgentBusy, AgentNotRunning, Failure, InvalidInput
from protocol.events import (
    AgentIdle,
    AgentStopped,
    AgentStopReason,
    AssistantMessage,
    Event,
    RunOutcome,
)
from protocol.foreign import shown
from protocol.items import AssistantItem
from protocol.usage import Usage

E = TypeVar("E", bound=Event)


def runner_func(
    function: RunnerFunction, *, name: str | None = None, joins: bool = True, session: str | None = None
) -> Runner:
    """A runner whose agents are ``await function(agent)``, with an ``AgentContext``.

    What the function returns is the last answer, what it raises is why the task failed, and its end is the
    agent's. It may continue with ``await agent.receive()``. ``session`` is the name by which its agents can
    be resumed; unless it ``joins``, they accept no words while they work.
    """
    if not callable(function):
        raise InvalidInput(f"function: expected an async function of an AgentContext, got {shown(function)}")
    name = name or getattr(function, "__name__", "") or type(function).__name__
    return _FunctionRunner(function, name, joins=joins, session=session)


class AgentContext:
    """What the function of an agent works with."""

    def __init__(self, life: _FunctionLife, launch: Launch, host: Host) -> None:
        self.launch = launch
        self._life = life
        self._host = host

    @property
    def task(self) -> str | None:
        """The task that it was started with; None if it was resumed and is to wait."""
        return self.launch.task

    async def emit(self, kind: type[E], **fields: Any) -> E:
        """Publish an event of the agent; returns it once it is recorded."""
        event = self._life.recorder.make(kind, **fields)
        await self._life.stream.put_recorded(event)
        return event

    def publish(self, kind: type[Event], **fields: Any) -> None:
        """Publish an event of the agent without waiting until it is recorded, such as a piece of text."""
        self._life.stream.put(self._life.recorder.make(kind, **fields))

    def end(self, outcome: RunOutcome, **end: Any) -> None:
        """End the current task with this outcome, as of ``RunEnd``; the function should then return, or raise
        the reason.
        """
        self._life.stream.put(*self._life.recorder.end_run(outcome=outcome, **end))

    async def say(self, text: str, *, usage: Usage | None = None, cost: float | None = None) -> None:
        """Publish an answer."""
        await self.emit(AssistantMessage, item=AssistantItem.of(text), usage=usage, cost=cost)

    async def ask(self, permission: Permission) -> Answer:
        """Ask a person."""
        return await self._host.ask(permission)

    async def receive(self, last: str | None = None, **end: Any) -> str:
        """End the current task, with a last answer and the fields of ``RunEnd``, and wait for the next."""
        return await self._life.receive(last, **{"outcome": "finished", **end})

    def joined(self) -> list[str]:
        """What was sent since the task began, or since the last call of this."""
        return self._life.take_joined()


class _FunctionRunner:
    one_shot = False

    def __init__(self, function: RunnerFunction, name: str, *, joins: bool, session: str | None) -> None:
        self.name = name
        self._function = function
        self._joins = joins
        self._session = session

    def start(self, launch: Launch, host: Host, /) -> _FunctionLife:
        """Have the function begin in a task of its own."""
        return _FunctionLife(self.name, self._function, launch, host, self._session, joins=self._joins)


class _FunctionLife:
    """A function at work."""

    pid = None

    def __init__(
        self,
        name: str,
        function: RunnerFunction,
        launch: Launch,
        host: Host,
        session: str | None,
        *,
        joins: bool,
    ) -> None:
        self.session = launch.session or session
        self.recorder = Recorder(launch.agent_id)
        self.stream = EventStream()
        self._name, self._launch, self._joins = name, launch, joins
        self._joined: deque[str] = deque()
        self._next: asyncio.Future[str] | None = None
        self._reason: AgentStopReason = "exit"
        self._task = asyncio.get_running_loop().create_task(self._run(function, host))
        self._task.add_done_callback(self._finish)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.stream

    async def __anext__(self) -> Event:
        return await anext(self.stream)

    async def send(self, text: str, /) -> None:
        """Hand words to the function."""
        if self._task.done() or self.stream.ended:
            raise AgentNotRunning(f"agent {self._launch.agent_id} has ended")
        if self.recorder.run_id is not None:
            if not self._joins:
                raise AgentBusy(f"agent {self._launch.agent_id} is working on a task")
            await self.stream.put_recorded(self.recorder.join_run(text))
            self._joined.append(text)
        elif (waiting := self._next) is None:
            raise AgentNotRunning(f"agent {self._launch.agent_id} is not running yet")
        else:
            self._next = None
            await self.stream.put_recorded(*self.recorder.begin_run(text))
            if waiting.done():
                raise AgentNotRunning(f"agent {self._launch.agent_id} has ended")
            waiting.set_result(text)

    async def cancel(self) -> None:
        """Cancel the function, if a task goes on; one that takes that may go on with the next."""
        if self.recorder.run_id is not None and not self._task.done():
            self._reason = "cancelled"
            self._task.cancel()

    async def stop(self) -> None:
        """Cancel the function and wait for its end."""
        self._reason = "shutdown"
        self.stream.wait_no_more()
        self._task.cancel()
        await asyncio.wait({self._task})

    def _finish(self, task: asyncio.Task[str | None]) -> None:
        """Publish how it ended."""
        reason, error = self._reason, None if task.cancelled() else task.exception()
        failure = None if error is None else Failure.of(error)
        if task.cancelled():
            reason = "killed" if reason == "exit" else reason
            self.stream.put(*self.recorder.end_run(outcome="cancelled"))
        elif failure is not None:
            reason = "exit"
            self.stream.put(*self.recorder.end_run(outcome="failed", error=failure))
        else:
            reason = "exit"
            if (text := task.result()) is not None:
                self._say(text)
            self.stream.put(*self.recorder.end_run(outcome="finished"))
        code = None if reason != "exit" else int(failure is not None)
        self.stream.put(self.recorder.make(AgentStopped, reason=reason, code=code, error=failure))

    async def _run(self, function: RunnerFunction, host: Host) -> str | None:
        launch = self._launch
        await self.stream.put_recorded(self.recorder.make_started(self._name, launch, session=self.session))
        if launch.task is not None:
            await self.stream.put_recorded(*self.recorder.begin_run(launch.task))
        answer = await function(AgentContext(self, launch, host))
        return None if answer is None else text_of("the answer of the agent's function", answer)

    def _say(self, text: str) -> None:
        if self.recorder.run_id is not None:
            self.stream.put(self.recorder.make(AssistantMessage, item=AssistantItem.of(text)))

    async def receive(self, last: str | None, **end: Any) -> str:
        """Wait for the next task, idle meanwhile."""
        if last is not None:
            self._say(last)
        self._reason = "exit"
        self.stream.put(*self.recorder.end_run(**end))
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._next = waiting
        try:
            await self.stream.put_all([self.recorder.make(AgentIdle)])
            return await waiting
        finally:
            self._next = None

    def take_joined(self) -> list[str]:
        """What joined the task, once."""
        joined, self._joined = list(self._joined), deque()
        return joined
