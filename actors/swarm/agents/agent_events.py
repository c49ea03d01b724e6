"""``AgentEvents``: everything that happens to an agent, from its beginning, as one iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from actors.runtime.closing import Closing
from actors.swarm.agents.history import read_history
from protocol.events import DurableEvent, Event, Lagged

if TYPE_CHECKING:
    from actors.runtime.events.subscription import Subscription
    from actors.swarm.agents.home import Home
    from actors.swarm.agents.keeper import Keeper


class AgentEvents(Closing):
    """The events of one agent, and of the pod that it is: what was recorded before, then what follows.

    It ends once the agent has ended, or is removed; a new iterator then continues with later lives. A slow
    reader gets a ``Lagged``, followed by the durable part of what it missed.
    """

    def __init__(self, home: Home, keeper: Keeper, since: int) -> None:
        self._home, self._keeper = home, keeper
        self._live: Subscription | None = self._subscribe()
        self._past: deque[Event] | None = None
        #: The numbers up to which the events of each session's pod were given.
        self._given: dict[str, int] = {keeper.spec.id: since}

    def _subscribe(self) -> Subscription:
        return self._home.bus.subscribe(self._keeper.spec.id, children=True)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._past is None:
            self._past = await self._read()
        while True:
            if self._past:
                return self._give(self._past.popleft())
            event = await self._next_live()
            if isinstance(event, Lagged):
                self._past = await self._read()
                return event
            if not event.durable or event.seq > self._given.get(event.pod, 0):
                return self._give(event)

    async def _next_live(self) -> Event:
        """The next published event. Raises StopAsyncIteration once there will be none."""
        if self._live is None or self._is_at_its_end():
            await self.aclose()
            raise StopAsyncIteration
        return await anext(self._live)

    def _is_at_its_end(self) -> bool:
        keeper = self._keeper
        if keeper.removed:
            return True
        return not keeper.is_ours and self._given[keeper.spec.id] >= keeper.state.seq

    def _give(self, event: Event) -> Event:
        if event.durable:
            self._given[event.pod] = event.seq
        return event

    async def _read(self) -> deque[Event]:
        """What is recorded and was not returned yet. Raises SessionError."""
        keeper = self._keeper
        if keeper.removed:
            return deque()
        recorded = await read_history(self._home.store, keeper.journal.session_id, keeper.spec.id)
        return deque(
            each
            for each in recorded
            if isinstance(each, DurableEvent) and each.seq > self._given.get(each.pod, 0)
        )

    async def recorded(self) -> list[Event]:
        """Everything recorded so far, and nothing that follows. Raises SessionError."""
        try:
            return list(await self._read())
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End it."""
        if self._live is not None:
            self._live.close()
            self._live = None
