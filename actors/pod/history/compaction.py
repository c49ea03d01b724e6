"""``Compaction``: replaces the older part of a history by a summary, in a new session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from actors.compaction import policy
from actors.pod.accounts.spending import Spending
from actors.pod.pod_parts import PodParts
from actors.runtime.interruptible import Interruptible, Left
from actors.sessions.answers import release_session
from protocol.entries import Parent
from protocol.errors import CompactionFailed, Failure, SessionError
from protocol.events import (
    CompactDone,
    CompactFailed,
    CompactReason,
    CompactStart,
    SystemMessage,
    UsageUpdate,
)

if TYPE_CHECKING:
    from actors.pod.history.summarizer import Folded, Folding


class Compaction:
    """Writes a summary of the older part of a history, and continues in a session that begins with it."""

    __slots__ = (
        "_accounts",
        "_close_calls",
        "_conversation",
        "_journal",
        "_resources",
        "_template",
        "_wait_for_readers",
    )

    def __init__(
        self,
        parts: PodParts,
        close_calls: Callable[[], None],
        wait_for_readers: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """``close_calls`` closes calls that have no results: nobody would find them after a summary.
        ``wait_for_readers`` waits for those who read the history.
        """
        self._resources = parts.resources
        self._template = parts.resources.template
        self._journal = parts.journal
        self._accounts = parts.accounts
        self._conversation = parts.conversation
        self._close_calls = close_calls
        self._wait_for_readers = wait_for_readers

    async def fold(
        self,
        reason: CompactReason,
        waits: Interruptible,
        *,
        wanted: int | None = None,
        window: int | None = None,
    ) -> BaseException | None:
        """Compact the history. Returns why that failed, or None. Its start is published, then exactly one
        end.

        ``wanted`` is how many tokens to keep, ``window`` the context window that a server has reported,
        ``waits`` the piece of work that this is part of. Raises CancelledError and Left like that one.
        """
        from actors.pod.history.summarizer import Folding  # noqa: PLC0415 - paid for by whoever compacts

        journal, conversation = self._journal, self._conversation
        if not journal.head.items:
            return CompactionFailed("nothing to compact: the history is empty")
        self._close_calls()
        occupancy = conversation.occupancy()
        journal.log.record(CompactStart, journal.run_id, reason=reason, occupancy=occupancy)
        try:
            await journal.commit()
        except SessionError as error:
            waits.check()
            return error
        limits = self._template.limits.within(window)
        folding = Folding(
            items=journal.head.items[:],
            context=conversation.context(),
            limits=limits,
            retained=limits.retained_for(reason, occupancy, wanted),
            occupancy=occupancy,
            reason=reason,
            spending=Spending(self._resources),
            density=conversation.density(),
            without_model=policy.without_model(reason, conversation.guard),
            mid_run=journal.head.open_run is not None,
        )
        failed = await self._carry_out(folding, waits)
        waits.check()
        return failed

    async def fold_by_hand(self, wanted: int | None, waits: Interruptible) -> str:
        """Compact the history on request. Returns the new session's id. Raises CompactionFailed."""
        error = await self.fold("manual", waits, wanted=wanted)
        if error is None:
            return self._journal.head.session_id
        if isinstance(error, CompactionFailed):
            raise error
        raise CompactionFailed(f"the compaction failed: {error}") from error

    async def _carry_out(self, folding: Folding, waits: Interruptible) -> BaseException | None:
        """Write the summary and continue in the new session. Returns why that failed, once it is recorded."""
        journal = self._journal
        try:
            folded = await waits.apart(self._run_summarizer(folding), "the compaction")
            old = journal.head.session_id
            await journal.start_successor(lambda parent: self._record_successor(folding, folded, parent))
        except Left:  # the run was lost meanwhile: whoever commits its end commits this one
            self._record_failure(folding, CompactionFailed("the run that needed it was lost"))
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a client throws
            return await self._fail(folding, error)
        release_session(self._template.store, old)
        self._conversation.guard = self._conversation.guard.compacted(folding.reason)
        return None

    async def _run_summarizer(self, folding: Folding) -> Folded:
        from actors.pod.history.summarizer import fold  # noqa: PLC0415 - paid for by whoever compacts

        await self._wait_for_readers()
        return await fold(self._resources, folding)

    def _record_successor(self, folding: Folding, folded: Folded, parent: Parent) -> None:
        """Record the entries that the new session begins with."""
        journal, composed = self._journal, folded.composed
        log, head, run_id, spent = journal.log, journal.head, journal.run_id, folding.spending.spent
        log.open(
            self._template.opening,
            parent,
            run_id=head.open_run,
            **journal.carried(),
            open=tuple(each for each in head.open if each != "compaction"),
        )
        for item in composed.opening:
            log.record(SystemMessage, run_id, item=item)
        if composed.kept:
            log.append_items(composed.kept)
        for item in composed.closing:
            log.record(SystemMessage, run_id, item=item)
        log.record(
            CompactDone,
            run_id,
            new_session_id=head.session_id,
            before=folding.occupancy,
            after=folded.occupancy,
            source=composed.source,
            usage=spent.usage,
            cost=spent.cost,
        )
        self._count(folding.spending)

    async def _fail(self, folding: Folding, error: BaseException) -> BaseException:
        journal, conversation = self._journal, self._conversation
        if not isinstance(error, asyncio.CancelledError):  # a cancel says nothing about the next attempt
            conversation.guard = conversation.guard.failed(folding.reason)
        failed = _as_failure(error)
        self._record_failure(folding, failed)
        try:
            await journal.commit()
        except SessionError as refused:
            return refused
        return failed

    def _record_failure(self, folding: Folding, failed: CompactionFailed) -> None:
        journal, spent = self._journal, folding.spending.spent
        journal.log.record_end(
            CompactFailed, journal.run_id, error=Failure.of(failed), usage=spent.usage, cost=spent.cost
        )
        self._count(folding.spending)

    def _count(self, spending: Spending) -> None:
        """Count what the summariser used; within a run it is part of the run's usage."""
        in_run = self._journal.run_id is not None
        fresh = not spending.counted
        spent = self._accounts.count_helper(spending, in_run=in_run)
        if in_run and fresh and spent.usage is not None:
            self._journal.publish(
                UsageUpdate, usage=spent.usage, run_usage=self._accounts.run_usage, cost=spent.cost
            )


def _as_failure(error: BaseException) -> CompactionFailed:
    """The error that says why a compaction failed, whatever ended it."""
    if isinstance(error, CompactionFailed):
        return error
    if isinstance(error, asyncio.CancelledError):
        return CompactionFailed("the compaction was cancelled")
    failure = Failure.of(error)
    failed = CompactionFailed(f"the history could not be compacted: {failure.message}", hint=failure.hint)
    failed.__cause__ = error
    return failed
