"""``Group``: pods and agents that are supervised together; ``Member``: how often one is started again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from actors.runtime.future import AsyncFuture
from actors.runtime.restarts import Limits, count_restart
from protocol.errors import TooManyRestarts
from protocol.manifest import RestartSection

if TYPE_CHECKING:
    from actors.runtime.loop import Mailroom


class Group:
    """Pods and agents that are supervised together, each restarted alone; the limits count the restarts of
    all.

    Once they are exceeded the living members are stopped, the last first, with their runs paused.
    """

    def __init__(self, members: tuple[Member, ...], limits: Limits) -> None:
        self.members = members
        self.limits = limits
        #: When members were started again of late, by the loop's clock.
        self.times: tuple[float, ...] = ()
        self.over = False
        self._ended: AsyncFuture[None] = AsyncFuture()
        self._stopping: asyncio.Task[None] | None = None
        for member in members:
            member.group = self

    def __repr__(self) -> str:
        return f"<Group of {len(self.members)}{', ended' if self.over else ''}>"

    def wait(self) -> AsyncFuture[None]:
        """Resolves once all members were stopped. Raises TooManyRestarts where the group gave up."""
        return AsyncFuture.derived([self._ended], lambda _: None)

    def note_end(self) -> None:
        """Note that a member was stopped and has left."""
        if not self.over and all(member.over for member in self.members):
            self.over = True
            self._ended.set(None)

    def give_up(self, failed: Member, error: BaseException) -> None:
        """Stop the others, and publish that."""
        self._stopping = failed.room.loop.create_task(self._stop_others(failed, error))

    async def _stop_others(self, failed: Member, error: BaseException) -> None:
        stopped = []
        for member in reversed(self.members):
            if not member.over:
                with contextlib.suppress(Exception):  # whose end cannot be recorded, say
                    await member.shut_down()
                stopped.append(member.name)
        failed.announce(error, len(self.times), tuple(stopped))
        text = f"{failed.name!r} failed, and its group has reached its limit of restarts: {error}"
        self._ended.set_exception(TooManyRestarts(text, hint="its pods' sessions can be resumed"))


class Member:
    """Counts how often one pod or agent is started again, by its own limits or by those of its group."""

    def __init__(self, name: str, room: Mailroom, section: RestartSection, group: Group | None) -> None:
        self.name, self.room = name, room
        self._section = section
        self.group = group
        self._own = Limits(section.max_restarts, section.window_seconds)
        self._times: tuple[float, ...] = ()
        #: Whether nobody starts it again: a person stopped it, or its system is left.
        self._stop_asked = False
        #: Whether it has ended for good.
        self.over = False
        #: Whether the last failure was one too many.
        self._exhausted = False

    def shut_down(self) -> AsyncFuture[bool]:
        """End it with its run paused, and start it no more."""
        raise NotImplementedError

    def announce(self, error: BaseException, restarts: int, stopped: tuple[str, ...] = ()) -> None:
        """Publish that the limits are exceeded."""
        raise NotImplementedError

    def hold_back(self, error: BaseException) -> bool:
        """Whether it must not be restarted; a restart that is allowed is counted."""
        group = self.group
        if self._stop_asked or not isinstance(error, Exception) or (group is not None and group.over):
            return True
        if group is None and self._section.policy == "never":
            return True
        limits, times = (self._own, self._times) if group is None else (group.limits, group.times)
        counted = count_restart(times, self.room.loop.time(), limits)
        if counted is None:
            self._exhausted = True
            if group is not None:
                group.over = True
        elif group is None:
            self._times = counted
        else:
            group.times = counted
        return counted is None

    def let_failure_go_up(self, error: BaseException | None) -> None:
        """Pass on that a member has ended for good: publish that its restarts are exhausted, or have its
        group give up or end.
        """
        if self._exhausted and error is not None:
            if self.group is None:
                self.announce(error, len(self._times))
            else:
                self.group.give_up(self, error)
        if self.group is not None:
            self.group.note_end()
