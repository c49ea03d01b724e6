"""``Membership``: whether an agent that failed is restarted, by its own limits or its group's."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.future import AsyncFuture
from actors.runtime.on_loop import ask_on
from actors.swarm.agents.record import unplaced
from actors.swarm.groups import Member
from protocol.errors import AgentFailed, Failure, SessionError
from protocol.events import AgentRestarted, RestartsExhausted

if TYPE_CHECKING:
    from actors.runtime.loop import Mailroom
    from actors.swarm.agents.keeper import Keeper


class Membership(Member):
    """Counts the restarts of one agent, as OTP's supervisors do. What a person stopped stays stopped."""

    def __init__(self, keeper: Keeper, room: Mailroom) -> None:
        super().__init__(keeper.spec.id, room, keeper.spec.restart, None)
        self._keeper = keeper
        self._failure: AgentFailed | None = None

    def begin_anew(self) -> None:
        """Count from zero, because a person has resumed it."""
        self._stop_asked = self.over = self._exhausted = False
        self._times = ()
        self._failure = None

    def take_restarts(self, times: Iterable[float]) -> None:
        """Count those that its supervisors before us made, at these times since the epoch; one of a time that
        is yet to come, since the clock was set back, as made now.
        """
        now, loop_now = time.time(), self.room.loop.time()
        self._times = tuple(loop_now - max(0.0, now - each) for each in times)

    def note_stop_asked(self) -> None:
        """Note that it is not to be restarted, because a person stopped it or its system is left."""
        self._stop_asked = True

    async def decide_restart(self) -> bool:
        """Decide whether to restart it now that it has ended, and record that if so."""
        keeper = self._keeper
        error = keeper.state.error or Failure("AgentFailed", "it failed")
        self._failure = None
        if keeper.state.status != "failed":
            return False
        self._failure = AgentFailed(error.message, hint=error.hint)
        if not Path(keeper.spec.cwd).is_dir():  # noqa: ASYNC240 - where it is gone no start helps
            return False
        if self.hold_back(self._failure):
            return False
        times = self._times if self.group is None else self.group.times
        try:
            await keeper.journal.add_once(AgentRestarted, restarts=len(times), error=error)
        except SessionError:
            return False
        return True

    def note_end(self) -> None:
        """Note that it has ended and will not be restarted."""
        self.over = True
        self.let_failure_go_up(self._failure)

    def shut_down(self) -> AsyncFuture[bool]:
        """End it with its task paused, and do not restart it."""
        self._stop_asked = True

        async def end() -> bool:
            await self._keeper.shut_down(leaving=True)
            return True

        return ask_on(self.room, end)

    def announce(self, error: BaseException, restarts: int, stopped: tuple[str, ...] = ()) -> None:
        """Publish that the limits are exceeded."""
        end = unplaced(RestartsExhausted, error=Failure.of(error), restarts=restarts, stopped=stopped)
        self._keeper.journal.publish(end)
