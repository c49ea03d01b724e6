"""``Lifecycle``: opens, restores, reads back and ends a pod's session in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.pod.resources import PodResources
from actors.pod.session.journal import Journal
from actors.pod.session.restore import activities_left, restore, tip
from actors.pod.status import Status
from actors.runtime.interruptible import Interruptible
from actors.sessions.activities import ends_of
from actors.sessions.answers import Kept, durable, release_and_wait, release_session, settled
from actors.sessions.head import spellings
from actors.sessions.replay import Replayed
from actors.sessions.store import Claim
from protocol.errors import Failure, HeadConflict, SessionCorrupt, SessionError, SessionNotFound, UnknownEntry
from protocol.events import Alert, PodEnded, PodFailed, PodStarted
from protocol.lifecycle import PodState

if TYPE_CHECKING:
    from actors.pod.history.conversation import Conversation
    from actors.pod.runs.run_loop import RunLoop


class Resumed(Struct, frozen=True):
    """The session to continue: its newest compaction, or with ``exact`` that very one. With ``or_new`` it is
    made if it does not exist.
    """

    session_id: str
    exact: bool
    or_new: bool = False


def open_session(resources: PodResources) -> Kept:
    """Make a session; returns None, or a future that resolves when it is durable. Raises SessionError."""
    log, template, parent = resources.log, resources.template, resources.parent
    log.open(template.opening)
    log.record(PodStarted, model=template.model, parent=parent)
    for warning in template.warnings:
        log.record(Alert, text=warning)
    if template.mistakes and parent is None:  # a sub-agent has its parent's rules
        for mistake in template.mistakes:
            log.record(Alert, text=mistake)
    return log.create()


class Lifecycle:
    """The beginning and the end of a pod's session in this process."""

    __slots__ = ("_journal", "_resources", "_status", "_template")

    def __init__(self, resources: PodResources, journal: Journal, status: Status) -> None:
        self._resources = resources
        self._template = resources.template
        self._journal = journal
        self._status = status

    # -- the beginning ---------------------------------------------------------------------------

    async def await_opened(self, kept: Future[None] | Awaitable[None]) -> None:
        """Wait until a new session is durable. Raises SessionError."""
        log = self._journal.log
        try:
            await durable(kept)
        except BaseException as error:
            log.roll_back()
            if not isinstance(error, HeadConflict):  # then the session is another pod's
                await self._release(log.durable_session)
            raise
        log.confirm()

    async def restore(
        self, resumed: Resumed, take_over: Callable[[Replayed], Coroutine[Any, Any, None]]
    ) -> None:
        """Continue an existing session, and publish that; ``take_over`` gets what it records of the pod's
        earlier lives. Raises SessionError.
        """
        store, log = self._template.store, self._journal.log
        claim = await self._claim(resumed)
        try:
            state, head = await restore(store, claim.session_id)
            left = await activities_left(store, claim.session_id, state)
            log.stand_at(claim.session_id, head, state.items, state.pointer, state.open_run, left)
            await take_over(state)
            self.close_activities("the pod's process ended before it did")
            if claim.torn:
                text = (
                    f"the last batch was half-written, and its {claim.torn} bytes were removed; "
                    "nothing durable was lost"
                )
                log.record(Alert, text=text)
            log.record(PodStarted, model=self._template.model, resumed=True, parent=self._resources.parent)
            await self._journal.commit()
        except BaseException:
            await self._release(claim.session_id)
            raise

    async def _claim(self, resumed: Resumed) -> Claim:
        """Claim the session that is to be resumed, however its name was written."""
        missing: SessionNotFound | None = None
        for name in spellings(resumed.session_id):
            try:
                return await (self._claim_one(name) if resumed.exact else self._claim_last(name))
            except SessionNotFound as error:
                missing = missing or error
        assert missing is not None
        raise missing

    async def _claim_last(self, session_id: str) -> Claim:
        """Claim a session; if its pod has just compacted it, its successor."""
        store = self._template.store
        session_id = await tip(store, session_id)
        while True:
            claim = await self._claim_one(session_id)
            try:
                session_id = await tip(store, claim.session_id)
            except BaseException:
                await self._release(claim.session_id)
                raise
            if session_id == claim.session_id:
                return claim
            await self._release(claim.session_id)

    async def _claim_one(self, session_id: str) -> Claim:
        """Claim a session. If this is cancelled no claim is left behind: it is released once it has been
        granted.
        """
        claimed = self._template.store.claim(session_id, self._resources.name)
        if not isinstance(claimed, Awaitable):
            return claimed
        asked = asyncio.ensure_future(settled(claimed))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._release_late_claim)
            raise

    def _release_late_claim(self, asked: asyncio.Future[Claim]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            release_session(self._template.store, asked.result().session_id)

    async def _release(self, session_id: str) -> None:
        await release_and_wait(self._template.store, session_id, self._template.store_grace)

    def close_activities(self, why: str) -> None:
        """Record the end of all activities that cannot end otherwise any more."""
        head = self._journal.head
        for kind, run_id, fields in ends_of(head.open, head.open_run, why):
            self._journal.log.record_end(kind, run_id, **fields)

    # -- without its history ---------------------------------------------------------------------

    async def read_back(self, conversation: Conversation) -> None:
        """Read the history back, up to the entry where it ended; if another process has written more, the
        next commit notices. Raises SessionError.
        """
        log, head = self._journal.log, self._journal.head
        last, session_id = head.last, head.session_id
        try:
            state, _ = await restore(self._template.store, session_id, last.hash)
        except UnknownEntry as error:
            raise SessionCorrupt(session_id, last.seq, "the last entry that its pod wrote is gone") from error
        log.stand_at(session_id, last, state.items, state.pointer, state.open_run)
        conversation.read_back(state.calls)
        await conversation.look_through()

    # -- the end ---------------------------------------------------------------------------------

    def end_session(self) -> Kept:
        """Record the end of the pod; returns a future that resolves when it is durable, None if it is durable
        or never will be.
        """
        self._journal.stop_branching()
        self._journal.log.record(PodEnded)
        try:
            return self._journal.log.commit()
        except SessionError:
            return None

    async def stop(self, runs: RunLoop, finish_jobs: Callable[[], Awaitable[None]]) -> None:
        """Record the end of the pod and release its session, once the interrupted run has ended. All waits
        are bounded: a store that never answers is not waited for.
        """
        last = Interruptible(runs)
        with contextlib.suppress(TimeoutError):
            if (turn := runs.history_lock.line_up_last(last)) is not None:
                seconds = self._template.grace + self._template.store_grace
                await asyncio.wait_for(runs.history_lock.begin_at(turn, last), seconds)
            await finish_jobs()
            self._journal.stop_branching()
            if self._status.state is PodState.IDLE:  # a run whose end the store refused is not to be resumed
                runs.close_left_over()
            self._journal.log.record(PodEnded)
            await self._journal.commit_last(self._template.store_grace)

    async def fail(self, error: BaseException) -> None:
        """Record that a defect ends the pod, with the ends of everything that was started."""
        journal = self._journal
        await journal.abandon(self._template.store_grace)
        self.close_activities("an internal error ended the pod")
        journal.log.record(PodFailed, error=Failure.of(error), restarts=self._status.restarts)
        await journal.commit_last(self._template.store_grace)
        await self._release(journal.log.durable_session)
        self._status.to(PodState.FAILED)
