"""``Extractions``: extracts from a pod's history what will matter later, one job at a time."""

from __future__ import annotations

from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from actors.compaction.policy import extraction_due, notes_budget, summariser_budget
from actors.compaction.tokens import text_tokens
from actors.memory.messages import Extract, Proposal
from actors.pod.accounts.spending import Spending
from actors.pod.accounts.spent import Spent
from actors.pod.memory.jobs import Jobs
from actors.pod.memory.replies import answer, answer_all
from actors.pod.pod_parts import PodParts
from actors.runtime.actor import UNREGISTERED
from actors.runtime.future import AsyncFuture
from protocol.errors import Failure, PodError, SessionError
from protocol.events import ExtractDone, ExtractFailed, ExtractStart

if TYPE_CHECKING:
    from actors.memory.extraction import ExtractionActor

#: Automatic extractions are left out after failures in a row: 1, 2, 4 … up to this many.
MOST_LEFT_OUT = 32


class Extractions:
    """Runs one extraction after the other, each in a detached actor; a trigger meanwhile causes one more."""

    __slots__ = (
        "_accounts",
        "_conversation",
        "_failures",
        "_job",
        "_jobs",
        "_journal",
        "_left_out",
        "_mailroom",
        "_proposed",
        "_resources",
        "_spending",
        "_status",
        "_tasks",
        "_template",
        "_triggered",
        "_waiting",
    )

    def __init__(self, parts: PodParts, jobs: Jobs) -> None:
        self._resources = parts.resources
        self._template = parts.resources.template
        self._status = parts.status
        self._journal = parts.journal
        self._accounts = parts.accounts
        self._conversation = parts.conversation
        self._tasks = parts.tasks
        self._mailroom = parts.mailroom
        self._jobs = jobs
        self._job: ExtractionActor | None = None
        self._spending: Spending | None = None
        #: Whether somebody wanted an extraction while the last was under way.
        self._triggered = False
        self._failures = self._left_out = 0
        #: Who waits for the extractions that are due.
        self._waiting: list[AsyncFuture[Any]] | None = None
        #: Who is answered once the end that the job has come to is published.
        self._proposed: AsyncFuture[bool] | None = None

    @property
    def at_work(self) -> bool:
        """Whether an extraction has not reported its end yet."""
        return self._job is not None

    @property
    def under_way(self) -> bool:
        """Whether an extraction is at work, or somebody waits for one."""
        return self._job is not None or bool(self._waiting)

    @property
    def is_ending(self) -> bool:
        """Whether the end of an extraction is on its way to the store."""
        return self._proposed is not None

    def after_run(self, caller: Context | None) -> None:
        """Start an extraction after a run of ``caller``, unless one failed recently."""
        if self._left_out > 0:
            self._left_out -= 1
            return
        self.start_if_due(caller)

    def extract(self, reply: AsyncFuture[Any]) -> bool:
        """Start an extraction if enough is new; returns whether one is under way, whose end answers
        ``reply``.
        """
        self._left_out = 0
        self.start_if_due(reply.caller)
        if self._job is None:
            return False
        ended: AsyncFuture[Any] = AsyncFuture()
        ended.when_done(lambda: reply.set(None))
        self.wait(ended)
        return True

    def wait(self, reply: AsyncFuture[Any]) -> None:
        """Answer ``reply`` once no extraction is under way or due."""
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(reply)

    def start_if_due(self, caller: Context | None) -> None:
        """Start an extraction if enough is new; while one is under way, another follows it. Later ones see
        the context variables of ``caller``, or none.
        """
        if not self._template.manifest.memory.extract_threshold:
            return
        if self._job is not None:
            self._triggered, self._jobs.caller = True, caller
        elif self._due():
            self._jobs.caller = caller
            self._start_extraction()

    def _due(self) -> bool:
        head = self._journal.head
        start = head.pointer or 0
        if start >= len(head.items):
            return False
        return extraction_due(self._template.manifest.memory, self._conversation.context().since(start))

    def _start_extraction(self) -> None:
        from actors.memory.extraction import ExtractionActor  # noqa: PLC0415 - paid for by whoever extracts

        self._triggered = False
        job = self._job = ExtractionActor.make(self._mailroom, UNREGISTERED)
        job.begin()
        self._spending = Spending(self._resources)
        self._tasks.start(self._read(job))

    async def _read(self, job: ExtractionActor) -> None:
        """Have the job read once its start is durable, unless it was given up meanwhile."""
        from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - paid for by whoever extracts

        if self._job is not job:
            return
        self._journal.log.record(ExtractStart, pointer=self._journal.head.pointer)
        try:
            await self._journal.commit()
        except SessionError:  # nothing has begun, and nothing is begun at once
            if self._job is job:
                self._end_job()
                self._back_off()
                self._finish(consolidate=False)
            return
        resources, spending = self._resources, self._spending
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
                self._jobs.ask_pod,
                self._jobs.caller,
            )
        )

    def _reading_budget(self) -> int:
        """How many (estimated) tokens of history one extraction is given."""
        from actors.memory.findings import (  # noqa: PLC0415 - paid for by whoever extracts
            EXTRACTOR_PROMPT,
            EXTRACTOR_TOKENS,
        )

        window = self._template.limits.context_window
        known = None if window is None else int(window / self._conversation.density())
        answer = notes_budget(window)
        return min(EXTRACTOR_TOKENS, summariser_budget(known, answer, text_tokens(EXTRACTOR_PROMPT)))

    def take(self, proposal: Proposal, reply: AsyncFuture[bool]) -> None:
        """Take the result of an extraction, and answer whether it is accepted: only if its part of the
        history has not changed, and once the store has kept that.
        """
        self._tasks.start(self._take(proposal, reply))

    async def _take(self, proposal: Proposal, reply: AsyncFuture[bool]) -> None:
        if self._job is None:  # it was given up, and its end was published
            answer(reply, accepted=False)
            return
        self._proposed = reply
        spent, error = self._spent(self._spending), proposal.error or self._moved(proposal)
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
        """Make the end of an extraction durable.

        If the store refuses that, the extraction has failed, which is published once it can be; what it
        staged is taken back, and nothing is read again at once. If the pod ends before the store answers,
        what was staged stays: it may be all that is left of it.
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
            self._finish(consolidate=False)
            return
        self._end_job()
        if accepted:
            self._failures = 0
        answer(reply, accepted=accepted)
        if again and not self._status.stopping and self._due():
            self._start_extraction()
        else:
            self._finish()

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
            how = "truncated (the store refused its last entries)"
        else:
            return None
        return PodError(
            f"the history was {how} during a memory extraction: what the extraction found is dropped"
        )

    def _end_job(self) -> Spent:
        """Handle the end of a job, or give it up; what it used up counts in either case."""
        job, self._job = self._job, None
        spending, self._spending, self._proposed = self._spending, None, None
        if job is not None:
            self._jobs.track_leaving(cast("AsyncFuture[bool]", job.actor_ref.stop(block=False)))
        return self._spent(spending)

    def _spent(self, spending: Spending | None) -> Spent:
        return self._accounts.count_helper(spending)

    def _record_failure(self, error: BaseException, spent: Spent) -> None:
        self._journal.log.record_end(
            ExtractFailed, error=Failure.of(error), usage=spent.usage, cost=spent.cost
        )

    def _finish(self, *, consolidate: bool = True) -> None:
        """Go on after the last extraction that was due: consolidate what is staged, and answer those who
        wait.
        """
        if consolidate and not self._status.stopping:
            self._jobs.consolidate()
        waiting, self._waiting = self._waiting, None
        answer_all(waiting)
        self._jobs.answer_if_done()

    # -- the end of the pod ----------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel an extraction's requests to its model, until it has ended."""
        if self._job is not None:
            self._jobs.track_leaving(self._job.leave(self._template.grace))

    def abandon(self) -> None:
        """Abandon an extraction: what it did not get to is read when the session is resumed."""
        if self._job is not None:
            self._record_failure(
                PodError("the pod stopped before the memory extraction ended"), self._end_job()
            )
        self._finish(consolidate=False)

    def give_up(self) -> None:
        """Expect nothing more from an extraction, and answer everyone who waits for one."""
        self._job = None
        if self._proposed is not None:
            answer(self._proposed, accepted=False)
        answer_all(self._waiting)
        self._waiting = None
