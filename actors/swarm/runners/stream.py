"""``Recorder`` makes the events of an agent; ``EventStream`` brings them to who records them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from actors.swarm.runners.base import Launch
from protocol.events import AgentStarted, AgentStopped, Event, RunEnd, RunStart, UserMessage
from protocol.items import UserItem

E = TypeVar("E", bound=Event)
#: Events that may wait to be read before who adds more has to wait, and that are recorded at once.
_MOST_UNREAD, _MOST_AT_ONCE = 256, 100


class Recorder:
    """Makes the events of one agent, and knows whether a run of it is open."""

    __slots__ = ("_agent_id", "_began", "last_end", "run_id")

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        #: The run that is open, and how the one before it ended.
        self.run_id: str | None = None
        self.last_end: RunEnd | None = None
        self._began = 0.0

    def make(self, kind: type[E], **fields: Any) -> E:
        """An event of the run that is open, if any."""
        return kind(self._agent_id, "", 0, time.time(), self.run_id, **fields)

    def make_started(
        self,
        runner: str,
        launch: Launch,
        *,
        session: str | None,
        model: str | None = None,
        pid: int | None = None,
    ) -> AgentStarted:
        """A life begins, as ``launch`` has it; ``model`` where it is known better."""
        return self.make(
            AgentStarted,
            runner=runner,
            task=launch.task,
            cwd=str(launch.cwd),
            model=model or launch.model,
            provider=launch.provider,
            session=session,
            pid=pid,
            resumed=launch.resuming,
        )

    def begin_run(self, text: str) -> list[Event]:
        """A run begins with the words of a user."""
        self.run_id = os.urandom(8).hex()
        self._began = time.monotonic()
        return [self.make(RunStart), self.make(UserMessage, item=UserItem.of(text))]

    def continue_run(self) -> Event:
        """A run begins with words that were recorded before."""
        return self.begin_run("")[0]

    def join_run(self, text: str) -> Event:
        """The event of a user's words that join the open run."""
        return self.make(UserMessage, item=UserItem.of(text), source="steer")

    def end_run(self, **fields: Any) -> list[Event]:
        """The run ends as ``RunEnd`` has it; nothing where none is open."""
        if self.run_id is None:
            return []
        end = self.make(RunEnd, seconds=time.monotonic() - self._began, **fields)
        self.run_id, self.last_end = None, end
        return [end]


class EventStream:
    """Events in order, with one reader. It ends behind an ``AgentStopped``, of which the first counts."""

    __slots__ = ("_events", "_patient", "_put", "_reader", "_recorded", "_taken", "_waiting", "ended")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        #: How many were added; how many the reader took; and of those how many are recorded.
        self._put = self._taken = self._recorded = 0
        self._reader: asyncio.Future[None] | None = None
        #: Who waits until so many are recorded.
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._patient = True
        #: Whether the last event was added.
        self.ended = False

    def put(self, *events: Event) -> None:
        """Add events; those behind the end are dropped."""
        for event in events:
            if self.ended:
                return
            self._events.append(event)
            self._put += 1
            if isinstance(event, AgentStopped):
                self.ended = True
                self.wait_no_more()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def put_all(self, events: Iterable[Event]) -> None:
        """Add events, and wait while too many are unread."""
        self.put(*events)
        await self._wait_for(self._put - _MOST_UNREAD)

    async def put_recorded(self, *events: Event) -> None:
        """Add events, and wait until the reader has recorded them, or nobody waits for that any more."""
        self.put(*events)
        await self._wait_for(self._put)

    def wait_no_more(self) -> None:
        """Have nobody wait for the reader from now on: the agent is to end."""
        self._patient = False
        self._release()

    async def _wait_for(self, number: int) -> None:
        if self._patient and self._recorded < number:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((number, future))
            await future

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number, future in waiting:
            if self._patient and self._recorded < number:
                self._waiting.append((number, future))
            elif not future.done():
                future.set_result(None)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; who asks for it has recorded those before."""
        self._recorded = self._taken
        if self._waiting:
            self._release()
        while not self._events:
            if self.ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._taken += 1
        return self._events.popleft()

    def take_alike(self, last: E) -> list[E]:
        """``last``, which was read last, and what is there of its kind behind it, to be recorded at once."""
        alike = [last]
        while self._events and type(self._events[0]) is type(last) and len(alike) < _MOST_AT_ONCE:
            alike.append(self._events.popleft())  # type: ignore[arg-type]
        self._taken += len(alike) - 1
        return alike
