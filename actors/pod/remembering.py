"""``RememberingActor``: has its history read by a detached actor, keeps how far it was read, and has
what was found worked into lasting memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pykka._envelope import Envelope

from actors.compaction.compose import is_of_compaction
from actors.compaction.policy import extraction_due
from actors.pod.compacting import CompactingActor
from actors.pod.consolidation import Consolidate, Consolidated, Consolidating, ConsolidationActor
from actors.pod.lasting import LastingMemory
from actors.pod.memory import Extract, ExtractionActor, Proposal
from actors.pod.recall import recalled
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.errors import Failure, PodError
from protocol.events import (
    Alert,
    ConsolidateDone,
    ConsolidateFailed,
    ConsolidateStart,
    ExtractDone,
    ExtractFailed,
    ExtractStart,
    SystemMessage,
)
from protocol.items import Part, SystemItem, TextPart

#: Automatic extractions are left out after failures in a row: 1, 2, 4 … up to this many.
MOST_LEFT_OUT = 32
#: How long a stop and a compaction wait for an extraction that is under way, in seconds.
JOB_GRACE = 5.0
#: How long the first run of a session waits for what memory holds of its input, in seconds.
RECALL_SECONDS = 3.0


class RememberingActor(CompactingActor):
    """One extraction at a time; a trigger meanwhile has the newest read once it has ended. Then one
    consolidation at a time, which goes on by itself until nothing is due.
    """

    _job: ExtractionActor | None = None
    _librarian: ConsolidationActor | None = None
    #: Whether there may be more to consolidate, and whether somebody asked for it.
    _more_staged = False
    _recalled = False
    _asked_to_consolidate = False
    _dirty = False
    _failures = 0
    _left_out = 0
    #: Who waits for the extraction, and who for all memory jobs.
    _waiting: list[AsyncFuture[Any]] | None = None
    _waiting_for_all: list[AsyncFuture[Any]] | None = None

    # -- commands --------------------------------------------------------------------------------

    @property
    def _memory_at_work(self) -> bool:
        return self._job is not None or self._librarian is not None

    def _on_spawn_memory_jobs(self, _: commands.SpawnMemoryJobs) -> None:
        self._asked_to_consolidate = True
        self._remember()
        if self._job is None:
            self._consolidate()

    def _on_wait_for_memory_jobs(self, command: commands.WaitForMemoryJobs) -> Any:
        if not self._memory_at_work:
            return True
        reply = self.defer_reply()
        self._when_all_done(reply)
        if command.timeout is not None:
            assert self._mailroom is not None
            self._mailroom.loop.call_later(command.timeout, _give_up, reply)
        return DEFERRED

    def _on_try_post_run_extract(self, _: commands.TryPostRunExtract) -> Any:
        self._left_out = 0
        self._remember()
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

    def _when_all_done(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting_for_all is None:
            self._waiting_for_all = []
        self._waiting_for_all.append(reply)

    # -- a job -----------------------------------------------------------------------------------

    def _remember_after_run(self) -> None:
        """A run has ended: have it read, unless that failed too often of late or only on command."""
        if self._parts.manifest.memory.schedule != "after_run":
            return
        if self._left_out > 0:
            self._left_out -= 1
            return
        self._remember()

    def _remember(self) -> None:
        """Start an extraction if enough is new; while one is under way it will be followed by another."""
        if not self._parts.manifest.memory.extract_threshold:
            return
        if self._job is not None:
            self._dirty = True
        elif self._extraction_due():
            self._start_job()

    def _extraction_due(self) -> bool:
        head = self._head
        start = head.pointer or 0
        if start >= len(head.items):
            return False
        return extraction_due(self._parts.manifest.memory, self._context.since(start))

    def _start_job(self) -> None:
        assert self._mailroom is not None
        self._dirty = False
        parts = self._parts
        job = self._job = ExtractionActor.make(self._mailroom, _UNREGISTERED)
        job.begin()
        self._log.record(ExtractStart, pointer=self._head.pointer)
        self._commit(self._advance)
        job.actor_ref.tell(
            Extract(
                self._head,
                parts.client,
                parts.manifest.model.model_id,
                parts.tools.context(parts.name),
                parts.memory.staging,
                self._propose,
            )
        )

    def _propose(self, proposal: Proposal) -> AsyncFuture[bool]:
        """Bring a proposal to this pod's mailbox."""
        assert self._mailroom is not None
        answer: AsyncFuture[bool] = AsyncFuture()
        self._mailroom.post(self._receive, Envelope(proposal, answer))
        return answer

    def _on_proposal(self, proposal: Proposal) -> bool:
        """Whether what an extraction read is taken: only if nothing has moved under it."""
        job, self._job = self._job, None
        if job is not None:
            job.stop()
        head = self._head
        error = proposal.error
        if error is None and (proposal.session_id, proposal.start) != (head.session_id, head.pointer):
            error = PodError("the history was compacted while it was read: what was found is left out")
        if error is None:
            self._log.point(proposal.end)
            self._log.record(ExtractDone, pointer=proposal.end, staged=proposal.staged)
            self._failures = 0
        else:
            self._log.record(ExtractFailed, error=Failure.of(error))
            self._failures += 1
            self._left_out = min(MOST_LEFT_OUT, 2 ** (self._failures - 1))
        self._commit(self._advance)
        if error is None and not self._stopping and self._extraction_due():
            self._start_job()
        else:
            self._remembered()
        return error is None

    def _remembered(self) -> None:
        """The extractions that were due have ended: now for what they staged."""
        if not self._stopping:
            self._consolidate()
        waiting, self._waiting = self._waiting, None
        _answer(waiting)
        self._memory_done()

    def _memory_done(self) -> None:
        if not self._memory_at_work:
            waiting, self._waiting_for_all = self._waiting_for_all, None
            _answer(waiting)

    def _once_remembered(self, then: Callable[[], None]) -> None:
        """Do ``then`` when the memory jobs that are under way have ended, or have taken too long."""
        assert self._mailroom is not None
        ended: AsyncFuture[Any] = AsyncFuture()
        ended.when_done(then)
        self._when_all_done(ended)
        self._mailroom.loop.call_later(JOB_GRACE, self._abandon_jobs)

    def _abandon_jobs(self) -> None:
        """Leave memory jobs to themselves: what an extraction did not get to is read when the session is
        resumed, and what is staged stays until another consolidation.
        """
        librarian, self._librarian = self._librarian, None
        if librarian is not None:
            librarian.leave()
        if self._job is not None:
            self._job.stop()
            self._job = None
            self._remembered()
        self._memory_done()

    async def _before_fold(self) -> None:
        await self._job_ended()

    async def _job_ended(self) -> None:
        """Wait for an extraction that is under way, for a bounded time."""
        if self._job is None:
            return
        ended: AsyncFuture[Any] = AsyncFuture()
        self._when_remembered(ended)
        try:
            await asyncio.wait_for(ended, JOB_GRACE)
        except TimeoutError:
            return

    # -- recall ----------------------------------------------------------------------------------

    @property
    def _recall_due(self) -> bool:
        """Whether the run that begins is the first of a session that is new: its history is no other's."""
        if not self._parts.manifest.memory.recall_tokens or self._resume is not None or self._recalled:
            return False
        self._recalled = True
        return not any(map(is_of_compaction, self._head.items))

    def _recall(self, content: tuple[Part, ...], then: Callable[[], None]) -> None:
        """Bring what memory holds of ``content`` into the history, then go on whatever came of it."""
        words = "\n".join(part.text for part in content if isinstance(part, TextPart))
        run_id = self._run_id

        def found(item: SystemItem | None, error: BaseException | None) -> None:
            if item is not None and self._run_id == run_id:
                self._log.record(SystemMessage, self._run_id, item=item)
            elif isinstance(error, OSError | TimeoutError):
                self._log.record(Alert, text="memory could not be searched", error=Failure.of(error))
            then()

        self._do(_recalled(self._parts.memory, words, self._parts.manifest.memory.recall_tokens), found)

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
        librarian = self._librarian = ConsolidationActor.make(self._mailroom, _UNREGISTERED)
        librarian.begin()
        ctx = parts.tools.context(parts.name)
        librarian.actor_ref.tell(
            Consolidate(parts.memory, parts.manifest, parts.client, ctx, not asked, self._post)
        )

    def _on_consolidating(self, message: Consolidating) -> None:
        if self._librarian is not None:
            self._log.record(ConsolidateStart, files=message.files, size=message.size)
            self._commit(self._advance)

    def _on_consolidated(self, message: Consolidated) -> None:
        librarian, self._librarian = self._librarian, None
        if librarian is None:  # it was left to itself
            return
        librarian.stop()
        for text in message.alerts:
            self._log.record(Alert, text=text)
        if message.error is not None:
            self._log.record(ConsolidateFailed, error=Failure.of(message.error))
        elif message.files:
            self._log.record(
                ConsolidateDone, files=message.files, notes=message.notes, mechanical=message.mechanical
            )
        self._commit(self._advance)
        more = self._more_staged or (message.files > 0 and message.error is None)
        if more and not self._stopping:
            self._consolidate()
        self._memory_done()


class _Unregistered:
    """Extraction actors are known to their pod alone."""

    def register(self, actor_ref: Any, /) -> None:
        """Nobody looks for it."""

    def unregister(self, actor_ref: Any, /) -> None:
        """Nobody looked for it."""


_UNREGISTERED = _Unregistered()


async def _recalled(memory: LastingMemory, words: str, budget: int) -> SystemItem | None:
    return await asyncio.wait_for(asyncio.to_thread(recalled, memory, words, budget), RECALL_SECONDS)


def _answer(waiting: list[AsyncFuture[Any]] | None) -> None:
    for reply in waiting or ():
        if not reply.done():
            reply.set(True)


def _give_up(reply: AsyncFuture[Any]) -> None:
    if not reply.done():
        reply.set(False)
