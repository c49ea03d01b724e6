"""``CompactingActor``: a session's keeper that folds its history into a new session when it grows too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from actors.compaction import policy
from actors.compaction.compose import Composed
from actors.compaction.policy import Guard
from actors.pod.compactor import Folding, fold
from actors.pod.context import Context
from actors.pod.session_actor import SessionActor
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from actors.sessions.head import new_session_id
from protocol import commands
from protocol.entries import Parent
from protocol.errors import CompactionFailed, Failure, SessionError
from protocol.events import (
    Alert,
    CompactDone,
    CompactFailed,
    CompactReason,
    CompactStart,
    SystemMessage,
)
from protocol.usage import Usage

#: Told when a compaction has ended: why it failed, or None.
Folded = Callable[[BaseException | None], None]


class CompactingActor(SessionActor):
    """A session actor that can compact: by command, by threshold, or because a server said it is full."""

    _context_: Context | None = None
    _guard = Guard()

    @property
    def _context(self) -> Context:
        """The view of the history as it is; made when it is first needed."""
        if self._context_ is None:
            self._context_ = Context(self._head.items, self._measured or ())
            self._measured = None
        return self._context_

    def _history_changed(self) -> None:
        """Another list of items has taken the place of the history."""
        self._context_ = None

    # -- commands --------------------------------------------------------------------------------

    def _on_compact(self, command: commands.Compact) -> Any:
        reply = self.defer_reply()

        def folded(error: BaseException | None) -> None:
            if error is None:
                reply.set(self._head.session_id)
            else:
                reply.set_exception(_as_failure(error))
            self._advance()

        self._when_free(lambda: self._fold("manual", folded, command.retained_tokens))
        return DEFERRED

    def _on_try_pre_run_compact(self, _: commands.TryPreRunCompact) -> Any:
        reply = self.defer_reply()

        def done(_: BaseException | None) -> None:
            reply.set(None)
            self._advance()

        self._when_free(lambda: self._fold_before_run(done))
        return DEFERRED

    # -- when ------------------------------------------------------------------------------------

    def _fold_before_run(self, then: Folded) -> None:
        """Compact if the threshold for the start of a run says so."""
        limits = self._parts.limits
        due = limits.before_run and policy.before_run(
            limits, self._guard, self._context.occupancy(), len(self._head.items)
        )
        if due:
            self._fold("threshold", then)
        else:
            then(None)

    def _before_request(self) -> policy.Verdict:
        limits = self._parts.limits
        if not limits.before_request:
            return "send"
        return policy.before_request(
            limits, self._guard, self._context.occupancy(), len(self._head.items)
        )

    # -- how -------------------------------------------------------------------------------------

    def _fold(self, reason: CompactReason, then: Folded, wanted: int | None = None) -> None:
        """Compact; ``then`` hears of the end. Start is told first, then exactly one of done and failed."""
        if not self._head.items:
            then(CompactionFailed("there is nothing to compact: the history is empty"))
            return
        occupancy = self._context.occupancy()
        self._log.record(CompactStart, self._run_id, reason=reason, occupancy=occupancy)
        self._commit(lambda: self._start_folding(reason, occupancy, wanted, then))

    def _start_folding(
        self, reason: CompactReason, occupancy: int, wanted: int | None, then: Folded
    ) -> None:
        parts = self._parts
        folding = Folding(
            items=self._head.items[:],
            context=self._context,
            limits=parts.limits,
            retained=parts.limits.retained_for(reason, occupancy, wanted),
            occupancy=occupancy,
            reason=reason,
        )
        self._do(
            fold(parts, folding), lambda result, error: self._folded(reason, occupancy, result, error, then)
        )

    def _folded(
        self,
        reason: CompactReason,
        before: int,
        composed: Composed | None,
        error: BaseException | None,
        then: Folded,
    ) -> None:
        if composed is None:
            assert error is not None
            self._folding_failed(reason, error, then)
            return
        after = Context(composed.items).occupancy()
        self._guard = self._guard.compacted(reason)
        try:
            pending = self._open_successor(composed, before, after)
        except SessionError as refused:
            self._folding_failed(reason, refused, then)
            return
        if pending is None:
            self._history_changed()
            then(None)
            return
        self._committing = True
        ...

    def _folding_failed(self, reason: CompactReason, error: BaseException, then: Folded) -> None:
        self._guard = self._guard.failed(reason)
        failure = Failure.of(_as_failure(error))
        self._log.record(CompactFailed, self._run_id, error=failure)
        self._commit(lambda: then(error))


def _as_failure(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return CompactionFailed("the compaction was cancelled")
    return error
