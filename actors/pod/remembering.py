"""``RememberingActor``: has what was found worked into lasting memory, and brings it into new sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

from pykka._envelope import Envelope

from actors.compaction.compose import is_of_compaction
from actors.pod.extracting import UNREGISTERED, ExtractingActor, answer_all
from actors.pod.memory.consolidation import Consolidate, Consolidated, Consolidating, ConsolidationActor
from actors.pod.memory.lasting import LastingMemory
from actors.pod.spending import Spending
from actors.pod.stepping import STOP_GRACE
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.errors import Failure, PodError
from protocol.events import Alert, ConsolidateDone, ConsolidateFailed, ConsolidateStart, SystemMessage
from protocol.items import Part, SystemItem, TextPart

#: How long the first run of a session waits for what memory holds of its input, in seconds.
RECALL_SECONDS = 3.0


class RememberingActor(ExtractingActor):
    """After each extraction one consolidation at a time, which goes on by itself until nothing is due."""

    _librarian: ConsolidationActor | None = None
    _librarian_spending: Spending | None = None
    #: Whether the consolidation under way was told of.
    _consolidating = False
    #: Whether there may be more to consolidate, and whether somebody asked for it.
    _more_staged = False
    _asked_to_consolidate = False
    _recalled = False
    _waiting_for_all: list[AsyncFuture[Any]] | None = None

    # -- commands --------------------------------------------------------------------------------

    @property
    def _memory_at_work(self) -> bool:
        return self._job is not None or self._librarian is not None or self._jobs_leaving > 0

    def _on_spawn_memory_jobs(self, _: commands.SpawnMemoryJobs) -> None:
        self._asked_to_consolidate = True
        self._remember(self._caller)
        if self._job is None:
            self._memory_caller = self._caller
            self._consolidate()
            self._memory_done()

    def _on_wait_for_memory_jobs(self, command: commands.WaitForMemoryJobs) -> Any:
        if not self._memory_at_work:
            return True
        reply = self.defer_reply()
        self._when_all_done(reply)
        if command.timeout is not None:
            assert self._mailroom is not None
            self._mailroom.loop.call_later(command.timeout, _give_up, reply)
        return DEFERRED

    def _when_all_done(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting_for_all is None:
            self._waiting_for_all = []
        self._waiting_for_all.append(reply)

    def _remembered(self, *, consolidate: bool = True) -> None:
        """The extractions that were due have ended: now for what they staged."""
        if consolidate and not self._stopping:
            self._consolidate()
        super()._remembered()
        self._memory_done()

    def _memory_done(self) -> None:
        if not self._memory_at_work:
            if self._memory_caller is not None:
                self._memory_caller = None
            waiting, self._waiting_for_all = self._waiting_for_all, None
            answer_all(waiting)

    def _forsake(self) -> None:
        """The pod has ended: nobody need wait for its memory jobs any more, and those end too."""
        self._leave_jobs()
        self._job = None
        if self._proposed is not None and not self._proposed.done():
            self._proposed.set(False)
        for reply in self._waiting_for_all or ():
            _give_up(reply)
        answer_all(self._waiting)
        self._waiting_for_all = self._waiting = None

    def _once_remembered(self, then: Callable[[], None]) -> None:
        """Do ``then`` when the memory jobs that are under way have ended. Those that take too long are
        cancelled, and waited for once more; ``then`` is done whatever they do.
        """
        assert self._mailroom is not None
        ended: AsyncFuture[Any] = AsyncFuture()
        ended.when_done(then)
        self._when_all_done(ended)
        self._mailroom.loop.call_later(self._parts.memory_grace, self._abandon_jobs)

    def _abandon_jobs(self) -> None:
        """Leave memory jobs to themselves: what an extraction did not get to is read when the session is
        resumed, and what is staged stays until another consolidation.
        """
        if self._proposed is not None:  # its end is on its way to the store
            return
        self._leave_jobs()
        if self._consolidating:
            left = PodError("the pod has stopped while memory was consolidated; nothing staged is lost")
            self._consolidation_ended(Consolidated(error=left))
        if self._job is not None:
            self._job_failed(PodError("the pod stopped before its memory was read"), self._end_job())
        assert self._mailroom is not None
        self._mailroom.loop.call_later(self._parts.grace + STOP_GRACE, self._jobs_left)
        self._remembered(consolidate=False)

    def _leave_jobs(self) -> None:
        """Cancel what memory jobs ask of a model; ``_memory_at_work`` until they have come to their end."""
        librarian, self._librarian = self._librarian, None
        for job in (librarian, self._job):
            if job is not None:
                self._let_go(job.leave(self._parts.grace))

    async def _jobs_ended(self) -> None:
        """Wait until the jobs that were cancelled have come to their end, for a bounded time."""
        if self._memory_at_work:
            ended: AsyncFuture[Any] = AsyncFuture()
            self._when_all_done(ended)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended, self._parts.grace + STOP_GRACE)

    def _jobs_left(self) -> None:
        """A job that has not come to its end by now has a disk that does not answer."""
        self._jobs_leaving = 0
        self._memory_done()

    # -- recall ----------------------------------------------------------------------------------

    @property
    def _recall_due(self) -> bool:
        """Whether the run that begins is the first of a session that is new: its history is no other's."""
        if not self._parts.manifest.memory.recall_tokens or self._resume is not None or self._recalled:
            return False
        return not any(map(is_of_compaction, self._head.items))

    def _recall(self, content: tuple[Part, ...], then: Callable[[], None]) -> None:
        """Bring what memory holds of ``content`` into the history, then go on whatever came of it."""
        words = "\n".join(part.text for part in content if isinstance(part, TextPart))
        run_id = self._run_id
        self._recalled = True

        def found(item: SystemItem | None, error: BaseException | None) -> None:
            if item is not None and self._run_id == run_id:
                self._log.record(SystemMessage, self._run_id, item=item)
            elif isinstance(error, OSError | TimeoutError):
                self._log.record(Alert, text="memory could not be searched", error=Failure.of(error))
            then()

        self._do(
            _recalled(self._parts.memory, words, self._parts.manifest.memory.recall_tokens),
            found,
            what="the search in memory",
            caller=None,
        )

    # -- consolidation ---------------------------------------------------------------------------

    def _consolidate(self) -> None:
        """Start a consolidation, which looks for itself whether it is due."""
        parts = self._parts
        section = parts.manifest.memory
        if not (section.consolidate_files or section.consolidate_bytes):
            return
        if self._librarian is not None:
            self._more_staged = True
            return
        assert self._mailroom is not None
        asked, self._asked_to_consolidate, self._more_staged = self._asked_to_consolidate, False, False
        librarian = self._librarian = ConsolidationActor.make(self._mailroom, UNREGISTERED)
        librarian.begin()
        ctx, spending = parts.tools.context(parts.name), Spending(parts)
        self._librarian_spending = spending
        librarian.actor_ref.tell(
            Consolidate(
                parts.memory,
                parts.manifest,
                spending.ask,
                ctx,
                not asked,
                self._ask_to_begin,
                self._post,
                self._memory_caller,
            )
        )

    def _ask_to_begin(self, message: Consolidating) -> AsyncFuture[bool]:
        """Bring word of a consolidation that is about to begin to this pod's mailbox."""
        assert self._mailroom is not None
        answer: AsyncFuture[bool] = AsyncFuture()
        self._mailroom.post(self._receive, Envelope(message, answer))
        return answer

    def _on_consolidating(self, message: Consolidating) -> Any:
        """Whether a consolidation may begin: once that is told, and not where the store refuses it."""
        librarian = self._librarian
        if librarian is None:
            return False
        reply = self.defer_reply()

        def told() -> None:
            reply.set(self._librarian is librarian)
            self._advance()

        def refused(error: BaseException) -> None:
            self._store_refused(error)
            self._consolidating = False
            reply.set(False)

        self._consolidating = True
        self._log.record(ConsolidateStart, files=message.files, size=message.size)
        self._commit(told, refused)
        return DEFERRED

    def _on_consolidated(self, message: Consolidated) -> None:
        librarian, self._librarian = self._librarian, None
        if librarian is None:  # it was left to itself
            return
        self._let_go(cast("AsyncFuture[bool]", librarian.actor_ref.stop(block=False)))
        self._consolidation_ended(message)
        more = self._more_staged or (message.files > 0 and message.error is None)

        def told() -> None:
            if more and not self._stopping:
                self._consolidate()
            self._memory_done()
            self._advance()

        def refused(error: BaseException) -> None:
            self._store_refused(error)
            self._memory_done()

        self._commit(told, refused)

    def _consolidation_ended(self, message: Consolidated) -> None:
        told, self._consolidating = self._consolidating, False
        spent = self._spent(self._librarian_spending)
        self._librarian_spending = None
        for text in message.alerts:
            self._log.record(Alert, text=text)
        if message.error is not None:
            failure = Failure.of(message.error)
            if told:
                self._log.record_end(ConsolidateFailed, error=failure, usage=spent.usage, cost=spent.cost)
            else:
                self._log.record(Alert, text="memory could not be consolidated", error=failure)
        elif message.files:
            self._log.record_end(
                ConsolidateDone,
                files=message.files,
                notes=message.notes,
                mechanical=message.mechanical,
                left=message.left,
                usage=spent.usage,
                cost=spent.cost,
            )


async def _recalled(memory: LastingMemory, words: str, budget: int) -> SystemItem | None:
    from actors.pod.memory.recall import recalled  # noqa: PLC0415 - paid for by who recalls

    return await asyncio.wait_for(asyncio.to_thread(recalled, memory, words, budget), RECALL_SECONDS)


def _give_up(reply: AsyncFuture[Any]) -> None:
    if not reply.done():
        reply.set(False)
