"""``MemoryJobs``: a pod's extractions and consolidations together: who waits for them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import Context
from functools import partial
from typing import Any

from actors.pod.memory.consolidations import Consolidations
from actors.pod.memory.extractions import Extractions
from actors.pod.memory.replies import answer, answer_all
from actors.pod.pod_parts import PodParts
from actors.runtime.actor import AsyncActor
from actors.runtime.future import AsyncFuture
from actors.runtime.on_loop import future_of


class MemoryJobs:
    """The memory jobs of one pod, each a detached actor.

    One extraction runs at a time; a trigger meanwhile causes another. It is followed by one consolidation at
    a time, which continues by itself until nothing is due.
    """

    __slots__ = (
        "_jobs_leaving",
        "_mailroom",
        "_pod",
        "_template",
        "_waiting",
        "caller",
        "consolidations",
        "extractions",
    )

    def __init__(self, parts: PodParts, pod: AsyncActor) -> None:
        """``pod`` gets the messages of the detached actors."""
        self._template = parts.resources.template
        self._mailroom = parts.mailroom
        self._pod = pod
        #: The context of who wanted memory jobs last, as long as any is at work.
        self.caller: Context | None = None
        #: Jobs that have said all, or were cancelled, and have not come to their end.
        self._jobs_leaving = 0
        #: Who waits for all memory jobs.
        self._waiting: list[AsyncFuture[Any]] | None = None
        self.extractions = Extractions(parts, self)
        self.consolidations = Consolidations(parts, pod, self)

    # -- who wants what --------------------------------------------------------------------------

    @property
    def at_work(self) -> bool:
        """Whether any memory job has not ended."""
        return self.extractions.at_work or self.consolidations.at_work or self._jobs_leaving > 0

    @property
    def under_way(self) -> bool:
        """Whether a job has not reported its end yet."""
        return self.extractions.under_way or self.consolidations.at_work

    def start_all(self, caller: Context | None) -> None:
        """Start the memory jobs that are due."""
        self.consolidations.asked_for = True
        self.extractions.start_if_due(caller)
        if not self.extractions.at_work:
            self.caller = caller
            self.consolidations.start(caller)
            self.answer_if_done()

    def wait_for_all(self, reply: AsyncFuture[Any], timeout: float | None) -> bool:
        """Returns whether ``reply`` will be answered, once all memory jobs have ended or their time is up; if
        not, none is at work.
        """
        if not self.at_work:
            return False
        self._answer_when_done(reply)
        if timeout is not None:
            self._mailroom.loop.call_later(timeout, partial(answer, reply, accepted=False))
        return True

    def _answer_when_done(self, reply: AsyncFuture[Any]) -> None:
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(reply)

    async def wait_for_extraction(self) -> None:
        """Wait for an extraction that is under way, for a bounded time."""
        if not self.extractions.at_work:
            return
        ended: AsyncFuture[Any] = AsyncFuture()
        self.extractions.wait(ended)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, self._template.memory_grace)

    # -- as its jobs see it ----------------------------------------------------------------------

    def ask_pod(self, message: Any) -> AsyncFuture[bool]:
        """Send a message to the pod's mailbox."""
        answer: AsyncFuture[bool] = future_of(self._mailroom)
        self._mailroom.send(self._pod, message, answer)
        return answer

    def track_leaving(self, ended: AsyncFuture[bool]) -> None:
        """Count a job that has reported its end as at work until ``ended`` resolves: it may still write."""
        self._jobs_leaving += 1
        ended.when_done(self.note_job_ended)

    def count_as_at_work(self) -> None:
        """Count one more memory job as at work, until ``note_job_ended``."""
        self._jobs_leaving += 1

    def note_job_ended(self) -> None:
        """Count one job less as at work, and answer those who wait if it was the last."""
        self._jobs_leaving = max(self._jobs_leaving - 1, 0)
        self.answer_if_done()

    def consolidate(self) -> None:
        """Consolidate what extractions have staged."""
        self.consolidations.start(self.caller)

    def answer_if_done(self) -> None:
        """Answer those who wait for all memory jobs, if that was the last."""
        if not self.at_work:
            self.caller = None
            waiting, self._waiting = self._waiting, None
            answer_all(waiting)

    # -- the end of the pod ----------------------------------------------------------------------

    async def finish(self) -> None:
        """Wait for the memory jobs under way. Those that take too long are cancelled, and waited for once
        more, for a bounded time.
        """
        if not self.at_work:
            return
        if not await self._wait_until_done(self._template.memory_grace):
            if self.extractions.is_ending:  # its end is on its way to the store
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
        """Abandon memory jobs: what an extraction did not get to is read when the session is resumed, and
        what is staged stays until another consolidation.
        """
        self._cancel_jobs()
        self.consolidations.abandon()
        self.extractions.abandon()

    def _cancel_jobs(self) -> None:
        """Cancel the model requests of memory jobs that are ``at_work``, until they have ended."""
        self.consolidations.cancel()
        self.extractions.cancel()

    def give_up(self) -> None:
        """Cancel all memory jobs at the end of the pod, and answer everyone who waits for them."""
        self._cancel_jobs()
        self.extractions.give_up()
        for reply in self._waiting or ():
            answer(reply, accepted=False)
        self._waiting = None

    async def wait_for_cancelled(self) -> None:
        """Wait until the jobs that were cancelled have come to their end, for a bounded time."""
        await self._wait_until_done(self._template.grace + self._template.store_grace)
