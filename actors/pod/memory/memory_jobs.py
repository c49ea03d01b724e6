"""``MemoryJobs``: runs a pod's memory jobs: extracts from what is new in the history, then consolidates."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from actors.compaction.policy import extraction_due, notes_budget, summariser_budget
from actors.compaction.tokens import text_tokens
from actors.memory.messages import Extract, Proposal
from actors.pod.accounts.accounts import Accounts
from actors.pod.accounts.spending import Spending
from actors.pod.accounts.spent import Spent
from actors.pod.history.conversation import Conversation
from actors.pod.memory.consolidations import Consolidations, answer
from actors.pod.resources import PodResources
from actors.pod.session.journal import Journal
from actors.pod.status import Status
from actors.pod.tasks_at_work import TasksAtWork
from actors.runtime.actor import UNREGISTERED, AsyncActor
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom
from actors.runtime.on_loop import future_of
from protocol.errors import Failure, PodError, SessionError
from protocol.events import (
    ExtractDone,
    ExtractFailed,
    ExtractStart,
)

if TYPE_CHECKING:
    from actors.memory.extraction import ExtractionActor

#: Automatic extractions are left out after failures in a row: 1, 2, 4 … up to this many.
MOST_LEFT_OUT = 32


class MemoryJobs:
    """The memory jobs of one pod, each a detached actor. One extraction goes on at a time; a trigger
    meanwhile has another follow. After it comes one consolidation at a time, which goes on by itself until
    nothing is due.
    """

    __slots__ = (
        "_accounts",
        "_conversation",
        "_failures",
        "_job",
        "_job_spending",
        "_jobs_leaving",
        "_journal",
        "_left_out",
        "_mailroom",
        "_pod",
        "_proposed",
        "_resources",
        "_status",
        "_tasks",
        "_template",
        "_triggered",
        "_waiting",
        "_waiting_for_all",
        "caller",
        "consolidations",
    )

    def __init__(
        self,
        resources: PodResources,
        status: Status,
        journal: Journal,
        accounts: Accounts,
        conversation: Conversation,
        tasks: TasksAtWork,
        mailroom: Mailroom,
        pod: AsyncActor,
    ) -> None:
        """``pod`` gets what the detached actors say."""
        self._resources = resources
        self._template = resources.template
        self._status = status
        self._journal = journal
        self._accounts = accounts
        self._conversation = conversation
        self._tasks = tasks
        self._mailroom = mailroom
        self._pod = pod
        self._job: ExtractionActor | None = None
        self._job_spending: Spending | None = None
        #: The context of who wanted memory jobs last, as long as any is at work.
        self.caller: Context | None = None
        #: Whether somebody wanted an extraction while the last was under way.
        self._triggered = False
        self._failures = self._left_out = 0
        #: Jobs that have said all, or were cancelled, and have not come to their end.
        self._jobs_leaving = 0
        #: Who waits for the extractions that are due, and who for all memory jobs.
        self._waiting: list[AsyncFuture[Any]] | None = None
        self._waiting_for_all: list[AsyncFuture[Any]] | None = None
        #: Who is answered once the end that the job has come to is published.
        self._proposed: AsyncFuture[bool] | None = None
        self.consolidations = Consolidations(resources, status, journal, accounts, tasks, mailroom, pod, self)

    # -- who wants what --------------------------------------------------------------------------

    @property
    def at_work(self) -> bool:
        """Whether any memory job has not ended."""
        return self._job is not None or self.consolidations.at_work or self._jobs_leaving > 0

    @property
    def under_way(self) -> bool:
        """Whether a job has not reported its end yet."""
        return self._job is not None or self.consolidations.at_work or bool(self._waiting)

    def after_run(self, caller: Context | None) -> None:
        """Start an extraction after a run of ``caller``, unless one failed of late."""
        if self._left_out > 0:
            self._left_out -= 1
            return
        self._extract_if_due(caller)

    def extract(self, reply: AsyncFuture[Any]) -> bool:
        """Start an extraction if enough is new; returns whether one goes on, at whose end ``reply`` is
        answered.
        """
        self._left_out = 0
        self._extract_if_due(reply.caller)
        if self._job is None:
            return False
        ended: AsyncFuture[Any] = AsyncFuture()
        ended.when_done(lambda: reply.set(None))
        self._wait_for_extractions(ended)
        return True

    def start_all(self, caller: Context | None) -> None:
        """Start the memory jobs that are due."""
        self.consolidations.asked_for = True
        self._extract_if_due(caller)
        if self._job is None:
            self.caller = caller
            self.consolidations.start(caller)
            self._answer_if_done()

    def wait_for_all(self, reply: AsyncFuture[Any], timeout: float | None) -> bool:
        """Returns whether ``reply`` will be answered, once all memory jobs have ended or their time is up;
        else none is at work.
        """
        if not self.at_work:
            return False
        self._answer_when_done(reply)
        if timeout is not None:
            self._mailroom.loop.call_later(timeout, partial(answer, reply, accepted=False))
        return True

    def _answer_when_done(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting_for_all is None:
            self._waiting_for_all = []
        self._waiting_for_all.append(reply)

    def _wait_for_extractions(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(reply)

    async def wait_for_extraction(self) -> None:
        """Wait for an extraction that is under way, for a bounded time."""
        if self._job is None:
            return
        ended: AsyncFuture[Any] = AsyncFuture()
        self._wait_for_extractions(ended)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, self._template.memory_grace)

    # -- extraction ------------------------------------------------------------------------------

    def _extract_if_due(self, caller: Context | None) -> None:
        """Start an extraction if enough is new; while one is under way it will be followed by another. Later
        ones see the context variables of ``caller``, or none.
        """
        if not self._template.manifest.memory.extract_threshold:
            return
        if self._job is not None:
            self._triggered, self.caller = True, caller
        elif self._due():
            self.caller = caller
            self._start_extraction()

    def _due(self) -> bool:
        head = self._journal.head
        start = head.pointer or 0
        if start >= len(head.items):
            return False
        return extraction_due(self._template.manifest.memory, self._conversation.context().since(start))

    def _start_extraction(self) -> None:
        from actors.memory.extraction import ExtractionActor  # noqa: PLC0415 - paid for by who extracts

        self._triggered = False
        job = self._job = ExtractionActor.make(self._mailroom, UNREGISTERED)
        job.begin()
        self._job_spending = Spending(self._resources)
        self._tasks.start(self._read(job))

    async def _read(self, job: ExtractionActor) -> None:
        """Have the job read once its start is durable, unless it was given up meanwhile."""
        from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - paid for by who extracts

        if self._job is not job:
            return
        self._journal.log.record(ExtractStart, pointer=self._journal.head.pointer)
        try:
            await self._journal.commit()
        except SessionError:  # nothing has begun, and nothing is begun at once
            if self._job is job:
                self._end_job()
                self._back_off()
                self._finish_extractions(consolidate=False)
            return
        resources, spending = self._resources, self._job_spending
        if self._job is not job or spending is None:
            return
        job.actor_ref.tell(
            Extract(
                self._journal.head,
                self._reading_budget(),
                notes_budget(resources.template.limits.context_window),
                spending.ask,
                resources.template.manifest.model.model_id,
                partial(resources.template.tools.context, resources.name),
                NotesFolder(resources.template.memory).staging,
                self.ask_pod,
                self.caller,
            )
        )

    def _reading_budget(self) -> int:
        """The tokens of history that an extraction is given at once, as we estimate them."""
        from actors.memory.findings import (  # noqa: PLC0415 - paid for by who extracts
            EXTRACTOR_PROMPT,
            EXTRACTOR_TOKENS,
        )

        window = self._template.limits.context_window
        known = None if window is None else int(window / self._conversation.density())
        answer = notes_budget(window)
        return min(EXTRACTOR_TOKENS, summariser_budget(known, answer, text_tokens(EXTRACTOR_PROMPT)))

    def ask_pod(self, message: Any) -> AsyncFuture[bool]:
        """Bring a message to the pod's mailbox."""
        answer: AsyncFuture[bool] = future_of(self._mailroom)
        self._mailroom.send(self._pod, message, answer)
        return answer

    def take(self, proposal: Proposal, reply: AsyncFuture[bool]) -> None:
        """Take what an extraction read, and answer whether it is accepted: only if its part of the history
        has not changed, and once the store has kept that.
        """
        self._tasks.start(self._take(proposal, reply))

    async def _take(self, proposal: Proposal, reply: AsyncFuture[bool]) -> None:
        if self._job is None:  # it was given up, and its end was published
            answer(reply, accepted=False)
            return
        self._proposed = reply
        spent, error = self._spent(self._job_spending), proposal.error or self._moved(proposal)
        if error is None:
            self._journal.log.append_pointer(proposal.end)
            self._journal.log.record(
                ExtractDone,
                pointer=proposal.end,
                staged=proposal.staged,
                usage=spent.usage,
                cost=spent.cost,
            )
        else:
            self._record_failure(error, spent)
        if proposal.error is not None:
            self._back_off()
        await self._end_extraction(reply, spent, accepted=error is None)

    async def _end_extraction(self, reply: AsyncFuture[bool], spent: Spent, *, accepted: bool) -> None:
        """Make the end of an extraction durable. Where the store refuses that, it has failed, which is
        published once it can be; what was staged is taken back, and nothing is read again at once. Where the
        pod ends before the store answers, what was staged stays: it may be all that is left of it.
        """
        again = accepted or self._triggered
        try:
            await self._journal.commit()
        except SessionError as error:
            if self._journal.closed:
                if not reply.done():
                    reply.set_exception(error)
                return
            self._end_job()
            self._back_off()
            if accepted:
                self._record_failure(error, spent)
                self._tasks.start(self._journal.retry())
            answer(reply, accepted=False)
            self._finish_extractions(consolidate=False)
            return
        self._end_job()
        if accepted:
            self._failures = 0
        answer(reply, accepted=accepted)
        if again and not self._status.stopping and self._due():
            self._start_extraction()
        else:
            self._finish_extractions()

    def _back_off(self) -> None:
        """Back off after a failure: skip the next automatic extractions, twice as many each time."""
        self._failures += 1
        self._left_out = min(MOST_LEFT_OUT, 2 ** (self._failures - 1))

    def _moved(self, proposal: Proposal) -> PodError | None:
        """Why the history no longer holds what was read; None where it does."""
        head = self._journal.head
        if (proposal.session_id, proposal.start) != (head.session_id, head.pointer):
            how = "compacted"
        elif proposal.end > len(head.items) or head.items[proposal.end - 1] is not proposal.last:
            how = "cut back, since the store refused its end,"
        else:
            return None
        return PodError(f"the history was {how} while it was read: what was found is left out")

    def _end_job(self) -> Spent:
        """Take the end of a job, or give it up; what it took counts in either case."""
        job, self._job = self._job, None
        spending, self._job_spending, self._proposed = self._job_spending, None, None
        if job is not None:
            self.track_leaving(cast("AsyncFuture[bool]", job.actor_ref.stop(block=False)))
        return self._spent(spending)

    def track_leaving(self, ended: AsyncFuture[bool]) -> None:
        """Count a job that has reported its end as at work until ``ended`` resolves: it may still write."""
        self._jobs_leaving += 1
        ended.when_done(self.note_job_ended)

    def count_as_at_work(self) -> None:
        """Count one memory job more as at work, until ``note_job_ended``."""
        self._jobs_leaving += 1

    def note_job_ended(self) -> None:
        """Count one job less as at work, and answer who waits for the last."""
        self._jobs_leaving = max(self._jobs_leaving - 1, 0)
        self._answer_if_done()

    def _spent(self, spending: Spending | None) -> Spent:
        return self._accounts.count_helper(spending)

    def _record_failure(self, error: BaseException, spent: Spent) -> None:
        self._journal.log.record_end(
            ExtractFailed, error=Failure.of(error), usage=spent.usage, cost=spent.cost
        )

    def _finish_extractions(self, *, consolidate: bool = True) -> None:
        """Go on after the last extraction that was due: consolidate what is staged, answer who waits."""
        if consolidate and not self._status.stopping:
            self.consolidations.start(self.caller)
        waiting, self._waiting = self._waiting, None
        _answer_all(waiting)
        self._answer_if_done()

    def _answer_if_done(self) -> None:
        """Answer those who wait for all memory jobs, if that was the last."""
        if not self.at_work:
            self.caller = None
            waiting, self._waiting_for_all = self._waiting_for_all, None
            _answer_all(waiting)

    # -- the end of the pod ----------------------------------------------------------------------

    async def finish(self) -> None:
        """Wait for the memory jobs that are under way. Those that take too long are cancelled, and waited for
        once more, for a bounded time.
        """
        if not self.at_work:
            return
        if not await self._wait_until_done(self._template.memory_grace):
            if self._proposed is not None:  # its end is on its way to the store
                await self._wait_until_done(self._template.store_grace)
            if self.at_work:
                self._abandon()
                await self._wait_until_done(self._template.grace + self._template.store_grace)

    async def _wait_until_done(self, seconds: float) -> bool:
        ended: AsyncFuture[Any] = AsyncFuture()
        self._answer_when_done(ended)
        if not self.at_work:
            return True
        try:
            await asyncio.wait_for(ended, seconds)
        except TimeoutError:
            return False
        return True

    def _abandon(self) -> None:
        """Leave memory jobs to themselves: what an extraction did not get to is read when the session is
        resumed, and what is staged stays until another consolidation.
        """
        self._cancel_jobs()
        self.consolidations.abandon()
        if self._job is not None:
            self._record_failure(PodError("the pod stopped before its memory was read"), self._end_job())
        self._finish_extractions(consolidate=False)

    def _cancel_jobs(self) -> None:
        """Cancel the model requests of memory jobs that are ``at_work``, until they have ended."""
        self.consolidations.cancel()
        if self._job is not None:
            self.track_leaving(self._job.leave(self._template.grace))

    def give_up(self) -> None:
        """Cancel all memory jobs at the end of the pod, and answer everyone who waits for them."""
        self._cancel_jobs()
        self._job = None
        if self._proposed is not None:
            answer(self._proposed, accepted=False)
        for reply in self._waiting_for_all or ():
            answer(reply, accepted=False)
        _answer_all(self._waiting)
        self._waiting_for_all = self._waiting = None

    async def wait_for_cancelled(self) -> None:
        """Wait until the jobs that were cancelled have come to their end, for a bounded time."""
        await self._wait_until_done(self._template.grace + self._template.store_grace)


def _answer_all(waiting: list[AsyncFuture[Any]] | None) -> None:
    """Answer everyone who waits, except those who have given up."""
    for reply in waiting or ():
        answer(reply, accepted=True)
