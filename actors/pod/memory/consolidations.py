"""``Consolidations``: merges what extractions have staged into lasting memory, one job at a time."""

from __future__ import annotations

from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from actors.memory.messages import Consolidate, Consolidated, Consolidating
from actors.pod.accounts.spending import Spending
from actors.pod.memory.jobs import Jobs
from actors.pod.memory.replies import answer
from actors.pod.pod_parts import PodParts
from actors.runtime.actor import UNREGISTERED, AsyncActor
from actors.runtime.future import AsyncFuture
from protocol.errors import Failure, PodError, SessionError
from protocol.events import Alert, ConsolidateDone, ConsolidateFailed, ConsolidateStart

if TYPE_CHECKING:
    from actors.memory.consolidation import ConsolidationActor


class Consolidations:
    """Runs one consolidation after the other, each in a detached actor, as long as any is due."""

    __slots__ = (
        "_accounts",
        "_consolidator",
        "_jobs",
        "_journal",
        "_mailroom",
        "_more_staged",
        "_pod",
        "_published",
        "_resources",
        "_spending",
        "_status",
        "_tasks",
        "asked_for",
    )

    def __init__(self, parts: PodParts, pod: AsyncActor, jobs: Jobs) -> None:
        self._resources = parts.resources
        self._status = parts.status
        self._journal = parts.journal
        self._accounts = parts.accounts
        self._tasks = parts.tasks
        self._mailroom = parts.mailroom
        self._pod = pod
        self._jobs = jobs
        self._consolidator: ConsolidationActor | None = None
        self._spending: Spending | None = None
        #: Whether the start of the consolidation under way was published.
        self._published = False
        #: Whether there may be more to consolidate.
        self._more_staged = False
        #: Whether somebody asked for one, due or not.
        self.asked_for = False

    @property
    def at_work(self) -> bool:
        """Whether a consolidation has not reported its end yet."""
        return self._consolidator is not None

    def start(self, caller: Context | None) -> None:
        """Start a consolidation, which checks itself whether it is due; its client sees the context of
        ``caller``.
        """
        resources = self._resources
        section = resources.template.manifest.memory
        if not (section.consolidate_files or section.consolidate_bytes):
            return
        if self._consolidator is not None:
            self._more_staged = True
            return
        from actors.memory.consolidation import ConsolidationActor  # noqa: PLC0415 - paid for by whoever consolidates
        from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - the same

        asked, self.asked_for, self._more_staged = self.asked_for, False, False
        consolidator = self._consolidator = ConsolidationActor.make(self._mailroom, UNREGISTERED)
        consolidator.begin()
        context = partial(resources.template.tools.context, resources.name)
        spending = Spending(resources)
        self._spending = spending
        consolidator.actor_ref.tell(
            Consolidate(
                NotesFolder(resources.template.memory),
                resources.template.manifest,
                spending.ask,
                context,
                not asked,
                self._jobs.ask_pod,
                self._send_to_pod,
                caller,
            )
        )

    def _send_to_pod(self, message: Any) -> None:
        self._mailroom.send(self._pod, message, None)

    def begin(self, message: Consolidating, reply: AsyncFuture[bool]) -> None:
        """Answer whether a consolidation may begin, once its start is published; it may not if the store
        refuses that.
        """
        self._tasks.start(self._begin(message, reply))

    async def _begin(self, message: Consolidating, reply: AsyncFuture[bool]) -> None:
        consolidator = self._consolidator
        if consolidator is None:
            answer(reply, accepted=False)
            return
        self._published = True
        self._journal.log.record(ConsolidateStart, files=message.files, size=message.size)
        try:
            await self._journal.commit()
        except SessionError:
            self._published = False
            answer(reply, accepted=False)
        else:
            answer(reply, accepted=self._consolidator is consolidator)

    def end(self, message: Consolidated) -> None:
        """Handle the end of a consolidation."""
        self._tasks.start(self._end(message))

    async def _end(self, message: Consolidated) -> None:
        consolidator, self._consolidator = self._consolidator, None
        if consolidator is None:  # it was left to itself
            return
        self._jobs.track_leaving(cast("AsyncFuture[bool]", consolidator.actor_ref.stop(block=False)))
        self._record_end(message)
        more = self._more_staged or (message.files > 0 and message.error is None)
        self._jobs.count_as_at_work()  # until its end is durable
        try:
            await self._journal.commit()
        except SessionError:
            more = False
        if more and not self._status.stopping:
            self.start(self._jobs.caller)
        self._jobs.note_job_ended()

    def _record_end(self, message: Consolidated) -> None:
        published, self._published = self._published, False
        spent = self._accounts.count_helper(self._spending)
        self._spending = None
        log = self._journal.log
        for text in message.alerts:
            log.record(Alert, text=text)
        if message.error is not None:
            failure = Failure.of(message.error)
            if published:
                log.record_end(ConsolidateFailed, error=failure, usage=spent.usage, cost=spent.cost)
            else:
                log.record(Alert, text="memory could not be consolidated", error=failure)
        elif message.files:
            log.record_end(
                ConsolidateDone,
                files=message.files,
                notes=message.notes,
                mechanical=message.mechanical,
                left=message.left,
                usage=spent.usage,
                cost=spent.cost,
            )

    # -- the end of the pod ----------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel the consolidation's requests to the model."""
        consolidator, self._consolidator = self._consolidator, None
        if consolidator is not None:
            self._jobs.track_leaving(consolidator.leave(self._resources.template.grace))

    def abandon(self) -> None:
        """Abandon the consolidation: publish an end if its start was published."""
        if self._published:
            left = PodError("the pod stopped while consolidating memory; the staged notes are kept")
            self._record_end(Consolidated(error=left))
