"""``PodActor``: one pod. It decides, and never waits on model, tool or disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

from pykka._envelope import Envelope

from actors.compaction import policy
from actors.llm.base import Answer, Request
from actors.llm.output import Fit, parse_output
from actors.pod import turn, worker
from actors.pod.budget import Budget, Exceeded
from actors.pod.compacting import CompactingActor
from actors.pod.fork import Branch, branch_off
from actors.pod.parts import PodParts
from actors.pod.run import PendingInput, QueuedRun, RunState, TypedRun, new_run_id
from actors.pod.session_actor import CommitEnded, StepEnded
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from actors.sessions.replay import open_calls
from protocol import commands
from protocol.commands import Command
from protocol.errors import (
    CompactionFailed,
    Failure,
    ModelError,
    NotPaused,
    NotRunning,
    OutputInvalid,
    PodBusy,
    PodError,
    PodStopped,
    RunFailed,
    SessionError,
)
from protocol.events import (
    AssistantMessage,
    BudgetExceeded,
    PodFailed,
    RunEnd,
    RunOutcome,
    RunReason,
    RunStart,
    SessionForked,
    SystemMessage,
    ToolProgress,
    ToolResulted,
    ToolStart,
    TurnEnd,
    TurnStart,
    UsageUpdate,
    UserMessage,
)
from protocol.events import PodStopped as PodStoppedEvent
from protocol.items import (
    AssistantItem,
    Item,
    SystemItem,
    ToolCall,
    ToolResult,
    UserItem,
)
from protocol.lifecycle import PodState
from protocol.results import PodDescription, RunResult
from protocol.usage import Usage

#: Runs that may wait behind the one that goes on.
QUEUE_LIMIT = 32
#: How often a model may answer with something else than the type it was asked for.
MISFITS = 2
#: How long a stop waits for a step that was cancelled, in seconds.
STOP_GRACE = 5.0
INTERRUPTED = (
    "interrupted, outcome unknown: the tool may or may not have taken effect; check before calling it again"
)
NOT_RUN = "not run: the run ended before this call was started"


class ToolEnded(NamedTuple):
    """To the pod from a batch of calls: one of them has its result."""

    number: int
    result: ToolResult
    seconds: float | None


class Progressed(NamedTuple):
    """To the pod from one of its tools: how far it is."""

    call: ToolCall
    text: str


class Batch:
    """Calls under way: results that wait for those before them, and how many are kept."""

    __slots__ = ("ended", "kept", "size")

    def __init__(self, size: int) -> None:
        self.ended: dict[int, ToolEnded] = {}
        self.kept = 0
        self.size = size


class OutOfTime(NamedTuple):
    """To the pod from its clock: the budget of seconds is used up."""

    run_id: str


class PodActor(CompactingActor):
    """One pod: mailbox, state, run, queue. See ``protocol.lifecycle`` for its states."""

    def __init__(
        self,
        parts: PodParts,
        resume: str | None,
        started: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(parts, resume, started)
        self._run: RunState | None = None
        self._runs: deque[QueuedRun] | None = None
        self._batch: Batch | None = None
        self._budget: Budget | None = parts.budget
        self._cancelled: list[AsyncFuture[Any]] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        turn_ = f", turn {self._run.steps}" if self._run is not None else ""
        return f"<Pod {self._parts.name} {self._state.name}{turn_}>"

    @property
    def _steps(self) -> int:
        return 0 if self._run is None else self._run.steps

    @property
    def _run_id(self) -> str | None:
        return None if self._run is None else self._run.run_id

    # -- the mailbox -----------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        handler = _HANDLERS.get(type(message))
        if handler is None:
            raise PodError(f"pod {self._parts.name!r} knows no command {type(message).__name__}")
        return handler(self, message)

    def _refuse(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is not None and isinstance(envelope.message, Command):
            envelope.reply_to.set_exception(self._gone())  # type: ignore[arg-type]
        else:
            super()._refuse(envelope)

    def _gone(self) -> PodStopped:
        return PodStopped(f"pod {self._parts.name!r} has stopped", hint="spawn it again with resume=")

    # -- commands --------------------------------------------------------------------------------

    def _on_run(self, command: commands.Run) -> Any:
        return self._submit(QueuedRun(command, "run", self.defer_reply()))

    def _submit(self, queued: QueuedRun) -> Any:
        if self._run is not None and self._state is PodState.RUNNING:
            self._enqueue(queued)
        else:
            self._when_free(lambda: self._begin_run(queued))
        return DEFERRED

    def _enqueue(self, queued: QueuedRun) -> None:
        name = self._parts.name
        if queued.command.busy == "reject":
            raise PodBusy(f"pod {name!r} is running", hint="wait for its run or queue behind it")
        if self._runs is None:
            self._runs = deque()
        if len(self._runs) >= QUEUE_LIMIT:
            raise PodBusy(f"{QUEUE_LIMIT} runs wait for pod {name!r} already")
        self._runs.append(queued)

    def _on_steer(self, command: commands.Steer) -> Any:
        if self._run is None or self._state is not PodState.RUNNING:
            raise NotRunning(f"pod {self._parts.name!r} has no run to steer", hint="use run or notify")
        self._run.pending.append(PendingInput(command.content, "steer", self.defer_reply()))
        return DEFERRED

    def _on_notify(self, command: commands.Notify) -> Any:
        reply = self.defer_reply()
        if self._run is not None and self._state is PodState.RUNNING:
            self._run.pending.append(PendingInput(command.content, "notify", reply))
            return DEFERRED
        run = commands.Run(command.content)
        return self._submit(QueuedRun(run, "notify", reply))

    def _on_cancel(self, _: commands.Cancel) -> Any:
        if self._state is PodState.PAUSED:
            self._when_free(self._drop_paused)
            return None
        if self._run is None:
            return None
        return self._end_soon("cancelled")

    def _on_pause(self, _: commands.Pause) -> Any:
        return None if self._state is not PodState.RUNNING else self._end_soon("paused")

    def _end_soon(self, ending: RunOutcome) -> Any:
        """Have the run end; who asked is answered once it has."""
        run = self._run
        assert run is not None
        if self._cancelled is None:
            self._cancelled = []
        self._cancelled.append(self.defer_reply())
        if run.ending is None or ending == "cancelled":
            run.ending = ending
        if self._step is not None:
            self._step.cancel()
        return DEFERRED

    def _on_resume(self, _: commands.Resume) -> Any:
        if self._state is not PodState.PAUSED:
            raise NotPaused(f"pod {self._parts.name!r} has no paused run")
        reply = self.defer_reply()
        self._when_free(lambda: self._resume_run(reply))
        return DEFERRED

    def _on_push_item(self, command: commands.PushItem) -> Any:
        reply = self.defer_reply()
        self._when_free(lambda: self._push(command.item, reply))
        return DEFERRED

    def _push(self, item: Item, reply: AsyncFuture[Any]) -> None:
        kind, extra = _EVENT_OF[type(item)]
        self._log.record(kind, None, item=item, **extra)
        self._commit(lambda: self._told(reply, None), reply)

    def _on_fork(self, command: commands.Fork) -> Any:
        reply = self.defer_reply()
        self._when_free(lambda: self._fork(command.at, reply))
        return DEFERRED

    def _fork(self, at: str | None, reply: AsyncFuture[Any]) -> None:
        def then(branch: Branch | None, error: BaseException | None) -> None:
            if branch is None:
                reply.set_exception(error)
                self._advance()
                return
            session_id, at_hash = branch
            self._log.record(SessionForked, self._run_id, new_session_id=session_id, at_hash=at_hash)
            self._commit(lambda: self._told(reply, session_id), reply)

        self._do(branch_off(self._parts, at), then)

    def _told(self, reply: AsyncFuture[Any], value: Any) -> None:
        reply.set(value)
        self._advance()

    def _on_history(self, _: commands.History) -> list[Item]:
        return list(self._head.items)

    def _on_describe(self, _: commands.Describe) -> PodDescription:
        return PodDescription(
            name=self._parts.name,
            state=self._state,
            session_id=self._head.session_id,
            head=self._head.hash.hex(),
            extract_pointer=self._head.pointer,
            occupancy=self._context.occupancy(),
            usage=self._usage or Usage(),
            cost=self._cost,
        )

    # -- runs ------------------------------------------------------------------------------------

    def _begin_run(self, queued: QueuedRun) -> None:
        if self._state is PodState.RUNNING:  # another run began while this one waited for a commit
            try:
                self._enqueue(queued)
            except PodBusy as busy:
                queued.reply.set_exception(busy)
            return
        self._close_left_over()
        command = queued.command
        notified = queued.source == "notify"
        run = RunState(command.run_id or new_run_id(), None if notified else queued.reply)
        run.output_schema = command.output_schema
        if isinstance(command, TypedRun):
            run.output_kind = command.output
        if notified:
            run.unlogged.append(queued.reply)
        self._run = run
        self._to(PodState.RUNNING)
        self._start_clock(run)
        self._guard = self._guard.run_started()
        self._fold_before_run(lambda _: self._log_input(run, queued))

    def _log_input(self, run: RunState, queued: QueuedRun) -> None:
        """The run begins with its input, which the model sees only once it is durable."""
        if run is not self._run:  # the store failed meanwhile, and the run with it
            self._advance()
            return
        self._record_start(run, "notify" if queued.source == "notify" else "run")
        item = UserItem(queued.command.content)
        self._log.record(UserMessage, run.run_id, item=item, source=queued.source)
        self._advance()

    def _record_start(self, run: RunState, reason: RunReason) -> None:
        self._log.record(RunStart, run.run_id, reason=reason)
        self._open_run = run.run_id

    def _close_left_over(self) -> None:
        """Close what an earlier run left open: a pause, a crash, a store that failed at its end."""
        self._answer_open_calls(self._run)
        if self._open_run is not None:
            self._log.record(RunEnd, self._open_run, outcome="cancelled")
            self._open_run = None
        self._run = None

    def _answer_open_calls(self, run: RunState | None) -> None:
        """Give every call without a result its deterministic one; nothing is run again."""
        for call in open_calls(self._head.items):
            never_ran = run is not None and call.id not in run.started_calls
            text = NOT_RUN if never_ran else INTERRUPTED
            result = ToolResult.of(call, text, is_error=True)
            self._log.record(ToolResulted, None if run is None else run.run_id, item=result)

    def _resume_run(self, reply: AsyncFuture[Any]) -> None:
        run = self._run
        if run is None:  # the session was restored: all that is known of the run is its id
            assert self._open_run is not None
            run = RunState(self._open_run, reply)
            run.steps = self._open_steps
            self._answer_open_calls(None)
        run.reply = reply
        run.ending = None
        self._run = run
        self._to(PodState.RUNNING)
        self._start_clock(run)
        self._record_start(run, "resume")
        self._advance()

    def _drop_paused(self) -> None:
        self._close_left_over()
        self._commit(lambda: self._to(PodState.IDLE))

    def _advance(self) -> None:
        """Go on: first what waited for this moment, then the run's next step, or the next run."""
        while self._free and not self._busy:
            self._free.popleft()()
        if self._busy:
            return
        run = self._run
        if run is None or self._state is not PodState.RUNNING:
            self._start_next()
            return
        step = turn.next_step(self._standing(run))
        if isinstance(step, turn.CallModel):
            self._prepare_request(run)
        elif isinstance(step, turn.RunTools):
            calls = step.calls
            self._commit(lambda: self._run_tools(run, calls))
        elif isinstance(step, turn.Compact):
            self._fold("request_threshold", lambda error: self._folded_within(run, error))
        elif isinstance(step, turn.Finish):
            if step.why is not None:
                run.error = CompactionFailed(step.why)
            if step.outcome == "finished" and run.output_kind is not None:
                self._finish_typed(run)
            else:
                self._finish(run, step.outcome)
        else:
            assert_never(step)

    def _finish_typed(self, run: RunState) -> None:
        """The run is over if the answer is of the type asked for; else the model hears why it is not."""
        assert run.answer is not None
        read = parse_output(run.answer.text, run.output_kind)
        if isinstance(read, Fit):
            run.output = read.value
            self._finish(run, "finished")
            return
        run.misfits += 1
        if run.misfits > MISFITS:
            run.error = OutputInvalid(f"the model did not answer as asked: {read.why}")
            self._finish(run, "failed")
            return
        self._log.record(SystemMessage, run.run_id, item=SystemItem.of(read.why))
        run.answer = None
        self._advance()

    def _folded_within(self, run: RunState, error: BaseException | None) -> None:
        """A compaction in the middle of a run has ended: the request follows, or the run fails."""
        if run is self._run and error is not None and run.ending is None:
            run.error, run.ending = error, "failed"
        self._advance()

    def _standing(self, run: RunState) -> turn.Standing:
        calls = run.answer.calls if run.answer is not None else ()
        return turn.Standing(
            ending=run.ending,
            answer=run.answer,
            stop_reason=run.stop_reason,
            open_calls=open_calls(self._head.items) if calls else [],
            pending=run.unheard or bool(run.pending),
            steps=run.steps,
            max_steps=self._parts.manifest.worker.max_steps,
            fullness=self._before_request(),
        )

    def _start_next(self) -> None:
        if self._runs and self._state is PodState.IDLE:
            self._begin_run(self._runs.popleft())

    # -- a request -------------------------------------------------------------------------------

    def _prepare_request(self, run: RunState) -> None:
        """All the model will see is durable before it is sent."""
        self._join_pending(run)
        run.unheard = False
        self._commit(lambda: self._send(run), *run.unlogged)

    def _join_pending(self, run: RunState) -> None:
        """Have what was said meanwhile join the history."""
        for pending in run.pending:
            item = UserItem(pending.content)
            self._log.record(UserMessage, run.run_id, item=item, source=pending.source)
            run.unlogged.append(pending.reply)
        run.pending = []

    def _send(self, run: RunState) -> None:
        _resolve(run.unlogged)
        if run.ending is not None:
            self._advance()
            return
        exceeded = self._reserve(run)
        if exceeded is not None:
            self._out_of_budget(run, exceeded)
            return
        run.steps += 1
        self._tell(TurnStart, turn=run.steps)
        request = self._request(run)
        step = worker.answer(self._parts.client, request, self._tell, self._listened)
        self._do(step, lambda answer, error: self._answered(run, answer, error))

    def _request(self, run: RunState) -> Request:
        parts = self._parts
        return Request(
            items=self._context.view(),
            system=parts.manifest.pod.system_prompt,
            tools=parts.tools.specs,
            model=parts.manifest.model.model_id,
            max_tokens=parts.manifest.worker.max_tokens,
            temperature=parts.manifest.model.temperature,
            output_schema=run.output_schema,
            deadline=run.deadline,
            scratch=self._context.scratch,
        )

    def _reserve(self, run: RunState) -> Exceeded | None:
        budget = self._budget
        if budget is None:
            return None
        tokens = self._context.occupancy() + (self._parts.manifest.worker.max_tokens or 0)
        exceeded = budget.exceeded(tokens)
        if exceeded is None:
            run.held = budget.reserve(tokens, 0.0)
        return exceeded

    def _out_of_budget(self, run: RunState, exceeded: Exceeded) -> None:
        budget, limit, used = exceeded
        self._log.record(BudgetExceeded, run.run_id, budget=budget, limit=limit, used=used)
        run.ending = "budget"
        self._advance()

    def _answered(self, run: RunState, answer: Answer | None, error: BaseException | None) -> None:
        self._settle(run, None if answer is None else answer.usage)
        if run is not self._run:  # the store failed meanwhile, and the run with it
            self._advance()
            return
        if answer is None:
            assert error is not None
            self._unanswered(run, error)
            return
        self._guard = self._guard.request_answered()
        run.answer = answer.item
        run.stop_reason = answer.stop_reason
        self._log.record(
            AssistantMessage,
            run.run_id,
            item=answer.item,
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
        )
        self._context.measured(len(self._head.items) - 1, answer.usage)
        self._count(run, answer.usage)
        if not answer.item.calls:
            self._tell(TurnEnd, turn=run.steps)
        self._advance()

    def _unanswered(self, run: RunState, error: BaseException) -> None:
        """The request failed: compact once if the server says it is too long, else the run ends."""
        if isinstance(error, asyncio.CancelledError):
            run.ending = run.ending or "cancelled"
        elif run.ending is None and self._too_long(error):
            run.steps -= 1  # the request that follows the compaction is this one again
            self._fold("overflow", lambda failed: self._folded_within(run, failed))
            return
        else:
            run.error, run.ending = error, "failed"
        self._advance()

    def _too_long(self, error: BaseException) -> bool:
        overflow = isinstance(error, ModelError) and error.kind == "context_overflow"
        return overflow and policy.after_overflow(self._guard, len(self._head.items))

    def _settle(self, run: RunState, usage: Usage | None) -> None:
        held, run.held = run.held, None
        if held is not None and self._budget is not None:
            self._budget.settle(held, usage, None)

    def _count(self, run: RunState, usage: Usage | None) -> None:
        used = usage or Usage()
        run.usage = used if run.usage is None else run.usage + used
        self._usage = used if self._usage is None else self._usage + used
        self._tell(UsageUpdate, usage=used, run_usage=run.usage)

    # -- a batch of calls ------------------------------------------------------------------------

    def _run_tools(self, run: RunState, calls: list[ToolCall]) -> None:
        if run.ending is not None:
            self._advance()
            return
        self._batch = Batch(len(calls))
        step = self._parts.tools.run(
            self._parts.name, calls, self._starting(run), self._tool_ended, self._progressed
        )
        self._do(step, lambda _, error: self._batch_ended(run, error))

    def _starting(self, run: RunState) -> Callable[[ToolCall], None]:
        def starting(call: ToolCall) -> None:
            run.started_calls.add(call.id)
            self._tell(ToolStart, call_id=call.id, name=call.name, arguments=call.arguments)

        return starting

    def _tool_ended(self, number: int, result: ToolResult, seconds: float | None) -> None:
        self._receive(Envelope(ToolEnded(number, result, seconds)))

    def _progressed(self, call: ToolCall, text: str) -> None:
        """A tool says how far it is, from whatever thread it runs on."""
        self._post(Progressed(call, text))

    def _on_progressed(self, message: Progressed) -> None:
        call, text = message
        self._tell(ToolProgress, call_id=call.id, name=call.name, text=text)

    def _on_tool_ended(self, message: ToolEnded) -> None:
        """A call has its result: kept as soon as those of the calls before it are, in their order."""
        batch, run = self._batch, self._run
        if batch is None or run is None:
            return
        batch.ended[message.number] = message
        while batch.kept in batch.ended:
            _, result, seconds = batch.ended.pop(batch.kept)
            batch.kept += 1
            self._log.record(ToolResulted, run.run_id, item=result, seconds=seconds)
        if batch.kept < batch.size:  # the last result becomes durable with the next request's commit
            self._commit(self._advance)

    def _batch_ended(self, run: RunState, error: BaseException | None) -> None:
        self._batch = None
        if run is not self._run:
            self._advance()
            return
        if error is not None and not isinstance(error, asyncio.CancelledError):
            run.error, run.ending = error, "failed"
        self._tell(TurnEnd, turn=run.steps)
        self._advance()

    # -- the end of a run ------------------------------------------------------------------------

    def _finish(self, run: RunState, outcome: RunOutcome) -> None:
        self._answer_open_calls(run)
        if run.pending:  # words that came too late for this run are not lost
            self._join_pending(run)
            run.unheard = True
        if outcome != "paused":
            self._open_run = None
        self._stop_clock(run)
        self._log.record(
            RunEnd,
            run.run_id,
            outcome=outcome,
            steps=run.steps,
            usage=run.usage or Usage(),
            error=run.failure,
        )
        self._commit(lambda: self._finished(run, outcome), *run.unlogged)

    def _finished(self, run: RunState, outcome: RunOutcome) -> None:
        _resolve(run.unlogged)
        self._to(PodState.PAUSED if outcome == "paused" else PodState.IDLE)
        reply, run.reply = run.reply, None
        if outcome != "paused":
            self._run = None
        if reply is not None:
            if run.error is not None:
                reply.set_exception(RunFailed(run.error, run_id=run.run_id))
            else:
                reply.set(self._result(run, outcome))
        self._answer_cancels()
        self._advance()

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
        _resolve(cancelled or [])

    # -- the clock -------------------------------------------------------------------------------

    def _start_clock(self, run: RunState) -> None:
        run.started_at = time.monotonic()
        left = None if self._budget is None else self._budget.seconds_left()
        run.deadline = None if left is None else run.started_at + left
        if left is not None:
            assert self._mailroom is not None
            message = OutOfTime(run.run_id)
            self._alarm = self._mailroom.loop.call_later(left, lambda: self._post(message))

    def _stop_clock(self, run: RunState) -> None:
        if self._budget is not None:
            self._budget.spend_seconds(time.monotonic() - run.started_at)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _on_out_of_time(self, message: OutOfTime) -> None:
        run = self._run
        if run is None or run.run_id != message.run_id or run.ending is not None:
            return
        assert self._budget is not None
        limit = self._budget.limits.seconds or 0.0
        run.ending = "budget"
        self._log.record(BudgetExceeded, run.run_id, budget="seconds", limit=limit, used=limit)
        if self._step is not None:
            self._step.cancel()

    def _store_refused(self, error: BaseException, waiting: tuple[AsyncFuture[Any], ...]) -> None:
        """The store could not keep it: nobody was told, the run fails, the pod lives on."""
        if self._context_ is not None:
            self._context_.rewind()
        for reply in waiting:
            if not reply.done():
                reply.set_exception(error)
        run = self._run
        if run is None or self._state is not PodState.RUNNING:
            self._advance()
            return
        self._run = None
        if self._step is not None:
            self._step.cancel()
        self._stop_clock(run)
        self._open_run = run.run_id
        self._to(PodState.IDLE)
        for pending in run.pending:
            if not pending.reply.done():
                pending.reply.set_exception(error)
        if run.reply is not None:
            run.reply.set_exception(RunFailed(error, run_id=run.run_id))
        self._answer_cancels()
        self._advance()

    # -- the end ---------------------------------------------------------------------------------

    def on_stop(self) -> Any:
        if self._busy or self._run is not None:
            return self._wind_down()
        self._close()
        return None

    async def _wind_down(self) -> None:
        """End the run that goes on as cancelled, then close."""
        if self._run is not None and self._run.ending is None:
            self._run.ending = "cancelled"
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step}, timeout=STOP_GRACE)
        self._close()

    def _close(self) -> None:
        run, self._run = self._run, None
        paused = self._state is PodState.PAUSED
        try:
            if run is not None and not paused:
                self._answer_open_calls(run)
                self._log.record(
                    RunEnd, run.run_id, outcome="cancelled", steps=run.steps, usage=run.usage or Usage()
                )
            self._log.record(PodStoppedEvent)
            pending = self._log.commit()
            if pending is not None:
                pending.result(STOP_GRACE)
                self._log.settle()
        except (SessionError, TimeoutError):
            self._log.roll_back()
        self._parts.store.release(self._head.session_id)
        self._to(PodState.STOPPED)
        self._turn_away(run)

    def _turn_away(self, run: RunState | None) -> None:
        """Answer all who still wait."""
        if run is not None and run.reply is not None:
            run.reply.set(self._result(run, "cancelled"))
        waiting = [] if run is None else [*run.unlogged, *(each.reply for each in run.pending)]
        waiting += [queued.reply for queued in self._runs or ()]
        for reply in waiting:
            if not reply.done():
                reply.set_exception(self._gone())
        self._answer_cancels()

    def on_failure(self, _type: Any, error: Any, _traceback: Any) -> None:
        """A defect ended the pod: say so, and answer all who wait."""
        run, self._run = self._run, None
        if self._step is not None:
            self._step.cancel()
        try:
            self._log.roll_back()
            self._log.record(PodFailed, error=Failure.of(error))
            self._log.commit()
        except SessionError:
            self._log.roll_back()
        self._parts.store.release(self._head.session_id)
        self._state = PodState.FAILED
        if run is not None and run.reply is not None and not run.reply.done():
            run.reply.set_exception(RunFailed(error, run_id=run.run_id))
            run.reply = None
        self._turn_away(run)


