"""``CompactingActor``: a session actor that folds a history grown too long into a new session."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from actors.compaction import policy
from actors.compaction.compose import Composed
from actors.compaction.cut import cut
from actors.compaction.policy import Guard
from actors.pod.compactor import Folding, fold
from actors.pod.context import Context
from actors.pod.spending import Spending
from actors.pod.stepping import SteppingActor
from actors.runtime.actor import DEFERRED
from actors.sessions.head import new_session_id
from protocol import commands
from protocol.errors import CompactionFailed, Failure
from protocol.events import (
    CompactDone,
    CompactFailed,
    CompactReason,
    CompactStart,
    SystemMessage,
)

#: Told when a compaction has ended: why it failed, or None.
Folded = Callable[[BaseException | None], None]


class CompactingActor(SteppingActor):
    """A session actor that can compact: by command, by threshold, or because a server said it is full."""

    _context_: Context | None = None
    #: How many of the server's tokens an estimated one stood for when that was last known.
    _density = 1.0
    _guard = Guard()

    @property
    def _context(self) -> Context:
        """The view of the history as it is; made when it is first needed, and anew when another list of
        items has taken the place of the history.
        """
        context = self._context_
        if context is None or context.items is not self._head.items:
            context = self._context_ = Context(self._head.items, self._measured or ())
            self._measured = None
        return context

    async def _look_through(self) -> None:
        """Look through a history that was read back before anything is asked of it, in slices."""
        limits, memory = self._parts.limits, self._parts.manifest.memory
        counted = bool(limits.before_run or limits.before_request)
        read = (self._head.pointer or 0) if memory.extract_threshold else None
        for _ in self._context.looked_through(counted=counted, read=read):
            await asyncio.sleep(0)

    # -- commands --------------------------------------------------------------------------------

    def _on_compact(self, command: commands.Compact) -> Any:
        reply = self.defer_reply()

        def folded(error: BaseException | None) -> None:
            if error is None:
                reply.set(self._head.session_id)
            elif isinstance(error, CompactionFailed):
                reply.set_exception(error)
            else:
                failed = CompactionFailed(f"the compaction failed: {error}")
                failed.__cause__ = error
                reply.set_exception(failed)
            self._advance()

        self._when_free(
            lambda: self._fold("manual", folded, command.retained_tokens, caller=reply.caller), reply
        )
        return DEFERRED

    def _on_try_pre_run_compact(self, _: commands.TryPreRunCompact) -> Any:
        reply = self.defer_reply()

        def done(_: BaseException | None) -> None:
            reply.set(None)
            self._advance()

        self._when_free(lambda: self._fold_before_run(done, reply.caller), reply)
        return DEFERRED

    # -- when ------------------------------------------------------------------------------------

    def _fold_before_run(self, then: Folded, caller: contextvars.Context | None) -> None:
        """Compact if the threshold for the start of a run says so."""
        limits = self._parts.limits
        due = limits.before_run and policy.before_run(
            limits, self._guard, self._context.occupancy(), len(self._head.items)
        )
        if due:
            self._fold("threshold", then, caller=caller)
        else:
            then(None)

    def _before_request(self) -> policy.Verdict:
        limits = self._parts.limits
        if not limits.before_request:
            return "send"
        occupancy = self._context.occupancy()
        verdict = policy.before_request(limits, self._guard, occupancy, len(self._head.items))
        if verdict == "compact" and not policy.can_shrink(occupancy, self._kept(occupancy)):
            return "send"  # what fills the context has to stay: to fold the rest would only fail the run
        return verdict

    def _kept(self, occupancy: int) -> int:
        """The tokens that a compaction before a request would keep as they are."""
        items = self._head.items
        retained = self._parts.limits.retained_for("request_threshold", occupancy)
        at = cut(items, self._context.since, retained, keep_open_turn=True)
        return Context(at.kept(items)).occupancy()

    # -- how -------------------------------------------------------------------------------------

    def _fold(
        self,
        reason: CompactReason,
        then: Folded,
        wanted: int | None = None,
        *,
        caller: contextvars.Context | None,
        window: int | None = None,
    ) -> None:
        """Compact; ``then`` hears of the end. Start is told first, then exactly one of done and failed.

        ``wanted`` is how many tokens to keep, ``window`` the context window that a server told, ``caller``
        the context of who wants it.
        """
        if not self._head.items:
            then(CompactionFailed("there is nothing to compact: the history is empty"))
            return
        self._close_calls()
        occupancy = self._context.occupancy()
        self._log.record(CompactStart, self._run_id, reason=reason, occupancy=occupancy)
        self._commit(
            lambda: self._start_folding(reason, occupancy, wanted, window, then, caller),
            lambda refused: self._untold(refused, then),
        )

    def _close_calls(self) -> None:
        """Give calls whose results a crash or a failing store took the result that they get: behind a
        summary nobody would find them any more.
        """

    def _untold(self, error: BaseException, then: Folded) -> None:
        """The store refused what the compaction has to tell."""
        self._store_refused(error)
        then(error)

    def _start_folding(
        self,
        reason: CompactReason,
        occupancy: int,
        wanted: int | None,
        window: int | None,
        then: Folded,
        caller: contextvars.Context | None,
    ) -> None:
        limits = self._parts.limits.within(window)
        self._density = self._context.density() or self._density
        folding = Folding(
            items=self._head.items[:],
            context=self._context,
            limits=limits,
            retained=limits.retained_for(reason, occupancy, wanted),
            occupancy=occupancy,
            reason=reason,
            spending=Spending(self._parts),
            density=self._density,
            without_model=policy.without_model(reason, self._guard),
            mid_run=self._head.open_run is not None,
        )
        self._do(
            self._fold_when_ready(folding),
            lambda result, error: self._folded(folding, result, error, then),
            what="the compaction",
            caller=caller,
        )

    async def _fold_when_ready(self, folding: Folding) -> Composed:
        await self._before_fold()
        return await fold(self._parts, folding)

    async def _before_fold(self) -> None:
        """Let what reads the history come to its end."""

    def _folded(
        self, folding: Folding, composed: Composed | None, error: BaseException | None, then: Folded
    ) -> None:
        if composed is None:
            assert error is not None
            self._folding_failed(folding, error, then)
            return
        old = self._head.session_id

        def refused(error: BaseException) -> None:
            self._folding_failed(folding, error, then)

        def lost(error: BaseException) -> None:
            self._store_refused(error)
            refused(error)

        self._when_durable(
            lambda: self._commit_by(
                lambda: self._open_successor(folding, composed),
                lambda: self._succeeded(folding, old, then),
                refused,
            ),
            lost,
        )

    def _open_successor(self, folding: Folding, composed: Composed) -> Future[None] | None:
        """The new session, whole in one transaction."""
        log, run_id, spent = self._log, self._run_id, folding.spending.spent
        parent = log.succeed(new_session_id())
        log.open(
            self._parts.opening,
            parent,
            run_id=self._head.open_run,
            steps=self._steps,
            usage=self._usage,
            cost=self._cost,
            seconds=self._seconds,
            run_seconds=self._run_seconds,
            open=tuple(each for each in self._head.open if each != "compaction"),
        )
        for item in composed.opening:
            log.record(SystemMessage, run_id, item=item)
        if composed.kept:
            log.keep(composed.kept)
        for item in composed.closing:
            log.record(SystemMessage, run_id, item=item)
        log.record(
            CompactDone,
            run_id,
            new_session_id=self._head.session_id,
            before=folding.occupancy,
            after=Context(composed.items).occupancy(),
            source=composed.source,
            usage=spent.usage,
            cost=spent.cost,
        )
        self._count_folding(folding.spending)
        return log.create(parent)

    def _succeeded(self, folding: Folding, old: str, then: Folded) -> None:
        self._parts.store.release(old)
        self._guard = self._guard.compacted(folding.reason)
        then(None)

    def _folding_failed(self, folding: Folding, error: BaseException, then: Folded) -> None:
        if not isinstance(error, asyncio.CancelledError):  # whoever cancelled it says nothing of the next
            self._guard = self._guard.failed(folding.reason)
        failed, spent = _as_failure(error), folding.spending.spent
        self._log.record_end(
            CompactFailed, self._run_id, error=Failure.of(failed), usage=spent.usage, cost=spent.cost
        )
        self._count_folding(folding.spending)
        self._commit(lambda: then(failed), lambda refused: self._untold(refused, then))

    def _count_folding(self, spending: Spending) -> None:
        """Count what a compaction's calls took."""
        self._count_worker(spending)

    def _count_worker(self, spending: Spending) -> None:
        """Count what a worker's calls took as the pod's own, once; the event of its end tells the log."""
        if spending.counted:
            return
        spending.counted = True
        spent = spending.spent
        if spent.usage is not None:
            self._usage = spent.usage if self._usage is None else self._usage + spent.usage
        if spent.cost is not None:
            self._cost = spent.cost if self._cost is None else self._cost + spent.cost


def _as_failure(error: BaseException) -> CompactionFailed:
    """Why a compaction failed, whatever ended it."""
    if isinstance(error, CompactionFailed):
        return error
    if isinstance(error, asyncio.CancelledError):
        return CompactionFailed("the compaction was cancelled")
    told = Failure.of(error)
    failed = CompactionFailed(f"the history could not be compacted: {told.message}", hint=told.hint)
    failed.__cause__ = error
    return failed
