"""``Ending``: ends a pod: its run, sub-agents, memory jobs and session; then answers those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actors.pod.runs.run_state import resolve
from actors.runtime.future import AsyncFuture
from actors.sessions.answers import release_session
from protocol.events import RunOutcome
from protocol.lifecycle import PodState

if TYPE_CHECKING:
    from actors.pod.pod import PodActor


class Ending:
    """The end of one pod, by a stop or by a defect; made when the first of these comes."""

    __slots__ = ("_pod", "_replies")

    def __init__(self, pod: PodActor) -> None:
        self._pod = pod
        #: Resolve once the pod has stopped; None while nobody has stopped it.
        self._replies: list[AsyncFuture[Any]] | None = None

    def begin(self, outcome: RunOutcome, reply: AsyncFuture[Any]) -> None:
        """End the pod; a run that is under way ends first, with ``outcome``. ``reply`` resolves when the pod
        has ended.
        """
        if self._replies is not None:
            self._replies.append(reply)
            return
        self._replies = [reply]
        if self._has_nothing_to_end():
            self._stop_at_once()
            return
        self._pod.runs.interrupt_all(outcome)
        self._pod.tasks.start_at_once(self._wind_down(outcome))

    def _has_nothing_to_end(self) -> bool:
        """Whether there is no run (not even a paused one), no memory job, no sub-agent and
        nothing to commit.
        """
        pod = self._pod
        has_children = pod.delegation is not None and pod.delegation.has_any
        has_parts = pod.run_loop is not None or pod.has_memory_jobs
        is_idle = pod.status.state is PodState.IDLE
        return is_idle and not has_parts and not has_children and pod.journal.at_rest

    def _stop_at_once(self) -> None:
        """End a pod that has done nothing in this life."""
        pending = self._pod.lifecycle.end_session()
        if pending is None:
            self._leave()
        else:
            self._pod.tasks.start(self._leave_after(pending))

    async def _leave_after(self, pending: Future[None] | Awaitable[None]) -> None:
        await self._pod.journal.wait_for_last(pending, self._pod.resources.template.store_grace)
        self._leave()

    async def _wind_down(self, outcome: RunOutcome) -> None:
        pod = self._pod
        await self._end_children(outcome)
        commands_at_work = pod.resources.commands
        if commands_at_work is not None:
            commands_at_work.begin_to_close()
        await pod.lifecycle.stop(pod.runs, self._finish_jobs)
        await self._turn_away()
        if commands_at_work is not None:
            await commands_at_work.close()
        self._leave()

    async def _end_children(self, outcome: RunOutcome) -> None:
        delegation, template = self._pod.delegation, self._pod.resources.template
        if delegation is not None:
            seconds = template.grace + template.memory_grace + template.store_grace
            await (delegation.stop_all if outcome == "cancelled" else delegation.shut_down_all)(seconds)

    async def _finish_jobs(self) -> None:
        if self._pod.has_memory_jobs:
            await self._pod.memory.finish()

    async def _turn_away(self) -> None:
        """Answer everyone who waits for a run, a memory job or a commit: there will be none."""
        pod = self._pod
        pod.runs.turn_away()
        if pod.has_memory_jobs:
            pod.memory.give_up()
        pod.journal.close()
        if pod.has_memory_jobs:
            await pod.memory.wait_for_cancelled()

    def _leave(self) -> None:
        pod = self._pod
        pod.journal.close()
        leaving = release_session(pod.resources.template.store, pod.journal.log.durable_session)
        if leaving is None:
            self._stop()
        else:
            pod.tasks.start(self._stop_after(leaving))

    async def _stop_after(self, leaving: asyncio.Task[None]) -> None:
        await asyncio.wait((leaving,), timeout=self._pod.resources.template.store_grace)
        self._stop()

    def _stop(self) -> None:
        self._pod.enter_stopped()
        resolve(self._replies or [])

    # -- by a defect -------------------------------------------------------------------------------

    async def fail(self, error: BaseException) -> None:
        """End the pod because of a defect, record that, and answer everyone who waits; a supervisor may
        restart it.
        """
        pod, supervisor = self._pod, self._pod.supervisor
        if supervisor is None:
            await self._end_failed(error)
            return
        if self._replies is None and supervisor.decide(error):
            pod.status.restarts = True
            if supervisor.waiting is None:  # else it had not taken up yet what waits
                supervisor.waiting = pod.runs.take_waiting()
        try:
            await self._end_failed(error)
        finally:
            supervisor.on_failed(error)

    async def _end_failed(self, error: BaseException) -> None:
        pod = self._pod
        await self._end_children("cancelled")
        if pod.resources.commands is not None:
            await pod.resources.commands.close()
        await pod.lifecycle.fail(error)
        await self._turn_away()
        resolve(self._replies or [])