def _resolve(replies: list[AsyncFuture[Any]]) -> None:
    for reply in replies:
        reply.set(None)
    replies.clear()


_EVENT_OF: dict[type, tuple[Any, dict[str, Any]]] = {
    UserItem: (UserMessage, {"source": "push"}),
    AssistantItem: (AssistantMessage, {}),
    SystemItem: (SystemMessage, {}),
    ToolResult: (ToolResulted, {}),
}

_HANDLERS: dict[type, Callable[[PodActor, Any], Any]] = {
    commands.Run: PodActor._on_run,
    TypedRun: PodActor._on_run,
    commands.Steer: PodActor._on_steer,
    commands.Notify: PodActor._on_notify,
    commands.Cancel: PodActor._on_cancel,
    commands.Pause: PodActor._on_pause,
    commands.Resume: PodActor._on_resume,
    commands.PushItem: PodActor._on_push_item,
    commands.Compact: PodActor._on_compact,
    commands.TryPreRunCompact: PodActor._on_try_pre_run_compact,
    commands.History: PodActor._on_history,
    commands.Describe: PodActor._on_describe,
    StepEnded: PodActor._on_step_ended,
    CommitEnded: PodActor._on_commit_ended,
    commands.Fork: PodActor._on_fork,
    ToolEnded: PodActor._on_tool_ended,
    Progressed: PodActor._on_progressed,
    OutOfTime: PodActor._on_out_of_time,
}
