"""``RunningActor``: from a run's input to its end: begin, resume, decide, finish, and the clock."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple, assert_never

from actors.llm.output import DOUBTFUL, Fit, instruction_for, parse_output
from actors.pod import turn
from actors.pod.outcomes import limit_reached, refused, said_nothing
from actors.pod.run import PendingInput, QueuedRun, RunState, TypedRun, new_run_id, resolve
from actors.pod.turns import TurnActor
from actors.runtime.future import AsyncFuture
from actors.sessions.replay import open_calls
from protocol.commands import Run
from protocol.errors import (
    CompactionFailed,
    Failure,
    NotPaused,
    NotRunning,
    OutputInvalid,
    PodBusy,
    RunFailed,
)
from protocol.events import (
    RunEnd,
    RunOutcome,
    RunReason,
    RunStart,
    SystemMessage,
    UserMessage,
)
from protocol.items import (
    Part,
    SystemItem,
    UserItem,
)
from protocol.lifecycle import PodState
from protocol.results import RunResult
from protocol.usage import Usage

#: Runs that may wait behind the one that goes on.
QUEUE_LIMIT = 32
#: How often a model may answer with something else than the type it was asked for.
MISFITS = 2


class OutOfTime(NamedTuple):
    """To the pod from its clock: the budget of seconds is used up."""

    run_id: str


class RunningActor(TurnActor):
    """A run's life. Between two steps ``_advance`` asks the pure turn what comes next."""

    # -- runs ------------------------------------------------------------------------------------

    def _submit(self, queued: QueuedRun) -> None:
        """Begin the run, or have it wait for the one that goes on."""
        if self._run is not None and self._state is PodState.RUNNING:
            self._enqueue(queued)
        elif self._busy:
            self._when_free(lambda: self._begin_or_queue(queued), queued.reply)
        else:
            self._begin_or_queue(queued)

    def _enqueue(self, queued: QueuedRun) -> None:
        name = self._parts.name
        if queued.command.busy == "reject":
            raise PodBusy(f"pod {name!r} is running", hint="wait for its run or queue behind it")
        if self._runs is None:
            self._runs = deque()
        if len(self._runs) >= QUEUE_LIMIT:
            raise PodBusy(f"{QUEUE_LIMIT} runs wait for pod {name!r} already")
        self._runs.append(queued)

    def _begin_or_queue(self, queued: QueuedRun) -> None:
        """Begin the run, or the oldest of those that wait behind a paused one, and this one behind them."""
        if self._state is not PodState.RUNNING and not self._runs:
            self._begin_run(queued)
            return
        if self._state is PodState.RUNNING and queued.source == "notify":
            self._notify(queued.command.content, queued.reply)
            return
        try:
            self._enqueue(queued)
        except PodBusy as busy:
            queued.reply.set_exception(busy)
            return
        if self._state is not PodState.RUNNING and self._runs:
            self._begin_run(self._runs.popleft())

    def _begin_run(self, queued: QueuedRun) -> None:
        self._close_left_over()
        command = queued.command
        notified = queued.source == "notify"
        run = RunState(command.run_id or new_run_id(), None if notified else queued.reply)
        run.output_schema = command.output_schema
        if isinstance(command, TypedRun):
            run.output_kind = command.output
        if notified:
            run.caller = queued.reply.caller
            run.unlogged.append(queued.reply)
        self._run = run
        self._to(PodState.RUNNING)
        self._start_clock(run)
        self._guard = self._guard.run_started()
        if self._parts.limits.before_run:
            self._fold_before_run(lambda _: self._log_input(run, queued), run.caller)
        else:
            self._log_input(run, queued)

    def _log_input(self, run: RunState, queued: QueuedRun) -> None:
        """The run begins with its input, which the model sees only once it is durable."""
        if run is not self._run:  # the store failed meanwhile, and the run with it
            self._advance()
            return
        run.began_in, run.began_at = self._head.items, len(self._head.items)
        self._record_start(run, "notify" if queued.source == "notify" else "run")
        if self._recall_due:
            self._recall(queued.command.content, lambda: self._record_input(run, queued))
        else:
            self._record_input(run, queued)

    def _record_input(self, run: RunState, queued: QueuedRun) -> None:
        if run is not self._run:  # the store failed while memory was searched
            self._advance()
            return
        self._add_words(run, UserItem(queued.command.content), queued.source)
        self._advance()

    def _record_start(self, run: RunState, reason: RunReason) -> None:
        head = self._head
        self._log.add(
            RunStart(
                pod=self._parts.name,
                session_id=head.session_id,
                seq=head.seq + 1,
                at=time.time(),
                run_id=run.run_id,
                reason=reason,
            )
        )

    def _close_left_over(self) -> None:
        """Close what an earlier run left open: a pause, a crash, a store that failed at its end."""
        self._answer_open_calls(self._run)
        if self._head.open_run is not None:
            self._log.record(RunEnd, self._head.open_run, outcome="cancelled", steps=self._steps)
        self._run = None

    def _resume_run(self, reply: AsyncFuture[Any]) -> None:
        if self._state is not PodState.PAUSED:  # it was, when it was asked for
            reply.set_exception(self._not_paused())
            return
        run = self._run
        if run is None:  # the session was restored: all that is known of the run is its id
            assert self._head.open_run is not None
            run = RunState(self._head.open_run, reply)
            run.steps = self._open_steps
            self._answer_open_calls(None)
        run.reply, run.caller = reply, reply.caller
        run.ending = run.limit = None
        self._run = run
        self._to(PodState.RUNNING)
        self._start_clock(run)
        self._record_start(run, "resume")
        self._advance()

    def _not_paused(self) -> NotPaused:
        return NotPaused(f"pod {self._parts.name!r} has no paused run")

    def _drop_paused(self, replies: list[AsyncFuture[Any]]) -> None:
        """End the paused run as cancelled."""
        if self._state is not PodState.PAUSED:  # another run has closed it meanwhile
            resolve(replies)
            return
        run = self._run
        self._close_left_over()

        def dropped() -> None:
            self._to(PodState.IDLE)
            resolve(replies)
            self._advance()

        def refused(error: BaseException) -> None:
            self._run = run
            self._refuse_to(*replies)(error)

        self._commit(dropped, refused)

    def _advance(self) -> None:
        """Go on: first what waited for this moment, then the run's next step, or the next run."""
        if self._free and not self._stopping and not self._calls_open():
            while self._free and not self._busy:
                self._free.popleft()()
        if self._step is not None or self._committing or self._commits:
            return
        run = self._run
        if run is None or self._state is not PodState.RUNNING:
            self._start_next()
            return
        self._take(run, turn.next_step(self._standing(run)))

    def _take(self, run: RunState, step: turn.Step) -> None:
        """Take the run's next step."""
        if isinstance(step, turn.CallModel):
            self._prepare_request(run)
        elif isinstance(step, turn.Finish):
            self._end_with(run, step)
        elif isinstance(step, turn.RunTools):
            calls = step.calls
            self._commit(lambda: self._run_tools(run, calls), self._store_refused)
        elif isinstance(step, turn.CloseCalls):
            self._close_begun(run, step.calls)
        elif isinstance(step, turn.Compact):
            self._fold("request_threshold", lambda error: self._folded_within(run, error), caller=run.caller)
        else:
            assert_never(step)

    def _end_with(self, run: RunState, step: turn.Finish) -> None:
        """The run is over, unless its answer is not of the type that was asked for."""
        answer = run.answer
        if step.outcome == "finished":
            if answer is not None and not answer.content:
                run.limit = said_nothing()
            if run.output_kind is not None:
                self._finish_typed(run)
                return
        elif step.why is not None:
            run.error = CompactionFailed(step.why)
        elif step.limit is not None:
            run.limit = limit_reached(step.limit, self._parts.manifest.worker)
        elif step.outcome == "refused" and answer is not None:
            run.limit = refused(answer, run.stop_reason)
        self._finish(run, step.outcome)

    def _calls_open(self) -> bool:
        """Whether the run is between calls and their results: nothing may come between those."""
        run = self._run
        if run is None or run.answer is None or not run.answer.calls or self._state is not PodState.RUNNING:
            return False
        return bool(open_calls(self._head.items))

    def _finish_typed(self, run: RunState) -> None:
        """The run is over if the answer is of the type asked for; else the model hears why it is not."""
        assert run.answer is not None
        read = parse_output(run.answer.text, run.output_kind)
        doubtful = isinstance(read, Fit) and read.doubtful and not run.misfits  # asked about once
        if isinstance(read, Fit) and not doubtful:
            run.output = read.value
            self._finish(run, "finished")
            return
        why = DOUBTFUL if isinstance(read, Fit) else read.why
        run.misfits += 1
        if run.misfits > MISFITS:
            run.error = OutputInvalid(f"the model did not answer as asked: {why}")
            self._finish(run, "failed")
            return
        # With the schema, which a server may have been sent and have shown to nobody.
        words = f"{why} {instruction_for(run.output_schema or {})}"
        self._log.record(SystemMessage, run.run_id, item=SystemItem.of(words))
        run.unheard = True
        self._advance()

    def _standing(self, run: RunState) -> turn.Standing:
        parts = self._parts
        calls = run.answer.calls if run.answer is not None else ()
        return turn.Standing(
            ending=run.ending,
            answer=run.answer,
            stop_reason=run.stop_reason,
            open_calls=open_calls(self._head.items) if calls else [],
            pending=run.unheard or bool(run.pending),
            steps=run.steps,
            max_steps=parts.manifest.worker.max_steps,
            fullness=self._before_request() if parts.limits.before_request else "send",
            started_calls=run.started_calls,
        )

    def _leave(self) -> None:
        """Nothing is under way any more, and the pod was asked to stop."""

    def _start_next(self) -> None:
        if self._stopping:
            self._leave()
        elif self._runs and self._state is PodState.IDLE:
            self._begin_run(self._runs.popleft())
        elif self._ends_wait:
            self._tell_again()

    # -- the end of a run ------------------------------------------------------------------------

    def _finish(self, run: RunState, outcome: RunOutcome) -> None:
        self._answer_open_calls(run)
        if run.pending:  # words that came too late for this run are not lost
            self._join_pending(run)
            run.unheard = True
        run.ending = outcome
        seconds = self._stop_clock(run)
        head = self._head
        self._log.add(
            RunEnd(
                pod=self._parts.name,
                session_id=head.session_id,
                seq=head.seq + 1,
                at=time.time(),
                run_id=run.run_id,
                outcome=outcome,
                steps=run.steps,
                usage=run.usage or Usage(),
                error=run.failure,
                seconds=seconds,
            )
        )
        self._commit(lambda: self._finished(run, outcome), self._store_refused)

    def _finished(self, run: RunState, outcome: RunOutcome) -> None:
        if run.unlogged:
            resolve(run.unlogged)
        self._to(PodState.PAUSED if outcome == "paused" else PodState.IDLE)
        reply, run.reply = run.reply, None
        if outcome != "paused":
            self._run = None
        if reply is not None:
            if run.error is not None:
                reply.set_exception(RunFailed(run.error, run_id=run.run_id))
            else:
                reply.set(self._result(run, outcome))
        if self._cancelled is not None:
            self._end_cancels(run, outcome)
        if outcome != "paused":
            self._remember_after_run(run.caller)
        self._advance()
        if run.pending:
            late, run.pending = run.pending, []
            for pending in late:
                self._came_late(pending)

    def _end_cancels(self, run: RunState, outcome: RunOutcome) -> None:
        """Answer who asked for the end that the run has come to."""
        cancelled, self._cancelled = self._cancelled or [], None
        if outcome == "paused" and run.ending == "cancelled":  # cancelled while its pause became durable
            self._drop_paused(cancelled)
        else:
            resolve(cancelled)

    def _result(self, run: RunState, outcome: RunOutcome) -> RunResult:
        return RunResult(
            text=run.answer.text if run.answer is not None else "",
            outcome=outcome,
            usage=run.usage or Usage(),
            run_id=run.run_id,
            session_id=self._head.session_id,
            output=run.output,
        )

    def _answer_cancels(self) -> None:
        cancelled, self._cancelled = self._cancelled, None
        resolve(cancelled or [])

    # -- words that join -------------------------------------------------------------------------

    def _came_late(self, pending: PendingInput) -> None:
        """Words came while the end of their run became durable."""
        if self._stopping:
            pending.reply.set_exception(self._gone())
        elif pending.source == "steer":
            pending.reply.set_exception(self._not_running())
        else:
            self._notify(pending.content, pending.reply)

    def _not_running(self) -> NotRunning:
        return NotRunning(f"pod {self._parts.name!r} has no run to steer", hint="use run or notify")

    def _notify(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> None:
        """Words join the run that goes on or is paused, or start one."""
        if self._state is PodState.RUNNING and self._run is not None:
            self._run.pending.append(PendingInput(content, "notify", reply))
        elif self._state is PodState.PAUSED:
            self._when_free(lambda: self._note(content, reply), reply)
        else:
            self._submit(QueuedRun(Run(content), "notify", reply))

    def _note(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> None:
        """Words for a paused run: they join the history now, and are heard when it is resumed."""
        run = self._run
        if self._state is not PodState.PAUSED:
            self._notify(content, reply)
            return
        self._answer_open_calls(run)
        self._log.record(UserMessage, self._head.open_run, item=UserItem(content), source="notify")
        if run is not None:
            run.unheard = True
        self._commit(lambda: self._told(reply, None), self._refuse_to(reply))

    def _told(self, reply: AsyncFuture[Any], value: Any) -> None:
        reply.set(value)
        self._advance()

    # -- the clock -------------------------------------------------------------------------------

    def _start_clock(self, run: RunState) -> None:
        run.started_at = time.monotonic()
        budget = self._parts.budget
        left = None if budget is None else budget.seconds_left()
        if left is not None:
            run.deadline = run.started_at + left
            assert self._mailroom is not None
            message = OutOfTime(run.run_id)
            self._alarm = self._mailroom.loop.call_later(left, lambda: self._post(message))

    def _stop_clock(self, run: RunState) -> float:
        """Count the time of a run, in seconds, which is given back."""
        now = time.monotonic()
        seconds = now - run.started_at
        run.started_at = now  # a store that refuses the run's end stops its clock once more
        self._seconds += seconds
        budget = self._parts.budget
        if budget is not None:
            budget.spend_seconds(seconds)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return seconds

    def _on_out_of_time(self, message: OutOfTime) -> None:
        run = self._run
        if run is None or run.run_id != message.run_id or run.ending is not None:
            return
        budget = self._parts.budget
        assert budget is not None
        self._note_exceeded(run, budget.out_of_time())
        self._cancel_step()

    # -- a store that refuses -------------------------------------------------------------------

    def _store_refused(self, error: BaseException) -> None:
        """The store could not keep it: nobody was told, the run fails, the pod lives on."""
        if self._context_ is not None:
            self._context_.rewind()
        run = self._run
        if run is None or self._state is not PodState.RUNNING:
            return
        self._run = None
        self._cancel_step()
        seconds = self._stop_clock(run)
        if self._head.open_run == run.run_id:  # its start was told: its end is, once the store takes it
            self._answer_open_calls(run)
            self._log.record_end(
                RunEnd,
                run.run_id,
                outcome="failed",
                steps=run.steps,
                usage=run.usage or Usage(),
                error=Failure.of(error),
                seconds=seconds,
            )
        self._to(PodState.IDLE)
        for reply in [*run.unlogged, *(pending.reply for pending in run.pending)]:
            reply.set_exception(error)
        if run.reply is not None:
            run.reply.set_exception(RunFailed(error, run_id=run.run_id))
        self._answer_cancels()
