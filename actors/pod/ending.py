"""``EndingActor``: how a pod ends, asked to or by a defect, so that nobody who waits is forgotten."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, NamedTuple

from pykka import messages

from actors.pod.run import resolve
from actors.pod.running import RunningActor
from actors.pod.stepping import STOP_GRACE
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol.errors import Failure, RunFailed, SessionError
from protocol.events import PodEnded, PodFailed, RunOutcome
from protocol.lifecycle import PodState


class ShutDown(NamedTuple):
    """To a pod whose system is left: end, with the run that goes on paused, so that it can be resumed."""


class GraceOver(NamedTuple):
    """To a pod that stops, from its clock: it has waited long enough."""


class EndingActor(RunningActor):
    """A stop ends the run by the way every run ends; only then the pod leaves."""

    #: Who is told that the pod has stopped; None while it is to live.
    _stops: list[AsyncFuture[Any]] | None = None
    _grace: asyncio.TimerHandle | None = None
    #: Whether the last entry is on its way.
    _leaving = False

    # -- a stop ----------------------------------------------------------------------------------

    def _handle_receive(self, message: Any) -> Any:
        """Pykka's own messages; a stop waits for what is under way, so it is none of pykka's business."""
        if type(message) is not messages._ActorStop:  # noqa: SLF001 - pykka leaves this to new kinds of actors
            return super()._handle_receive(message)
        return self._on_stop(message)

    def _on_stop(self, _: object) -> Any:
        """Of ``ActorRef.stop``, and the command."""
        return self._stop_by("cancelled")

    def _on_shut_down(self, _: ShutDown) -> Any:
        return self._stop_by("paused")

    def _stop_by(self, ending: RunOutcome) -> Any:
        """End the pod, and before it the run that goes on by ``ending``; who asked hears once it has."""
        reply = self.defer_reply()
        if self._stops is None:
            self._stops = [reply]
            self._wind_down(ending)
        else:
            self._stops.append(reply)
        return DEFERRED

    def _wind_down(self, ending: RunOutcome) -> None:
        self._stopping = True
        run = self._run
        if run is not None and self._state is PodState.RUNNING and run.ending is None:
            run.ending = ending
        self._cancel_step(any_step=True)
        if self._busy:
            self._give_grace()
        else:
            self._leave()

    def _give_grace(self) -> None:
        assert self._mailroom is not None
        seconds = self._parts.grace + STOP_GRACE
        self._grace = self._mailroom.loop.call_later(seconds, lambda: self._post(GraceOver()))

    def _on_grace_over(self, _: GraceOver) -> None:
        """A store that never answers is not waited for any longer."""
        self._left()

    def _leave(self) -> None:
        """Nothing is under way any more: the last entry, which is not worth a session of its own where
        another has taken this one.
        """
        if self._state in {PodState.STOPPED, PodState.FAILED} or self._leaving:
            return
        if self._memory_at_work:
            self._once_remembered(self._leave)
            return
        self._leaving = True
        self._branching = True
        if self._state is PodState.IDLE:  # a run whose end the store refused is not to be resumed
            self._close_left_over()
        self._log.record(PodEnded)
        self._commit(self._left, lambda _: self._left())

    def _left(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._parts.store.release(self._log.durable_session)
        self._to(PodState.STOPPED)
        self._end()
        self._turn_away()
        resolve(self._stops or [])

    def _turn_away(self) -> None:
        """Answer all who still wait."""
        run, self._run = self._run, None
        waiting = [queued.reply for queued in self._runs or ()]
        waiting += self._asked or ()
        if run is not None:
            waiting += [*run.unlogged, *(pending.reply for pending in run.pending)]
            waiting += [] if run.reply is None else [run.reply]
        self._runs = self._asked = self._free = self._then = None
        for reply in waiting:
            if not reply.done():
                reply.set_exception(self._gone())
        self._answer_cancels()
        self._forsake()

    # -- a defect --------------------------------------------------------------------------------

    def on_failure(self, _type: Any, error: Any, _traceback: Any) -> Any:
        """A defect ended the pod: say so, and answer all who wait."""
        self._cancel_step(any_step=True)
        run = self._run
        if run is not None and self._state is PodState.RUNNING:  # its system lives on and counts it
            self._stop_clock(run)
            if run.exchange is not None:
                run.exchange.end(error)
        if run is not None and run.reply is not None and not run.reply.done():
            run.reply.set_exception(RunFailed(error, run_id=run.run_id))
        return self._fail(error)

    async def _fail(self, error: BaseException) -> None:
        if self._commit_under_way is not None:
            await self._settled(self._commit_under_way)
        self._log.roll_back()
        self._log.restage()
        try:
            self._close_activities("a defect ended the pod")
            self._log.record(PodFailed, error=Failure.of(error))
            pending = self._log.commit()
            if pending is not None:
                await self._settled(pending)
        except SessionError:
            self._log.roll_back()
        self._parts.store.release(self._log.durable_session)
        self._to(PodState.FAILED)
        self._turn_away()
        await self._jobs_ended()
        resolve(self._stops or [])

    async def _settled(self, pending: Future[None]) -> None:
        """Wait for a commit at the pod's end, when no message can bring word of it any more."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(pending), STOP_GRACE)
        except (SessionError, TimeoutError):
            self._log.roll_back()
        else:
            self._log.settle()
