"""``AskingPlay``: a run that waits for a person, with its clock stopped, once nothing else is left to do."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from actors.pod.approvals.asking_calls import AskingToolCalls
from actors.pod.approvals.people_clock import PeopleClock
from actors.pod.runs import decide
from actors.pod.runs.history_lock import HistoryLock
from actors.pod.runs.play import Owner, Play
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run
from actors.runtime.interruptible import Interruptible
from actors.sessions.replay import open_calls
from protocol.errors import SessionError
from protocol.lifecycle import PodState


class AskingPlay(Play):
    """Plays runs in which some calls wait for a person."""

    __slots__ = ("_approvals", "_held_turn", "_status")

    def __init__(self, parts: RunParts, history_lock: HistoryLock, owner: Owner) -> None:
        super().__init__(parts, history_lock, owner)
        assert parts.approvals is not None
        self._approvals = parts.approvals
        self._status = parts.status
        #: Whether calls are at work that do not end the turn that goes on, since others may wait.
        self._held_turn = False

    async def _from_pause(self, run: Run) -> None:
        await super()._from_pause(run)
        assert isinstance(self._parts.tool_calls, AskingToolCalls)
        try:
            await self._parts.tool_calls.make_ready(run)
        except SessionError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - ends this run alone
            self._model_calls.end_by_error(run, error)

    async def _run_tools(self, run: Run, step: decide.RunTools) -> None:
        decided = decide.of_calls(step, self._approvals.awaited)
        if isinstance(decided, decide.AwaitAnswer):
            await self._await_answer(run)
        else:
            self._held_turn = self._model_calls.hold_turn()
            waits = run.waits
            clock = self._approvals.clock = PeopleClock(
                partial(self._wait_for_people, waits), partial(self._go_on_after_people, run, waits)
            )
            try:
                await super()._run_tools(run, decided)
            finally:
                clock.close()
            self._release_turn()
        if not open_calls(self._parts.journal.head.items):
            self._model_calls.end_turn()

    def _release_turn(self) -> None:
        if self._held_turn:
            self._held_turn = False
            self._model_calls.release_turn()

    def go_on(self, run: Run) -> None:
        """As ``Play.go_on``; what is left behind waits for people no longer."""
        self._release_turn()
        if self._status.state is PodState.WAITING:
            self._status.to(PodState.RUNNING)
            self._release_clock(run)
        super().go_on(run)

    async def _await_answer(self, run: Run) -> None:
        """Wait, with the run's clock stopped, until there may be something to do."""
        waits = run.waits
        await self._parts.journal.commit()  # results, and requests, that nothing else makes durable
        waits.check()
        self._hold_clock()
        self._status.to(PodState.WAITING)
        try:
            if self._history_lock.waiting:
                await self._history_lock.let_pass(waits)
            elif run.ending is None and self._waits_for_all():
                await self._park(waits)
        except asyncio.CancelledError as error:
            self._model_calls.end_by_error(run, error)
        waits.check()
        self._status.to(PodState.RUNNING)
        self._release_clock(run)
        if self._approvals.answers:
            self._parts.tool_calls.take_answers(run)
            await self._parts.journal.commit()
            waits.check()

    async def _park(self, waits: Interruptible) -> None:
        """Wait for a person's answer; if the pod dropped its history meanwhile, it is read back."""
        approvals = self._approvals
        approvals.parked = True
        try:
            await waits.inline(approvals.await_change(), "an approval")
        finally:
            approvals.parked = False
            if (recall := approvals.recall) is not None:
                await recall()

    def _wait_for_people(self, waits: Interruptible) -> None:
        """Note that every call at work waits for a person to fill in a form."""
        if not waits.left:
            self._hold_clock()
            self._status.to(PodState.WAITING)

    def _go_on_after_people(self, run: Run, waits: Interruptible) -> None:
        if not waits.left and self._status.state is PodState.WAITING:
            self._status.to(PodState.RUNNING)
            self._release_clock(run)

    def _waits_for_all(self) -> bool:
        """Whether only a person's answer can move the run on."""
        awaited = self._approvals.awaited
        calls = open_calls(self._parts.journal.head.items)
        return bool(calls) and all(call.id in awaited for call in calls)

    # -- the clock -------------------------------------------------------------------------------

    def _hold_clock(self) -> None:
        self._parts.accounts.hold_clock()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _release_clock(self, run: Run) -> None:
        held = self._parts.accounts.release_clock()
        if run.deadline is not None:
            run.deadline += held
            left = run.deadline - time.monotonic()
            self._alarm = self._parts.tasks.loop.call_later(left, self._out_of_time, run)

    def stop_clock(self) -> float:
        """Stop the run's clock at its end; returns its seconds."""
        self._parts.accounts.release_clock()
        return super().stop_clock()
