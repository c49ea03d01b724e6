"""``Membership``: whether an agent that failed is started again, by its own limits or its group's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.restarts import Limits, count_restart
from protocol.errors import AgentFailed, Failure, SessionError
from protocol.events import AgentRestarted, RestartsExhausted

if TYPE_CHECKING:
    from actors.swarm.agents.keeper import Keeper


class Membership:
    """Counts the restarts of one agent, as OTP's supervisors do. What a person stopped stays stopped."""

    def __init__(self, keeper: Keeper, limits: Limits) -> None:
        self._keeper = keeper
        self._limits = limits
        self._times: tuple[float, ...] = ()
        #: Whether nobody starts it again: a person stopped it, or its system is left.
        self.stop_asked = False

    def begin_anew(self) -> None:
        """A person has resumed it: what was before counts no more."""
        self.stop_asked, self._times = False, ()

    async def starts_again(self) -> bool:
        """Whether it is started again now that it has ended; if so that is recorded."""
        keeper = self._keeper
        error = keeper.state.error or Failure.of(AgentFailed("it failed"))
        if self.stop_asked or keeper.state.status != "failed" or keeper.spec.restart.policy == "never":
            return False
        if not Path(keeper.spec.cwd).is_dir():  # noqa: ASYNC240 - where it is gone no start helps
            return False
        counted = count_restart(self._times, time.monotonic(), self._limits)
        if counted is None:
            self._announce(error)
            return False
        self._times = counted
        try:
            await keeper.record_one(AgentRestarted, restarts=len(counted), error=error)
        except SessionError:
            return False
        return True

    def _announce(self, error: Failure) -> None:
        """Publish that the limits are exceeded."""
        end = RestartsExhausted("", "", 0, time.time(), error=error, restarts=len(self._times))
        self._keeper.publish(end)

    def note_end(self) -> None:
        """It has ended, and nobody starts it again."""
