"""``TurnActor``: one turn of a run: a request to the model, then the calls that its answer makes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from actors.compaction import policy
from actors.llm.base import Answer, Request
from actors.pod.budget import Exceeded, OverBudget
from actors.pod.calls import NOT_RUN
from actors.pod.exchange import Exchange, FailedAttempt
from actors.pod.outcomes import budget_reached, paused_in_vain, still_too_long
from actors.pod.remembering import RememberingActor
from actors.pod.repeats import (
    TOLD_FROM,
    Repeats,
    answers_since_last_words,
    noticed,
    since_last_words,
)
from actors.pod.run import QueuedRun, RunState, resolve
from actors.pod.spending import Spending
from actors.runtime.future import AsyncFuture
from actors.sessions.replay import open_calls
from actors.tools.base import INTERRUPTED
from protocol.errors import Failure, ModelError, ToolLoop
from protocol.events import (
    Alert,
    AssistantMessage,
    AttemptFailed,
    BudgetExceeded,
    StreamRestart,
    SystemMessage,
    TextDelta,
    ToolProgress,
    ToolResulted,
    ToolStart,
    TurnEnd,
    TurnStart,
    UsageUpdate,
    UserMessage,
    UserSource,
)
from protocol.items import (
    AssistantItem,
    SystemItem,
    ToolCall,
    ToolResult,
    UserItem,
)
from protocol.lifecycle import PodState
from protocol.text import encodable
from protocol.usage import Usage

_log = logging.getLogger("polypod.tools")

#: What a model is told when a run goes on whose last answer was cut.
GO_ON = "Your last answer was interrupted and cut off. Go on from where it ended."


#: How often in a row a model may pause its turn.
MAX_PAUSES = 10


class ToolEnded(NamedTuple):
    """To the pod from a batch of calls: one of them has its result."""

    batch: Batch
    number: int
    result: ToolResult
    seconds: float | None
    waited: float | None


class Progressed(NamedTuple):
    """To the pod from one of its tools: how far it is."""

    batch: Batch
    call: ToolCall
    text: str


class EndedLate(NamedTuple):
    """To the pod from a tool that it did not wait for any longer: what came of it."""

    run_id: str
    call: ToolCall
    result: ToolResult


class Batch:
    """Calls under way: which go on, results that wait for those before them, and how many are kept."""

    __slots__ = ("ended", "going_on", "kept", "run_id", "size")

    def __init__(self, size: int, run_id: str) -> None:
        self.ended: dict[int, ToolEnded] = {}
        self.kept = 0
        self.size = size
        self.run_id = run_id
        #: The ids of the calls that were begun and have not ended.
        self.going_on: set[str] = set()


class TurnActor(RememberingActor):
    """What a pod does in a turn. ``_advance`` decides what comes next and stands one floor up."""

    _run: RunState | None = None
    _runs: deque[QueuedRun] | None = None
    _batch: Batch | None = None
    _cancelled: list[AsyncFuture[Any]] | None = None
    _alarm: asyncio.TimerHandle | None = None

    @property
    def _steps(self) -> int:
        return self._open_steps if self._run is None else self._run.steps

    @property
    def _run_seconds(self) -> float:
        run = self._run
        if run is None or self._state is not PodState.RUNNING or self._head.open_run is None:
            return 0.0
        return time.monotonic() - run.started_at

    @property
    def _ending(self) -> bool:
        run = self._run
        return run is not None and run.ending is not None and self._state is PodState.RUNNING

    @property
    def _run_id(self) -> str | None:
        return None if self._run is None else self._run.run_id

    # -- a request -------------------------------------------------------------------------------

    def _prepare_request(self, run: RunState) -> None:
        """All the model will see is durable before it is sent."""
        self._answer_open_calls(run)  # one that was pushed may have none
        if run.pending:
            self._join_pending(run)
        last = self._head.items[-1]
        if type(last) is AssistantItem and last.cut:  # what ends with a model's words is refused
            self._log.record(SystemMessage, run.run_id, item=SystemItem.of(GO_ON))
        run.unheard = True
        self._commit(lambda: self._send(run), self._store_refused)

    def _answer_open_calls(self, run: RunState | None) -> None:
        """Give every call without a result its deterministic one; nothing is run again."""
        items = self._head.items
        last = items[-1] if items else None
        if type(last) is UserItem or (type(last) is AssistantItem and not last.calls):
            return  # as nearly always
        for call in open_calls(items):
            never_ran = run is not None and call.id not in run.started_calls
            text = NOT_RUN if never_ran else INTERRUPTED
            result = ToolResult.of(call, text, is_error=True)
            self._log.record(ToolResulted, None if run is None else run.run_id, item=result)

    def _close_calls(self) -> None:
        self._answer_open_calls(self._run)

    def _join_pending(self, run: RunState) -> None:
        """Have what was said meanwhile join the history."""
        for pending in run.pending:
            self._add_words(run, UserItem(pending.content), pending.source)
            run.unlogged.append(pending.reply)
        run.pending = []

    def _add_words(self, run: RunState, item: UserItem, source: UserSource) -> None:
        run.repeats = None  # words of a user begin anew
        head = self._head
        self._log.add(
            UserMessage(
                pod=self._parts.name,
                session_id=head.session_id,
                seq=head.seq + 1,
                at=time.time(),
                run_id=run.run_id,
                item=item,
                source=source,
            )
        )

    def _send(self, run: RunState) -> None:
        if run.unlogged:
            resolve(run.unlogged)
        if run.ending is not None:
            self._advance()
            return
        exchange = run.exchange = Exchange(
            self._parts,
            self._context.occupancy,
            self._parts.manifest.worker.max_tokens,
            heard=self._listened,
            tell=self._tell,
            tell_text=self._tell_text,
        )
        try:
            exchange.reserve()
        except OverBudget as over:
            self._out_of_budget(run, over.exceeded)
            return
        run.steps += 1
        if self._hears(TurnStart):
            head = self._head
            self._log.tell(
                TurnStart(
                    pod=self._parts.name,
                    session_id=head.session_id,
                    seq=head.seq,
                    at=time.time(),
                    run_id=run.run_id,
                    turn=run.steps,
                )
            )
        self._do(
            exchange.ask(self._request(run)),
            lambda answer, error: self._answered(run, answer, error),
            what="the model's client",
            caller=run.caller,
        )

    def _tell_text(self, text: str, attempt: int) -> None:
        if self._hears(TextDelta):
            head = self._head
            self._log.tell(
                TextDelta(
                    pod=self._parts.name,
                    session_id=head.session_id,
                    seq=head.seq,
                    at=time.time(),
                    run_id=self._run_id,
                    text=encodable(text),
                    attempt=attempt,
                )
            )

    def _request(self, run: RunState) -> Request:
        parts, context = self._parts, self._context
        return Request(
            items=context.view(),
            system=parts.manifest.pod.system_prompt,
            tools=parts.tools.specs,
            model=parts.manifest.model.model_id,
            max_tokens=parts.manifest.worker.max_tokens,
            temperature=parts.manifest.model.temperature,
            output_schema=run.output_schema,
            deadline=run.deadline,
            scratch=context.scratch,
        )

    def _out_of_budget(self, run: RunState, exceeded: Exceeded) -> None:
        self._note_exceeded(run, exceeded)
        self._advance()

    def _note_exceeded(self, run: RunState, exceeded: Exceeded) -> None:
        """Record which budget the run has reached; it ends with that."""
        self._log.record(BudgetExceeded, run.run_id, **exceeded._asdict())
        run.ending, run.limit = "budget", budget_reached(exceeded)

    def _answered(self, run: RunState, answer: Answer | None, error: BaseException | None) -> None:
        exchange, cost = run.exchange, None
        assert exchange is not None
        if answer is None:
            assert error is not None
            exchange.end(error)
        else:
            cost = exchange.answered(answer)
        run.exchange = None
        if run is not self._run:  # the store failed meanwhile, and the run with it
            self._advance()
            return
        if answer is None:
            assert error is not None
            self._unanswered(run, exchange, error)
            return
        if exchange.failed:
            self._record_failed(run, exchange.failed)
        if answer.item.refused:
            answer = replace(answer, item=self._as_refused(run, answer.item))
        self._guard = self._guard.request_answered()
        head = self._head
        try:
            self._log.add(
                AssistantMessage(
                    pod=self._parts.name,
                    session_id=head.session_id,
                    seq=head.seq + 1,
                    at=time.time(),
                    run_id=run.run_id,
                    item=answer.item,
                    model=answer.model,
                    stop_reason=answer.stop_reason,
                    usage=answer.usage,
                    cost=cost,
                )
            )
        except (TypeError, ValueError) as unfit:  # a client of the user's own gave what no JSON can hold
            run.error, run.ending = unfit, "failed"
            self._advance()
            return
        run.unheard = False
        run.answer = answer.item
        run.stop_reason = answer.stop_reason
        if answer.stop_reason == "pause" or run.pauses:
            self._look_at_pause(run, answer)
        self._context.measured(len(self._head.items) - 1, answer.usage)
        self._count(run, answer.usage, cost)
        if answer.item.calls:
            run.started_calls = frozenset()  # ids are unique within an answer, not within a run
        else:
            self._tell_turn_end(run)
        self._advance()

    def _look_at_pause(self, run: RunState, answer: Answer) -> None:
        """A model that pauses is asked to go on, as long as that leads anywhere."""
        if answer.stop_reason != "pause":
            run.pauses, run.paused = 0, None
            return
        run.pauses += 1
        item, before = answer.item, run.paused
        run.paused = item
        stuck = not (item.content or item.calls or item.vendor) or item == before
        if (stuck or run.pauses > MAX_PAUSES) and run.ending is None:
            run.error, run.ending = paused_in_vain(self._parts.model, run.pauses), "failed"

    def _record_failed(self, run: RunState, failed: list[FailedAttempt]) -> None:
        """Record and count what attempts took that gave no answer."""
        for each in failed:
            if each.usage is not None:
                self._log.record(
                    AttemptFailed,
                    run.run_id,
                    attempt=each.attempt,
                    error=each.failure,
                    usage=each.usage,
                    cost=each.cost,
                )
                self._count(run, each.usage, each.cost)

    def _keep_shown(self, run: RunState, exchange: Exchange, *, refused: bool = False) -> None:
        """The request has no answer: what people saw of one joins the history, marked as cut or refused."""
        shown = exchange.take_shown()
        self._record_failed(run, exchange.failed)
        if shown is None:
            if refused:
                item = self._as_refused(run, AssistantItem())
                self._log.record(AssistantMessage, run.run_id, item=item, stop_reason="content_filter")
            return
        assert shown.shown is not None
        kept = self._as_refused(run, shown.shown) if refused else shown.shown
        run.answer, run.stop_reason = kept, None
        self._log.record(
            AssistantMessage,
            run.run_id,
            item=kept,
            model=self._parts.model,
            usage=shown.usage,
            cost=shown.cost,
        )
        if shown.usage is not None:
            self._count(run, shown.usage, shown.cost)

    def _as_refused(self, run: RunState, item: AssistantItem) -> AssistantItem:
        """The item as that of a refusal: calls on the way to it are not to be run, and it tells how far back
        its run reaches; a compaction since then keeps of that what it keeps.
        """
        items = self._head.items
        of_run = len(items) - run.began_at if run.began_in is items else 0
        return replace(item, refused=True, calls=(), refused_items=of_run)

    def _unanswered(self, run: RunState, exchange: Exchange, error: BaseException) -> None:
        """The request failed: compact once if the server says it is too long, else the run ends."""
        if run.ending is None and (overflow := self._too_long(error)) is not None:
            self._compact_too_long(run, exchange, overflow)
            return
        refused = isinstance(error, ModelError) and error.kind == "content_filter"
        self._keep_shown(run, exchange, refused=refused)
        if run.ending is None and isinstance(error, OverBudget):
            self._out_of_budget(run, error.exceeded)
            return
        self._broken(run, error)
        self._advance()

    def _broken(self, run: RunState, error: BaseException) -> None:
        """A step ended by an error. An end that was asked for stands, whatever came of its cancel."""
        cancelled = isinstance(error, asyncio.CancelledError)
        if run.ending in {"cancelled", "paused"} or (run.ending is not None and cancelled):
            return
        if cancelled:  # from outside; who closes a loop cancels all its tasks
            run.ending = "paused" if self._parts.closing() else "cancelled"
        else:
            run.error, run.ending = error, "failed"

    def _compact_too_long(self, run: RunState, exchange: Exchange, overflow: ModelError) -> None:
        """Answer an overflow with a compaction, after which the same request is sent once more."""
        run.steps -= 1  # the request that follows the compaction is this one again
        self._record_failed(run, exchange.failed)
        if exchange.failed and exchange.failed[-1].shown is not None:
            self._tell(StreamRestart, attempt=exchange.failed[-1].attempt, error=Failure.of(overflow))
        self._fold(
            "overflow",
            lambda failed: self._folded_within(run, failed, overflow),
            caller=run.caller,
            window=overflow.context_window,
        )

    def _folded_within(
        self, run: RunState, error: BaseException | None, overflow: ModelError | None = None
    ) -> None:
        """A compaction in the middle of a run has ended: the request follows, or the run is over.

        ``overflow`` is what the compaction was to answer; where it fails the run tells both.
        """
        if run is self._run and error is not None and run.ending is None:
            if isinstance(error.__cause__, OverBudget):
                self._out_of_budget(run, error.__cause__.exceeded)
                return
            run.error, run.ending = error if overflow is None else still_too_long(overflow, error), "failed"
        self._advance()

    def _too_long(self, error: BaseException) -> ModelError | None:
        """The error, if it says that the request was too long and a compaction is to answer that."""
        if not isinstance(error, ModelError) or error.kind != "context_overflow":
            return None
        return error if policy.after_overflow(self._guard, len(self._head.items)) else None

    def _count(self, run: RunState, usage: Usage | None, cost: float | None) -> None:
        used = usage or Usage()
        run.usage = used if run.usage is None else run.usage + used
        self._usage = used if self._usage is None else self._usage + used
        if cost is not None:
            self._cost = cost if self._cost is None else self._cost + cost
        if self._hears(UsageUpdate):
            head = self._head
            self._log.tell(
                UsageUpdate(
                    pod=self._parts.name,
                    session_id=head.session_id,
                    seq=head.seq,
                    at=time.time(),
                    run_id=run.run_id,
                    usage=used,
                    run_usage=run.usage,
                    cost=cost,
                )
            )

    def _count_folding(self, spending: Spending) -> None:
        """Count what a compaction's calls took; within a run it is part of what the run took."""
        run, spent = self._run, spending.spent
        fresh = not spending.counted
        super()._count_folding(spending)
        if run is None or spent.usage is None or not fresh:
            return
        run.usage = spent.usage if run.usage is None else run.usage + spent.usage
        self._tell(UsageUpdate, usage=spent.usage, run_usage=run.usage, cost=spent.cost)

    # -- a batch of calls ------------------------------------------------------------------------

    def _run_tools(self, run: RunState, calls: list[ToolCall]) -> None:
        if run.ending is not None:
            self._advance()
            return
        batch = self._batch = Batch(len(calls), run.run_id)
        if self._parts.manifest.worker.max_repeats:
            self._follow_repeats(run)
        step = self._parts.tools.run(
            self._parts.name,
            calls,
            self._starting(run, batch),
            partial(self._tool_ended, batch),
            partial(self._progressed, batch),
            partial(self._ended_late, batch),
        )
        self._do(step, lambda _, error: self._batch_ended(run, error), what=_named(calls), caller=run.caller)

    def _starting(self, run: RunState, batch: Batch) -> Callable[[ToolCall], None]:
        started = run.started_calls = set()

        def starting(call: ToolCall) -> None:
            # Left to itself, or its run has ended within this very turn of the loop, which a cancel of
            # its task does not stop: it begins nothing any more.
            if batch is not self._batch or run is not self._run or run.ending is not None:
                raise asyncio.CancelledError
            started.add(call.id)
            batch.going_on.add(call.id)
            self._tell(ToolStart, call_id=call.id, name=call.name, arguments=call.arguments)

        return starting

    def _tool_ended(
        self, batch: Batch, number: int, result: ToolResult, seconds: float | None, waited: float | None
    ) -> None:
        batch.going_on.discard(result.call_id)
        self._arrive(ToolEnded(batch, number, result, seconds, waited), None)

    def _progressed(self, batch: Batch, call: ToolCall, text: str) -> None:
        """A tool says how far it is, from whatever thread it runs on."""
        if batch is self._batch:
            self._post(Progressed(batch, call, text))

    def _on_progressed(self, message: Progressed) -> None:
        batch, call, text = message
        if batch is self._batch and call.id in batch.going_on:  # else its call has ended
            self._tell(ToolProgress, call_id=call.id, name=call.name, text=encodable(str(text)))

    def _ended_late(self, batch: Batch, call: ToolCall, result: ToolResult) -> None:
        """A tool that was cancelled, or whose time was up, has ended after all."""
        if batch is self._batch and call.id in batch.going_on:
            return  # its cancel is still waited for
        if self.actor_stopped.is_set():
            _log.warning("after the end of its pod: %s", _late_words(call, result))
        else:
            self._post(EndedLate(batch.run_id, call, result))

    def _on_ended_late(self, message: EndedLate) -> None:
        self._log.record(Alert, message.run_id, text=_late_words(message.call, message.result))
        self._commit(self._advance, self._store_refused)

    def _on_tool_ended(self, message: ToolEnded) -> None:
        """A call has its result: kept as soon as those of the calls before it are, in their order."""
        batch, run = self._batch, self._run
        if batch is not message.batch or run is None:
            return
        batch.ended[message.number] = message
        while batch.kept in batch.ended:
            ended = batch.ended.pop(batch.kept)
            batch.kept += 1
            self._add_result(run, ended)
        if batch.kept < batch.size:  # the last result becomes durable with the next request's commit
            self._commit(self._advance, self._store_refused)

    def _follow_repeats(self, run: RunState) -> None:
        """Have the run's failure tracking know the calls that are about to be run."""
        if run.repeats is None:
            most = self._parts.manifest.worker.max_repeats
            items = self._head.items
            if answers_since_last_words(items, at_least=min(TOLD_FROM, most)):
                run.repeats = Repeats(since_last_words(items))
        elif run.answer is not None:
            run.repeats.add(run.answer)

    def _tracked(self, run: RunState, result: ToolResult) -> ToolResult:
        """The result, with what the model is told where it repeats itself in vain."""
        if run.repeats is None:
            return result
        repeated = run.repeats.add(result)
        if repeated is None or repeated.times < TOLD_FROM:
            return result
        return noticed(result, repeated, self._parts.manifest.worker.max_repeats)

    def _end_loop(self, run: RunState) -> None:
        """End a run whose model goes on repeating itself, unless somebody has said something meanwhile."""
        worst = None if run.repeats is None else run.repeats.worst
        most = self._parts.manifest.worker.max_repeats
        if worst is not None and worst.times >= most and run.ending is None and not run.pending:
            run.error, run.ending = ToolLoop(worst.words, tool=worst.name, times=worst.times), "failed"

    def _add_result(self, run: RunState, ended: ToolEnded) -> None:
        head = self._head
        self._log.add(
            ToolResulted(
                pod=self._parts.name,
                session_id=head.session_id,
                seq=head.seq + 1,
                at=time.time(),
                run_id=run.run_id,
                item=self._tracked(run, ended.result),
                seconds=ended.seconds,
                waited=ended.waited,
            )
        )

    def _close_begun(self, run: RunState, calls: list[ToolCall]) -> None:
        """Calls that were begun and whose step ended without their results: that is their result."""
        for call in calls:
            result = ToolResult.of(call, INTERRUPTED, is_error=True)
            self._log.record(ToolResulted, run.run_id, item=result)
        self._advance()

    def _batch_ended(self, run: RunState, error: BaseException | None) -> None:
        self._batch = None
        if run is not self._run:
            self._advance()
            return
        if error is not None:
            self._broken(run, error)
        self._end_loop(run)
        self._tell_turn_end(run)
        self._advance()

    def _tell_turn_end(self, run: RunState) -> None:
        if not self._hears(TurnEnd):
            return
        head = self._head
        self._log.tell(
            TurnEnd(
                pod=self._parts.name,
                session_id=head.session_id,
                seq=head.seq,
                at=time.time(),
                run_id=run.run_id,
                turn=run.steps,
            )
        )


def _named(calls: list[ToolCall]) -> str:
    if len(calls) == 1:
        return f"tool {calls[0].name}"
    return f"tools {', '.join(dict.fromkeys(call.name for call in calls))}"


def _late_words(call: ToolCall, result: ToolResult) -> str:
    """What people are told of a call that ended when nobody waited for it any more."""
    words = " ".join(result.text.split())
    shown = words if len(words) <= 200 else f"{words[:200]}…"
    how = "with an error" if result.is_error else "with a result"
    return f"tool {call.name} ({call.id}), which was not waited for any longer, has ended {how}: {shown}"
