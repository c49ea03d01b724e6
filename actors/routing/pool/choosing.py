"""``Choosing``: has a classifier choose the runner of a job, before the job takes a slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from actors.routing.pool.availability import Availability
from actors.routing.pool.endings import rest_after
from actors.routing.pool.turn import Assignment
from protocol.errors import ClassificationRefused, PolypodError
from protocol.foreign import shown, words_of
from protocol.jobs import Job
from protocol.routing import Classification, SystemStatus
from protocol.text import encodable

#: Jobs that are classified at once.
_MOST = 8
#: Seconds after which one that does not answer is waited for no more.
PATIENCE = 120.0


class JobClassifier(Protocol):
    """Chooses the runner and the model for a job."""

    async def classify(
        self, name: str, instructions: str, status: SystemStatus, agent: str | None
    ) -> Classification:
        """Choose. Raises RoutingError where it cannot."""


class Choosing:
    """Calls a classifier for one pool; these calls take no job's slot, and so wait for none.

    A classifier that fails several times in a row is left alone for a second, then for longer, so that jobs
    do not wait for one that is not there.
    """

    def __init__(
        self,
        classifier: JobClassifier,
        availability: Availability,
        assign: Callable[[Assignment], object],
        patience: float = PATIENCE,
    ) -> None:
        """``patience`` is how many seconds the classifier may take for a job."""
        self._patience = patience
        self._classifier, self._availability, self._assign = classifier, availability, assign
        #: The jobs that are looked at, and those that were.
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.done: set[int] = set()
        #: How often in a row the classifier gave no answer, and until when it is left alone, by
        #: ``time.monotonic()``.
        self._failures = 0
        self._resting_until = 0.0

    def begin(self, number: int, job: Job) -> None:
        """Have a job classified, unless the limit of concurrent calls is reached: then it comes
        again later.
        """
        if time.monotonic() < self._resting_until:
            self._finish(
                Assignment(
                    number,
                    reason="not classified: the classifier keeps failing, and is not asked for a while",
                )
            )
        elif len(self.tasks) < _MOST:
            task = self.tasks[number] = asyncio.get_running_loop().create_task(self._choose(number, job))
            task.add_done_callback(lambda _: self.tasks.pop(number))

    async def _choose(self, number: int, job: Job) -> None:
        assignment = Assignment(number)
        try:
            status = self._availability.status(time.time())
            async with asyncio.timeout(self._patience):
                said = await self._classifier.classify(job.name, job.instructions, status, job.agent)
            self._failures = 0
            self._check(said)
            model, reason = (encodable(each) if each else None for each in (said.model, said.reason))
            assignment = Assignment(number, said.agent_type, model, reason)
        except (Exception, asyncio.CancelledError) as error:  # then the pool chooses, and says why
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if not isinstance(error, ClassificationRefused):
                self._note_failure()
            words = error.message if isinstance(error, PolypodError) else words_of(error)
            assignment = Assignment(number, reason=f"not classified: {encodable(words)}")
        self._finish(assignment)

    def _finish(self, assignment: Assignment) -> None:
        self.done.add(assignment.number)
        self._assign(assignment)

    def _note_failure(self) -> None:
        self._failures += 1
        self._resting_until = rest_after(self._failures, time.monotonic()) or self._resting_until

    def _check(self, said: Any) -> None:
        """Raises ClassificationRefused."""
        if not isinstance(said, Classification) or not all(
            isinstance(each, str | None) for each in (said.agent_type, said.model, said.reason)
        ):
            raise ClassificationRefused(
                f"the classifier returned {shown(said)}, which is not a Classification"
            )
        if (why := self._availability.why_not(said.agent_type, time.time())) is not None:
            raise ClassificationRefused(f"the classifier named {said.agent_type!r}, which {why}")

    def cancel(self) -> None:
        """Cancel the calls under way: other processes will choose."""
        for task in self.tasks.values():
            task.cancel()
