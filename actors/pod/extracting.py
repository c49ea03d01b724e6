"""``ExtractingActor``: has its history read by a detached actor, and keeps how far it was read."""

from __future__ import annotations

import asyncio
from contextvars import Context
from functools import partial
from typing import Any, cast

from pykka._envelope import Envelope

from actors.compaction.extract import EXTRACTOR_PROMPT, EXTRACTOR_TOKENS
from actors.compaction.policy import extraction_due, notes_budget, summariser_budget
from actors.compaction.tokens import text_tokens
from actors.pod.compacting import CompactingActor
from actors.pod.memory.extraction import Extract, ExtractionActor, Proposal
from actors.pod.spending import Spending, Spent
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.errors import Failure, PodError
from protocol.events import ExtractDone, ExtractFailed, ExtractStart

#: Automatic extractions are left out after failures in a row: 1, 2, 4 … up to this many.
MOST_LEFT_OUT = 32


class ExtractingActor(CompactingActor):
    """One extraction at a time; a trigger meanwhile has the newest read once it has ended."""

    _job: ExtractionActor | None = None
    _job_spending: Spending | None = None
    #: The context of who wanted memory jobs last, as long as any is at work.
    _memory_caller: Context | None = None
    #: Whether somebody wanted one while the last was under way.
    _triggered = False
    _failures = 0
    _left_out = 0
    #: Jobs that have said all, or were cancelled, and have not come to their end.
    _jobs_leaving = 0
    _waiting: list[AsyncFuture[Any]] | None = None
    #: Who is answered once the end that the job has come to is told.
    _proposed: AsyncFuture[bool] | None = None

    def _on_try_post_run_extract(self, _: commands.TryPostRunExtract) -> Any:
        self._left_out = 0
        self._remember(self._caller)
        if self._job is None:
            return None
        reply = self.defer_reply()
        ended: AsyncFuture[Any] = AsyncFuture()
        ended.when_done(lambda: reply.set(None))
        self._when_remembered(ended)
        return DEFERRED

    def _when_remembered(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(reply)

    # -- a job -----------------------------------------------------------------------------------

    def _remember_after_run(self, caller: Context | None) -> None:
        """A run of ``caller`` has ended: have it read, unless that failed of late or only commands do."""
        if self._parts.manifest.memory.schedule != "after_run":
            return
        if self._left_out > 0:
            self._left_out -= 1
            return
        self._remember(caller)

    @property
    def _caller(self) -> Context | None:
        """The context of who sent the command that is being handled."""
        return None if self._reply_to is None else self._reply_to.caller

    def _remember(self, caller: Context | None) -> None:
        """Start an extraction if enough is new; while one is under way it will be followed by another.
        Those to come see the context variables of ``caller``, or none.
        """
        if not self._parts.manifest.memory.extract_threshold:
            return
        if self._job is not None:
            self._triggered, self._memory_caller = True, caller
        elif self._extraction_due():
            self._memory_caller = caller
            self._start_job()

    def _extraction_due(self) -> bool:
        head = self._head
        start = head.pointer or 0
        if start >= len(head.items):
            return False
        return extraction_due(self._parts.manifest.memory, self._context.since(start))

    def _start_job(self) -> None:
        assert self._mailroom is not None
        self._triggered = False
        parts = self._parts
        job = self._job = ExtractionActor.make(self._mailroom, UNREGISTERED)
        job.begin()
        self._job_spending = Spending(parts)
        self._log.record(ExtractStart, pointer=self._head.pointer)
        self._commit(lambda: self._start_reading(job), lambda error: self._start_refused(job, error))

    def _start_reading(self, job: ExtractionActor) -> None:
        """The start is told: have the job read, unless it was given up meanwhile."""
        parts, spending = self._parts, self._job_spending
        if self._job is job and spending is not None:
            job.actor_ref.tell(
                Extract(
                    self._head,
                    self._reading_budget(),
                    notes_budget(parts.limits.context_window),
                    spending.ask,
                    parts.manifest.model.model_id,
                    parts.tools.context(parts.name),
                    parts.memory.staging,
                    self._propose,
                    self._memory_caller,
                )
            )
        self._advance()

    def _start_refused(self, job: ExtractionActor, error: BaseException) -> None:
        """The store does not take the start: nothing has begun, and nothing is begun at once."""
        self._store_refused(error)
        if self._job is job:
            self._end_job()
            self._back_off()
            self._remembered(consolidate=False)

    def _reading_budget(self) -> int:
        """The tokens of history that an extraction is given at once, as we estimate them."""
        window = self._parts.limits.context_window
        density = self._context.density() or self._density
        known = None if window is None else int(window / density)
        answer = notes_budget(window)
        return min(EXTRACTOR_TOKENS, summariser_budget(known, answer, text_tokens(EXTRACTOR_PROMPT)))

    def _propose(self, proposal: Proposal) -> AsyncFuture[bool]:
        """Bring a proposal to this pod's mailbox."""
        assert self._mailroom is not None
        answer: AsyncFuture[bool] = AsyncFuture()
        self._mailroom.post(self._receive, Envelope(proposal, answer))
        return answer

    def _on_proposal(self, proposal: Proposal) -> Any:
        """Whether what an extraction read is taken: only if nothing has moved under it, and once the store
        has kept that.
        """
        if self._job is None:  # it was given up, and its end was told
            return False
        reply = self._proposed = self.defer_reply()
        spent, error = self._spent(self._job_spending), proposal.error or self._moved(proposal)
        if error is None:
            self._log.point(proposal.end)
            self._log.record(
                ExtractDone,
                pointer=proposal.end,
                staged=proposal.staged,
                usage=spent.usage,
                cost=spent.cost,
            )
            refused = partial(self._reading_refused, reply, spent)
        else:
            self._job_failed(error, spent)
            refused = partial(self._reading_refused, reply, None)
        if proposal.error is not None:
            self._back_off()
        again = error is None or self._triggered
        self._commit(lambda: self._reading_told(reply, error is None, again), refused)
        return DEFERRED

    def _reading_told(self, reply: AsyncFuture[bool], accepted: bool, again: bool) -> None:
        self._end_job()
        if accepted:
            self._failures = 0
        reply.set(accepted)
        if again and not self._stopping and self._extraction_due():
            self._start_job()
        else:
            self._remembered()
        self._advance()

    def _reading_refused(self, reply: AsyncFuture[bool], spent: Spent | None, error: BaseException) -> None:
        """The store does not take the end of an extraction: it is told as failed (``spent``: it was not
        already) once it can be, what was staged is taken back, and nothing is read again at once.
        """
        self._store_refused(error)
        self._end_job()
        self._back_off()
        if spent is not None:
            self._job_failed(error, spent)
        reply.set(False)
        self._remembered(consolidate=False)

    def _back_off(self) -> None:
        """After a failure: leave out the next automatic extractions."""
        self._failures += 1
        self._left_out = min(MOST_LEFT_OUT, 2 ** (self._failures - 1))

    def _moved(self, proposal: Proposal) -> PodError | None:
        """Why what was read is not what the history holds there; None where it is."""
        head = self._head
        if (proposal.session_id, proposal.start) != (head.session_id, head.pointer):
            how = "compacted"
        elif proposal.end > len(head.items) or head.items[proposal.end - 1] is not proposal.last:
            how = "cut back, since the store refused its end,"
        else:
            return None
        return PodError(f"the history was {how} while it was read: what was found is left out")

    def _end_job(self) -> Spent:
        """The job has ended, or is given up; what it took counts in either case."""
        job, self._job = self._job, None
        spending, self._job_spending, self._proposed = self._job_spending, None, None
        if job is not None:
            self._let_go(cast("AsyncFuture[bool]", job.actor_ref.stop(block=False)))
        return self._spent(spending)

    def _let_go(self, ended: AsyncFuture[bool]) -> None:
        """A job has nothing more to say; what it still has to put away counts as memory at work."""
        self._jobs_leaving += 1
        ended.when_done(self._job_left)

    def _job_left(self) -> None:
        self._jobs_leaving -= 1
        self._memory_done()

    def _memory_done(self) -> None:
        """A memory job has come to its end: if it was the last, those who wait for that are answered."""

    def _spent(self, spending: Spending | None) -> Spent:
        """What a memory job's calls took, which counts as the pod's own from now on."""
        if spending is None:
            return Spent()
        self._count_worker(spending)
        return spending.spent

    def _job_failed(self, error: BaseException, spent: Spent) -> None:
        self._log.record_end(ExtractFailed, error=Failure.of(error), usage=spent.usage, cost=spent.cost)

    def _remembered(self, *, consolidate: bool = True) -> None:  # noqa: ARG002 - for who consolidates
        """The extractions that were due have ended."""
        waiting, self._waiting = self._waiting, None
        answer_all(waiting)

    async def _before_fold(self) -> None:
        await self._job_ended()

    async def _job_ended(self) -> None:
        """Wait for an extraction that is under way, for a bounded time."""
        if self._job is None:
            return
        ended: AsyncFuture[Any] = AsyncFuture()
        self._when_remembered(ended)
        try:
            await asyncio.wait_for(ended, self._parts.memory_grace)
        except TimeoutError:
            return


class Unregistered:
    """Detached actors are known to their pod alone."""

    def register(self, actor_ref: Any, /) -> None:
        """Nobody looks for it."""

    def unregister(self, actor_ref: Any, /) -> None:
        """Nobody looked for it."""


UNREGISTERED = Unregistered()


def answer_all(waiting: list[AsyncFuture[Any]] | None) -> None:
    """Tell all who wait that it has ended, but for those who have given up."""
    for reply in waiting or ():
        if not reply.done():
            reply.set(True)
