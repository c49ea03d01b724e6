"""``Play``: a run as one coroutine, step by step from its input, or its pause, to its recorded end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Literal, Protocol, assert_never

from actors.llm.output import DOUBTFUL, Fit, instruction_for, parse_output
from actors.pod.accounts.exchange import Exchange
from actors.pod.runs import decide
from actors.pod.runs.history_lock import HistoryLock
from actors.pod.runs.model_calls import Compacting, ModelCalls
from actors.pod.runs.outcomes import refused, said_nothing, steps_reached, tokens_reached
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import QueuedRun, Run
from actors.runtime.circles import enter_work
from actors.runtime.interruptible import Interruptible, Left
from actors.runtime.interruptible import Owner as WorkOwner
from actors.sessions.replay import open_calls
from protocol.errors import CompactionFailed, Failure, ModelRetry, OutputInvalid, SessionError
from protocol.events import RunEnd, RunOutcome, RunReason, RunStart, SystemMessage
from protocol.items import SystemItem, UserItem
from protocol.text import encodable
from protocol.usage import Usage

#: How often a model may answer with something else than the type it was asked for.
MOST_INVALID_OUTPUTS = 2


class Owner(Compacting, WorkOwner, Protocol):
    """The RunLoop whose runs are played."""

    async def finish(self, run: Run, outcome: RunOutcome) -> None:
        """Make the recorded end of the run durable, and resolve its future."""


class Play:
    """Plays the runs of one pod, one at a time, each in a task of its own and in its caller's context.

    A run holds the history lock. A cancel reaches it only where it waits for a client or a tool
    (``Run.waits``).
    """

    __slots__ = (
        "_alarm",
        "_history_lock",
        "_model_calls",
        "_owner",
        "_parts",
    )

    def __init__(self, parts: RunParts, history_lock: HistoryLock, owner: Owner) -> None:
        self._parts = parts
        self._history_lock = history_lock
        self._owner = owner
        self._model_calls = ModelCalls(parts, owner)
        #: Rings when the budget of seconds is used up.
        self._alarm: asyncio.TimerHandle | None = None

    # -- beginnings ------------------------------------------------------------------------------

    def begin(self, run: Run, queued: QueuedRun) -> None:
        """Begin a run with its input."""
        self._set_alarm(run)
        self._parts.tasks.start(self._play(run, run.waits, self._from_input(run, queued)), run.caller)

    def begin_at_once(self, run: Run, queued: QueuedRun) -> None:
        """Begin a run with its input: at once if its command was the only mail, since then it overtakes
        nothing.
        """
        parts = self._parts
        if parts.mailroom.alone:
            self._set_alarm(run)
            parts.tasks.start_at_once(self._play(run, run.waits, self._from_input(run, queued)), run.caller)
        else:
            self.begin(run, queued)

    def resume(self, run: Run) -> None:
        """Continue a run that was paused."""
        self._parts.accounts.go_on()
        self._set_alarm(run)
        self._parts.tasks.start(self._play(run, run.waits, self._from_pause(run)), run.caller)

    async def _from_input(self, run: Run, queued: QueuedRun) -> None:
        """Record the start of the run and its input, which the model sees only once it is durable."""
        run.waits.check()
        if run.own is not None:
            await self._model_calls.make_own(run, run.own)
        parts = self._parts
        if parts.template.limits.before_run and parts.conversation.due_before_run():
            await self._owner.compaction().fold("threshold", run.waits)  # whatever comes of it
        found, recall = None, parts.recall
        if recall is not None and recall.is_due():
            found = await recall.search(queued.command.content, run.waits)
            run.waits.check()
        items = parts.journal.head.items
        run.began_in, run.began_at = items, len(items)
        self._record_start(run, "notify" if queued.source == "notify" else "run")
        if found is not None:
            parts.journal.log.record(SystemMessage, run.run_id, item=found)
        self._model_calls.add_words(run, UserItem(queued.command.content), queued.source)

    async def _from_pause(self, run: Run) -> None:
        run.waits.check()
        if run.own is not None and run.resources is None:
            await self._model_calls.make_own(run, run.own)
        self._parts.tool_calls.close_before_resume(run)  # of an answer that was pushed meanwhile
        self._record_start(run, "resume")

    def _record_start(self, run: Run, reason: RunReason) -> None:
        journal = self._parts.journal
        log, head = journal.log, journal.head
        log.add(RunStart(log.pod, head.session_id, head.seq + 1, time.time(), run.run_id, reason=reason))
        run.start_seq = head.seq

    # -- steps -----------------------------------------------------------------------------------

    async def _play(  # noqa: C901 - a run's steps, side by side
        self, run: Run, waits: Interruptible, begin: Coroutine[Any, Any, None]
    ) -> None:
        """Carry out ``begin``, then the rest of the run step by step."""
        code = waits.code = enter_work(self._parts.tasks.loop)
        try:
            await begin
            while True:
                waits.check()  # the run may be lost, since the store refused what another recorded
                at = self._turn_state(run)
                # Nothing comes between calls and their results.
                if self._history_lock.waiting and not at.open_calls:
                    await self._let_others_pass(run)
                    at = self._turn_state(run)
                step = decide.next_step(at)
                if type(step) is decide.CallModel:
                    await self._model_calls.request(run)
                elif type(step) is decide.RunTools:
                    await self._run_tools(run, step)
                elif type(step) is decide.Finish:
                    outcome = self._conclude(run, step)
                    if outcome == "finished" and run.own is not None and run.own.validator is not None:
                        outcome = await self._validate(run, run.own.validator)
                    if outcome is not None:
                        self._record_end(run, outcome)
                        await self._owner.finish(run, outcome)
                        return
                else:
                    await self._mend(run, step)
                if self._parts.mailroom.has_mail():
                    await self._receive_mail()
        except (Left, SessionError):
            if not waits.left:
                raise
        finally:
            self._history_lock.leave(waits)
            code.end()

    async def _mend(self, run: Run, step: decide.CloseCalls | decide.Compact) -> None:
        """Close calls whose outcome nobody knows, or fold a history that has grown too long."""
        if isinstance(step, decide.CloseCalls):
            self._parts.tool_calls.close(run, step.calls)
        elif isinstance(step, decide.Compact):
            failed = await self._owner.compaction().fold("request_threshold", run.waits)
            self._model_calls.end_compaction(run, failed)
        else:
            assert_never(step)

    async def _let_others_pass(self, run: Run) -> None:
        """Let the work pass that waits for a gap between two steps."""
        waits = run.waits
        await self._history_lock.let_pass(waits)
        waits.check()
        self._parts.tool_calls.close_open(run)  # of an answer that was pushed

    async def _receive_mail(self) -> None:
        """Let the mail be delivered that came before a step ended, so that its words join the history now."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:  # by who closes the loop: it comes at the next wait
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    def _turn_state(self, run: Run) -> decide.TurnState:
        parts, template = self._parts, self._parts.template
        calls = run.answer.calls if run.answer is not None else ()
        return decide.TurnState(
            run.ending,
            run.answer,
            run.stop_reason,
            open_calls(parts.journal.head.items) if calls else [],
            run.has_unseen_input or bool(run.pending),
            parts.accounts.steps,
            template.manifest.worker.max_steps,
            parts.conversation.before_request() if template.limits.before_request else "send",
            run.started_calls,
        )

    async def _run_tools(self, run: Run, step: decide.RunTools) -> None:
        try:
            if not await self._parts.tool_calls.run(run, step.calls):
                return
        except SessionError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - ends this run alone
            self._model_calls.end_by_error(run, error)
        self._parts.tool_calls.end_loop(run)
        self._model_calls.end_turn()

    # -- a client or a tool that goes on though it was cancelled ---------------------------------

    def go_on(self, run: Run) -> None:
        """Continue a run in another task; the one that it was in has no effect any more."""
        exchange = run.exchange
        steps = self._after_tools(run) if exchange is None else self._after_request(run, exchange)
        left, run.waits = run.waits, Interruptible(self._owner)
        run.waits.asked = True
        self._history_lock.hand_over(left, run.waits)
        self._parts.tasks.start(self._play(run, run.waits, steps), run.caller)

    async def _after_request(self, run: Run, exchange: Exchange) -> None:
        await self._model_calls.fail_request(run, exchange, asyncio.CancelledError())

    async def _after_tools(self, run: Run) -> None:
        self._parts.tool_calls.end_loop(run)
        self._model_calls.end_turn()

    # -- the end ---------------------------------------------------------------------------------

    def _conclude(self, run: Run, step: decide.Finish) -> RunOutcome | None:
        """Note on the run what it ends with, and return its outcome; None if it goes on, because its answer
        is not of the type that was asked for.
        """
        answer, outcome = run.answer, step.outcome
        if outcome == "finished":
            if run.output_kind is not None and not self._take_output(run):
                if run.error is None:
                    return None
                outcome = "failed"
        elif step.why is not None:
            run.error = CompactionFailed(step.why)
        elif step.limit is not None:
            run.limit = self._limit(run, step.limit)
        elif outcome == "refused" and answer is not None:
            run.limit = refused(answer, run.stop_reason)
        return outcome

    def _limit(self, run: Run, limit: Literal["max_tokens", "max_steps"]) -> Failure:
        template = (run.resources or self._parts.resources).template
        if limit == "max_steps":
            return steps_reached(template.manifest.worker.max_steps)
        return tokens_reached(template.max_tokens)

    def _take_output(self, run: Run) -> bool:
        """Convert the answer to the type asked for; returns whether that succeeded. If not, the model gets
        the reason, or, after too many attempts, the run fails with it.
        """
        assert run.answer is not None
        read = parse_output(run.answer.text, run.output_kind)
        doubtful = isinstance(read, Fit) and read.doubtful and not run.invalid_outputs  # asked about once
        if isinstance(read, Fit) and not doubtful:
            run.output = read.value
            return True
        self._ask_again(run, DOUBTFUL if isinstance(read, Fit) else read.why)
        return False

    def _ask_again(self, run: Run, why: str) -> None:
        """Record for the model why its answer will not do; after too many attempts the run fails with that
        instead.
        """
        run.invalid_outputs += 1
        if run.invalid_outputs > MOST_INVALID_OUTPUTS:
            run.error = OutputInvalid(f"the model's answer does not have the required form: {why}")
            return
        # With the schema, which a server may have been sent and have shown to nobody.
        words = why if run.output_schema is None else f"{why} {instruction_for(run.output_schema)}"
        self._parts.journal.log.record(SystemMessage, run.run_id, item=SystemItem.of(words))
        run.has_unseen_input = True

    async def _validate(self, run: Run, validator: Any) -> RunOutcome | None:
        """How the run ends once its validator has seen the answer; None if it goes on. Raises SessionError,
        Left.
        """
        from actors.pod.runs.own_options import validate  # noqa: PLC0415 - paid for by whoever has one

        resources = run.resources or self._parts.resources
        value = run.output if run.output_kind is not None or run.answer is None else run.answer.text
        await self._parts.journal.commit()
        run.waits.check()
        if run.ending is not None:
            return None
        try:
            looked = validate(validator, value, resources.context(run.deps), resources)
            made = await run.waits.apart(looked, "the output validator")
        except ModelRetry as retry:
            run.output = None
            self._ask_again(run, encodable(retry.message))
            return None if run.error is None else "failed"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - ends this run alone
            self._model_calls.end_by_error(run, error)
            return None
        if run.pending:  # words that came meanwhile are answered before the run ends
            return None
        if made is not None:
            run.output = made
        return "finished"

    def _record_end(self, run: Run, outcome: RunOutcome) -> None:
        parts = self._parts
        if run.answer is not None and run.answer.calls:
            parts.tool_calls.close_at_end(run, outcome)
        if outcome == "finished" and run.answer is not None and not run.answer.content:
            run.limit = said_nothing()
        if run.pending:  # words that came too late for this run are not lost
            self._model_calls.join_pending(run)
            run.has_unseen_input = True
        run.ending = outcome
        seconds = self.stop_clock()
        run.seconds += seconds
        log, head = parts.journal.log, parts.journal.head
        log.add(
            RunEnd(
                log.pod,
                head.session_id,
                head.seq + 1,
                time.time(),
                run.run_id,
                outcome=outcome,
                steps=parts.accounts.steps,
                usage=parts.accounts.run_usage or Usage(),
                error=run.failure(),
                seconds=seconds,
            )
        )
        run.end_seq = head.seq

    # -- the clock -------------------------------------------------------------------------------

    def _set_alarm(self, run: Run) -> None:
        budget = self._parts.resources.budget
        if budget is not None and (left := budget.seconds_left()) is not None:
            run.deadline = time.monotonic() + left
            self._alarm = self._parts.tasks.loop.call_later(left, self._out_of_time, run)

    def stop_clock(self) -> float:
        """Stop the run's clock at its end, or when it is lost; returns its seconds."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return self._parts.accounts.stop_clock()

    def _out_of_time(self, run: Run) -> None:
        """End the run, because the budget of seconds is used up."""
        if run.waits.left or run.ending is not None:
            return
        budget = self._parts.resources.budget
        assert budget is not None
        self._model_calls.note_exceeded(run, budget.out_of_time())
        run.waits.interrupt()
