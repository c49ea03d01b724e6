"""``Takeover``: sees how agents stand that other processes looked after, and takes over where these died."""

from __future__ import annotations

import contextlib

from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from actors.swarm.agents.history import read_history
from actors.swarm.agents.keeper import Keeper
from actors.swarm.agents.kept_programs import read_place
from actors.swarm.agents.record import read_pages
from actors.swarm.agents.runner_choice import RunnerChoice
from actors.swarm.agents.state import SUPERVISOR_DIED
from protocol.errors import PolypodError
from protocol.events import (
    AgentRestarted,
    AgentStopRequested,
    ApprovalRequested,
    ApprovalResolved,
    DurableEvent,
    RunStart,
    UserMessage,
)


class Takeover:
    """Follows the agents of one swarm that are not this process's."""

    def __init__(self, store: SessionStore, runners: RunnerChoice) -> None:
        self._store = store
        self._runners = runners

    async def refresh(self, keeper: Keeper, *, anew: bool = False) -> None:
        """See how an agent stands; one whose supervisor died has its end recorded. ``anew`` reads its history
        also where nothing has been added. Raises SessionNotFound where another process has removed it,
        SessionInUse where one has just taken it, WireError and SessionCorrupt.
        """
        store = self._store
        info = await settled(store.info(keeper.journal.session_id))
        anew = anew or info.head.seq != keeper.state.seq
        if anew:
            keeper.take_history(await read_history(store, keeper.journal.session_id, keeper.spec.id))
        if keeper.state.ended is None:
            keeper.is_elsewhere = await settled(store.holder(keeper.journal.session_id)) is not None
            if not keeper.is_elsewhere:
                await self._end_of_dead(keeper)
        else:
            keeper.is_elsewhere = False
            if anew and not keeper.journal.projections.are_at(keeper.state.seq):
                await keeper.journal.mend_projections()

    async def _end_of_dead(self, keeper: Keeper) -> None:
        """Record the end of an agent whose supervisor died without doing so. One that was kept and lives goes
        on, and one that is started again where it fails is started by this process, but for one of which
        there is only a session: somebody else may have written that, and it was imported.
        """
        if keeper.spec.keep and await self._adopt(keeper):
            return
        is_of_here = keeper.journal.projections.names_agent()
        await keeper.journal.claim()
        lives = False
        try:
            await keeper.record_end(SUPERVISOR_DIED)
            keeper.remove_inbox()
            await keeper.journal.mend_projections()
            lives = is_of_here and self._can_start(keeper) and await keeper.start_again()
        finally:
            if not lives:
                await keeper.journal.release()

    def _can_start(self, keeper: Keeper) -> bool:
        """Whether this process knows how to start an agent that another has started."""
        if keeper.spec.has_objects:
            return False
        with contextlib.suppress(PolypodError):  # of its settings, say: reported to who resumes it
            keeper.runner = keeper.runner or self._runners.again(keeper)
        return keeper.runner is not None

    async def _adopt(self, keeper: Keeper) -> bool:
        """Look after a program that was kept, to its end if that has come meanwhile. False where nobody knows
        what it has said since, and it runs no more. Raises SessionError.
        """
        place = read_place(keeper.journal.projections.folder)
        pid = keeper.state.pid
        if pid is None and place is not None and place.lives:  # it is recorded once the program is up
            pid = place.pid
        if place is None or place.pid != pid or keeper.runner is None:
            return keeper.has_process()  # then it is detached
        await keeper.journal.claim()
        pages = read_pages(self._store, keeper.journal.session_id, place.seq)
        later = [each async for page, _ in pages for each in page]
        sent = [each.item.text for each in later if isinstance(each, UserMessage)]
        lives = place.lives
        keeper.adopt(place, filter(_is_printed, later), sent)
        if not lives:
            await keeper.wait_for_end()
        return True


def _is_printed(entry: object) -> bool:
    """Whether an entry is of what a program printed, and not of what it was sent."""
    ours = (RunStart, UserMessage, AgentStopRequested, ApprovalRequested, ApprovalResolved, AgentRestarted)
    return isinstance(entry, DurableEvent) and not isinstance(entry, ours)
