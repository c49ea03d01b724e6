"""``AgentJournal``: records what happens to an agent: in its session first, then in its state and files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from actors.swarm.agents.changes import Changes
from actors.swarm.agents.history import read_history
from actors.swarm.agents.home import Home
from actors.swarm.agents.projections import Projections
from actors.swarm.agents.record import Record, unplaced
from actors.swarm.agents.state import AgentState, after
from protocol.entries import Entry, OtherEntry
from protocol.errors import Failure, PolypodError, SessionError
from protocol.events import AgentStopped, DurableEvent, Event, RunEnd, RunOutcome

#: Seconds after which a record is given to a store again that refused it, and how often that is done.
_RETRY_WAIT, _RETRIES = 0.05, 6


class AgentJournal:
    """Records what happens to one agent while this process holds its session, and takes over what its pod has
    published itself.
    """

    def __init__(
        self, home: Home, agent_id: str, session_id: str, projections: Projections, changes: Changes
    ) -> None:
        self.session_id, self.projections = session_id, projections
        #: How the agent stands, by all that was recorded.
        self.state = AgentState()
        #: Why what is recorded cannot be read; None where it can.
        self.damage: PolypodError | None = None
        self._home = home
        self._agent_id = agent_id
        self._changes = changes
        #: What writes the session; None while another process may have it.
        self._record: Record | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this process has the session."""
        return self._record is not None

    @property
    def open_run(self) -> str | None:
        """The run that has begun and not ended; the session must be ours."""
        assert self._record is not None
        return self._record.open_run

    # -- its session -------------------------------------------------------------------------------

    def begin(self, record: Record) -> None:
        """Record in a session that was made for the agent."""
        self._record = record

    async def claim(self) -> None:
        """Claim the session, to record in it. Raises SessionError."""
        if self._record is None:
            record = Record(self._home.store, self._agent_id, self._home.bus.publish)
            await record.claim(self.session_id)
            self._record = record

    async def release(self) -> None:
        """Let another process have the session."""
        if self._record is not None:
            record, self._record = self._record, None
            await record.release()

    # -- what happens ------------------------------------------------------------------------------

    async def add(self, *events: DurableEvent) -> None:
        """Record events, and apply them. Raises SessionError if the store keeps refusing them."""
        assert self._record is not None
        wait = _RETRY_WAIT
        for attempt in range(_RETRIES):
            try:
                recorded = await self._record.add(events)
            except SessionError:
                if attempt == _RETRIES - 1:
                    raise
                await asyncio.sleep(wait)
                wait *= 2
            else:
                self.follow(*recorded)
                return

    async def add_once(self, kind: type[DurableEvent], **fields: Any) -> None:
        """Record an event of ``kind`` if the store takes it at once. Raises SessionError."""
        assert self._record is not None
        self.follow(*await self._record.add([unplaced(kind, **fields)]))

    async def close_open_run(self, outcome: RunOutcome, error: Failure | None) -> None:
        """Record the end of a run that has none, since the agent has ended. Raises SessionError."""
        if (run_id := self.open_run) is not None:
            await self.add(unplaced(RunEnd, run_id, outcome=outcome, error=error))

    def publish(self, event: Event) -> None:
        """Publish a transient event of the agent, also where it has ended and released its session."""
        if self._record is not None:
            self.follow(self._record.publish(event))
        else:
            placed = replace(event, pod=self._agent_id, session_id=self.session_id, seq=self.state.seq)
            self._home.bus.publish((placed,))
            self.follow(placed)

    def follow(self, *events: Event) -> None:
        """Apply events that are already published, and write them to the files."""
        for event in events:
            self.state = after(self.state, event, self._agent_id)
        self.projections.write(*events)
        self._changes.note()

    def stand_behind(self, event: Event) -> None:
        """Apply an event that the store does not accept to the agent's state."""
        self.state = after(self.state, event, self._agent_id)
        self._changes.note()

    # -- what is there -----------------------------------------------------------------------------

    def take_history(self, entries: Iterable[Event | Entry | OtherEntry]) -> None:
        """Apply what is recorded."""
        state = AgentState()
        for entry in entries:
            state = after(state, entry, self._agent_id)
        self.state, self.damage = state, None
        self._changes.note()

    def note_damage(self, error: PolypodError) -> None:
        """Mark the agent as failed, so that it can be removed: its record cannot be read."""
        end = replace(unplaced(AgentStopped, reason="exit", error=Failure.of(error)), pod=self._agent_id)
        self.state, self.damage = after(AgentState(), end, self._agent_id), error
        self._changes.note()

    async def mend_projections(self) -> None:
        """Rebuild the files from what is recorded."""
        with contextlib.suppress(SessionError):
            history = await read_history(self._home.store, self.session_id, self._agent_id)
            self.projections.rebuild(each for each in history if isinstance(each, Event))
