"""``RunLoop``: a pod's runs, one after the other: how each begins, is interrupted, and is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from actors.pod.accounts.accounts import Figures
from actors.pod.accounts.exchange import Exchange
from actors.pod.history.compaction import Compaction
from actors.pod.runs.between_steps import LATER, Between, BetweenSteps
from actors.pod.runs.history_lock import HistoryLock
from actors.pod.runs.play import Play
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import (
    QUEUE_LIMIT,
    PendingInput,
    QueuedRun,
    ResumeHere,
    Run,
    RunHere,
    RunQueue,
    fail,
    new_run_id,
    resolve,
)
from actors.pod.supervisor import Waiting
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from protocol import commands
from protocol.errors import (
    Failure,
    NotPaused,
    NotRunning,
    PodBusy,
    RunFailed,
    SessionError,
    UnknownApproval,
)
from protocol.events import RunEnd, RunOutcome, UserMessage
from protocol.items import AssistantItem, Part, UserItem
from protocol.lifecycle import AT_WORK, PodState
from protocol.results import RunResult
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.llm.base import StopReason
    from actors.tools.hooks import Hooks

# Names of their own: Python 3.11 takes as long to look a member of an enum up as to make an object.
_IDLE, _PAUSED, _RUNNING = PodState.IDLE, PodState.PAUSED, PodState.RUNNING
_RESTING = frozenset({_IDLE, _PAUSED})


class RunLoop:
    """The queue and the current run; ``Play`` plays it, ``BetweenSteps`` does other work between
    its steps.
    """

    __slots__ = (
        "_between",
        "_closed",
        "_end_asked",
        "_lost",
        "_parts",
        "_play",
        "history_lock",
        "left_answer",
        "loop",
        "queue",
        "run",
    )

    #: What plays a run.
    plays: ClassVar[type[Play]] = Play

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self.loop = parts.mailroom.loop
        self.history_lock = HistoryLock(self)
        self._between: BetweenSteps | None = None
        self._play = self.plays(parts, self.history_lock, self)
        #: The run that goes on, or is paused.
        self.run: Run | None = None
        #: The answer that the run of a restored session has to end with, and why the model stopped there.
        self.left_answer: tuple[AssistantItem, str | None] | None = None
        #: The paused run that the present one has closed, and its figures: it is paused still if the store
        #: does not take that. None where there was none.
        self._closed: tuple[Run | None, Figures] | None = None
        #: Those that wait for their turn, behind a paused one too; None where none does.
        self.queue: RunQueue | None = None
        #: Who asked for the end that the run comes to.
        self._end_asked: list[AsyncFuture[Any]] | None = None
        #: The request under way of the run that was lost last.
        self._lost: Exchange | None = None

    def compaction(self) -> Compaction:
        """A new compaction of the history."""
        return Compaction(self._parts, self.close_open_calls, self._wait_for_readers)

    async def _wait_for_readers(self) -> None:
        if (pod := self._parts.pod).has_memory_jobs:
            await pod.memory.wait_for_extraction()

    @property
    def between(self) -> BetweenSteps:
        """The work that is done between two steps of a run."""
        if self._between is None:
            parts = self._parts
            self._between = BetweenSteps(self.history_lock, parts.status, parts.tasks, self)
        return self._between

    @property
    def grace(self) -> float:
        """How long a step that was cancelled may take to end, in seconds."""
        return self._parts.template.grace

    # -- what waits ------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether nothing is at work, and nobody waits for anything."""
        return (
            self.history_lock.is_free()
            and self.queue is None
            and (self._between is None or self._between.is_empty())
        )

    @property
    def has_more(self) -> bool:
        """Whether a run is under way, paused, or queued."""
        return self.run is not None or self.queue is not None

    def submit(self, queued: QueuedRun) -> None:
        """Begin a run, or queue it. Raises PodBusy."""
        running = self._parts.status.state not in _RESTING
        if not running and self.queue is None and self.history_lock.is_free():
            self._play.begin_at_once(self._enter_with(queued, Interruptible(self)), queued)
            return
        if queued.command.busy == "reject" and (running or self.queue is not None):
            raise PodBusy(
                f"pod {self._parts.resources.name!r} is running",
                hint="wait for its run to end, or queue behind it with busy='queue'",
            )
        if self.queue is None:
            self.queue = RunQueue(queued)
        elif self.queue.is_full():
            raise PodBusy(f"{QUEUE_LIMIT} runs are already queued for pod {self._parts.resources.name!r}")
        else:
            self.queue.runs.append(queued)
        if not running:
            waits = Interruptible(self)
            self._parts.tasks.start(self._begin_in_turn(waits, self.history_lock.line_up(waits)))

    async def _begin_in_turn(self, waits: Interruptible, turn: asyncio.Future[None] | None) -> None:
        """Begin the oldest queued run, after what was asked for before it; a paused run is closed."""
        if turn is not None:
            await self.history_lock.begin_at(turn, waits)
        if (
            self.queue is not None
            and self._parts.status.state in _RESTING
            and not self._parts.status.stopping
        ):
            self._begin_next(waits)
        else:
            self.history_lock.leave(waits)

    def drop_queued(self, run_id: str) -> None:
        """Remove a queued run; it leaves no trace."""
        queued = self._drop(lambda each: each.command.run_id == run_id)
        if queued is not None:
            session_id = self._parts.journal.log.durable_session
            queued.reply.set(RunResult("", "cancelled", Usage(), run_id, session_id))

    def withdraw(self, reply: Any, error: Exception) -> bool:
        """Fail ``reply`` if its work has not begun, which it then never does. Returns whether that was so."""
        if self._drop(lambda each: each.reply is reply) is None:
            return self._between is not None and self._between.withdraw(reply, error)
        reply.set_exception(error)
        return True

    def _drop(self, wanted: Callable[[QueuedRun], bool]) -> QueuedRun | None:
        queue = self.queue
        queued = None if queue is None else queue.drop(wanted)
        if queue is None or queued is None:
            return None
        if not queue.runs:
            self.queue = None
            for words in queue.words:  # they were not its own: another run begins with them
                self.notify(words.content, words.reply)
        return queued

    def between_steps(self, reply: AsyncFuture[Any], work: Between) -> None:
        """Do ``work`` now, or between two steps of the current run, and answer ``reply``."""
        self.between.do(reply, work)

    def go_on(self, left: Interruptible) -> None:
        """Continue the run in another task, because a client or a tool is stuck in its present one."""
        run = self.run
        assert run is not None
        assert run.waits is left
        self._play.go_on(run)

    def let_go(self, left: Interruptible) -> None:
        """Stop waiting for a client that is stuck in work that is over."""
        exchange, self._lost = self._lost, None
        if exchange is not None:
            exchange.end(asyncio.CancelledError())
        self.history_lock.leave(left)

    def note_overdue(self, text: str) -> None:
        """Record that a client or tool has ignored its cancel."""
        self._parts.journal.alert(text)

    def begin_waiting(self) -> None:
        """Begin what waits, since nothing is at work any more."""
        if self.queue is not None:
            self._start_next()
        parts = self._parts
        if parts.journal.has_refused_ends() and self.history_lock.is_free() and not parts.status.stopping:
            parts.tasks.start(parts.journal.retry())

    def _start_next(self) -> None:
        if (
            self.queue is not None
            and self._parts.status.state is PodState.IDLE
            and not self._parts.status.stopping
        ):
            self._begin_next(Interruptible(self))

    # -- a run -----------------------------------------------------------------------------------

    def _begin_next(self, waits: Interruptible) -> None:
        """Begin the oldest queued run as the work ``waits``."""
        queue = self.queue
        assert queue is not None
        queued = queue.runs.popleft()
        run = self._enter_with(queued, waits)
        run.pending, queue.words = queue.words, []
        if not queue.runs:
            self.queue = None
        self._play.begin(run, queued)

    def _enter_with(self, queued: QueuedRun, waits: Interruptible) -> Run:
        """Enter a run as the work ``waits``, which holds the history lock or finds it free."""
        command, notified = queued.command, queued.source == "notify"
        self.history_lock.take(waits)
        parts, paused = self._parts, self.run
        was_open = parts.journal.head.open_run is not None
        self.close_left_over()
        reply = queued.reply
        run = Run(command.run_id or new_run_id(), reply.caller, waits)
        if notified:
            run.awaiting_commit.append(reply)
        else:
            run.reply = reply
        if command.output_schema is not None:
            run.output_schema = command.output_schema
        if type(command) is RunHere:
            run.output_kind, run.deps, run.own = command.output, command.deps, command.own
        if parts.resources.make_prompt is not None:
            run.own = parts.resources.with_prompt(run.own)
        figures = parts.accounts.begin_run()
        self._closed = (paused, figures) if was_open else None
        parts.conversation.guard = parts.conversation.guard.run_started()
        self._enter(run)
        return run

    def _enter(self, run: Run) -> None:
        self.run, self._parts.journal.run_id = run, run.run_id
        self._parts.status.to(_RUNNING)

    # -- the end of a run ------------------------------------------------------------------------

    async def finish(self, run: Run, outcome: RunOutcome) -> None:
        """Make the recorded end of the run durable, and resolve its future."""
        parts = self._parts
        await parts.journal.commit()
        if run.awaiting_commit:
            resolve(run.awaiting_commit)
        if (hooks := parts.template.tools.hooks) is not None and hooks.asks_at_run_end:
            await _notify_hooks(hooks, parts, run, self._result(run, outcome))
        parts.status.to(_PAUSED if outcome == "paused" else _IDLE)
        reply, run.reply = run.reply, None
        if outcome != "paused":
            self.run = parts.journal.run_id = None
        if reply is not None:
            if run.error is not None:
                reply.set_exception(RunFailed(run.error, run_id=run.run_id))
            else:
                reply.set(self._result(run, outcome))
        if self._end_asked is not None:
            await self._answer_end(run, outcome)
        if parts.template.extracts_after_run and outcome != "paused":
            parts.pod.memory.extractions.after_run(run.caller)
        if run.pending:
            late, run.pending = run.pending, []
            for pending in late:
                self._came_late(pending)

    def _result(self, run: Run, outcome: RunOutcome) -> RunResult:
        parts = self._parts
        return RunResult(
            run.answer.text if run.answer is not None else "",
            outcome,
            parts.accounts.run_usage or Usage(),
            run.run_id,
            parts.journal.head.session_id,
            run.output,
            parts.accounts.run_cost,
            parts.accounts.steps,
            run.seconds,
            run.limit,
        )

    async def _answer_end(self, run: Run, outcome: RunOutcome) -> None:
        """Answer those who asked for the end that the run has come to."""
        if outcome == "paused" and run.ending == "cancelled":  # cancelled while its pause became durable
            try:
                await self._drop_paused()
            except SessionError as error:
                fail(self._take_end_asked(), error)
                return
        resolve(self._take_end_asked())

    def _take_end_asked(self) -> list[AsyncFuture[Any]]:
        asked, self._end_asked = self._end_asked, None
        return asked or []

    def close_open_calls(self) -> None:
        """Give every call without a result its fixed one; nothing is run again."""
        self._parts.tool_calls.close_open(self.run)

    def close_left_over(self) -> None:
        """Close what an earlier run left open: a pause, a crash, a store that failed at its end."""
        parts, journal = self._parts, self._parts.journal
        parts.tool_calls.close_open(self.run)
        if (left := journal.head.open_run) is not None:
            journal.log.record(RunEnd, left, outcome="cancelled", steps=parts.accounts.steps)
        self.run = journal.run_id = None

    # -- interrupting ----------------------------------------------------------------------------

    def end_soon(self, ending: RunOutcome, reply: AsyncFuture[Any]) -> None:
        """Have the current run end; ``reply`` is answered once it has."""
        run = self.run
        assert run is not None
        if self._end_asked is None:
            self._end_asked = []
        self._end_asked.append(reply)
        if run.ending is None or ending == "cancelled":
            run.ending = ending
        run.waits.interrupt()

    def interrupt_all(self, ending: RunOutcome) -> None:
        """End the current run with outcome ``ending``, and whatever else is at work or waits, because the pod
        stops.
        """
        run = self.run
        if run is not None and self._parts.status.state in AT_WORK:
            run.ending = run.ending or ending
        self.history_lock.refuse_waiting()
        if self.history_lock.holder is not None:
            self.history_lock.holder.interrupt()

    async def cancel_paused(self, _: Interruptible) -> None:
        """End the paused run as cancelled, unless another command has closed it meanwhile."""
        if self._parts.status.state is PodState.PAUSED:
            await self._drop_paused()

    async def _drop_paused(self) -> None:
        run = self.run
        self.close_left_over()
        try:
            await self._parts.journal.commit()
        except SessionError:
            self.run, self._parts.journal.run_id = run, None if run is None else run.run_id
            raise
        self._parts.status.to(PodState.IDLE)

    def resume(self, reply: AsyncFuture[Any], command: commands.Resume) -> None:
        """Continue the paused run, once nothing else is at work."""
        waits, turn = self.between.line_up(reply)
        if turn is None:
            self._resume_now(reply, command, waits)
        else:
            self._parts.tasks.start(self._resume_in_turn(reply, command, waits, turn))

    async def _resume_in_turn(
        self,
        reply: AsyncFuture[Any],
        command: commands.Resume,
        waits: Interruptible,
        turn: asyncio.Future[None],
    ) -> None:
        try:
            await self.history_lock.begin_at(turn, waits)
        except asyncio.CancelledError:
            if not reply.done():
                reply.set_exception(self._parts.status.gone())
            return
        self._resume_now(reply, command, waits)

    def _resume_now(self, reply: AsyncFuture[Any], command: commands.Resume, waits: Interruptible) -> None:
        self.between.forget(reply)
        status = self._parts.status
        if not reply.done():  # else it was withdrawn
            if status.stopping:
                reply.set_exception(status.gone())
            elif status.state is not PodState.PAUSED:  # it was, when it was asked for
                reply.set_exception(self.not_paused())
        if reply.done():
            self.history_lock.leave(waits)
            return
        run, head = self.run, self._parts.journal.head
        if run is None:  # the session was restored: only its id is known of the run, and maybe its answer
            assert head.open_run is not None
            run = Run(head.open_run, reply.caller, waits)
            run.restored = True
            answered, self.left_answer = self.left_answer, None
            if answered is not None and head.items[-1] == answered[0]:  # else more was said meanwhile
                run.answer, run.stop_reason = cast("tuple[AssistantItem, StopReason | None]", answered)
            if self._parts.resources.make_prompt is not None:
                run.own = self._parts.resources.with_prompt(None)
        run.reply, run.caller, run.waits = reply, reply.caller, waits
        run.ending = run.limit = None
        run.start_seq = run.end_seq = 0
        if type(command) is ResumeHere:
            run.take_over(command)
        elif command.output_schema is not None:
            run.output_schema = command.output_schema
        self._enter(run)
        self._play.resume(run)

    def not_paused(self) -> NotPaused:
        """The error for a resume when no run is paused."""
        return NotPaused(f"pod {self._parts.resources.name!r} has no paused run")

    # -- words that join -------------------------------------------------------------------------

    def steer(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> None:
        """Add words to the current run. Raises NotRunning."""
        if self.run is None or self._parts.status.state not in AT_WORK:
            raise self._not_running()
        self.run.pending.append(PendingInput(content, "steer", reply))

    def notify(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> None:
        """Add words to the current or paused run, or else to the next in the queue, or start a
        run with them.
        """
        if self._parts.status.state in AT_WORK and self.run is not None:
            self.run.pending.append(PendingInput(content, "notify", reply))
        elif self._parts.status.state is PodState.PAUSED:
            self.between_steps(reply, lambda _: self._note(content, reply))
        elif self.queue is not None:
            self.queue.words.append(PendingInput(content, "notify", reply))
        else:
            self.submit(QueuedRun(commands.Run(content), "notify", reply))

    async def _note(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> Any:
        """Add words to a paused run: they join the history now, and the model sees them when it
        is resumed.
        """
        if self._parts.status.state is not PodState.PAUSED:  # it was, when they were said
            self.notify(content, reply)
            return LATER
        self.check_none_waits()
        run, head = self.run, self._parts.journal.head
        self._parts.tool_calls.close_open(run)
        self._parts.journal.log.record(UserMessage, head.open_run, item=UserItem(content), source="notify")
        if run is not None:
            run.has_unseen_input = True
        await self._parts.journal.commit()
        return None

    def _came_late(self, pending: PendingInput) -> None:
        """Handle words that arrived while the end of their run became durable."""
        if self._parts.status.stopping:
            pending.reply.set_exception(self._parts.status.gone())
        elif pending.source == "steer":
            pending.reply.set_exception(self._not_running())
        else:
            self.notify(pending.content, pending.reply)

    def _not_running(self) -> NotRunning:
        return NotRunning(f"pod {self._parts.resources.name!r} has no run to steer", hint="use run or notify")

    # -- where calls may wait for a person: ``AskingRuns`` -----------------------------------------

    def check_none_waits(self) -> None:
        """Raise WaitingForApproval if calls wait, since the history cannot be changed then: here
        none does.
        """

    def answer(
        self,
        command: commands.Approve | commands.Disapprove,  # noqa: ARG002 - none is asked for
        reply: AsyncFuture[Any],  # noqa: ARG002
    ) -> None:
        """Take a person's answer to a waiting call. Raises UnknownApproval."""
        raise UnknownApproval(f"pod {self._parts.resources.name!r} does not ask for approvals")

    # -- compactions that are asked for ----------------------------------------------------------

    async def compact(self, wanted: int | None, waits: Interruptible) -> str:
        """Compact the history by hand; returns the new session's id. Raises CompactionFailed,
        WaitingForApproval.
        """
        self.check_none_waits()
        return await self.compaction().fold_by_hand(wanted, waits)

    async def try_compact(self, waits: Interruptible) -> None:
        """Compact the history if the threshold for the start of a run is exceeded; a failure is ignored."""
        if self._parts.conversation.due_before_run():
            await self.compaction().fold("threshold", waits)

    # -- ends that nobody asked for --------------------------------------------------------------

    def lose(self, error: BaseException) -> None:
        """Fail the run, because the store could not keep what was recorded; the pod lives on."""
        run = self.run
        if run is None or self._parts.status.state not in AT_WORK:
            return
        if run.end_seq and self._parts.journal.log.durable_seq >= run.end_seq:
            return  # its end is durable, and about to be published
        run.waits.leave()
        self._lost = run.exchange
        seconds = self._play.stop_clock()
        # If its start was published, its end is, once the store takes it. Otherwise one that was resumed is
        # paused still.
        began = 0 < run.start_seq <= self._parts.journal.log.durable_seq
        if began and self._parts.journal.head.open_run == run.run_id:
            self._parts.tool_calls.close_open(run)
            self._parts.journal.log.record_end(
                RunEnd,
                run.run_id,
                outcome="failed",
                steps=self._parts.accounts.steps,
                usage=self._parts.accounts.run_usage or Usage(),
                error=Failure.of(error),
                seconds=seconds,
            )
        self._go_back(run)
        # Its words stand in the history, whatever became of the run.
        if 0 < run.words_seq <= self._parts.journal.log.durable_seq:
            resolve(run.awaiting_commit)
        fail(run.replies_to_words(), error)
        run.awaiting_commit, run.pending = [], []
        if run.reply is not None:
            run.reply.set_exception(RunFailed(error, run_id=run.run_id))
        resolve(self._take_end_asked())

    def _go_back(self, lost: Run) -> None:
        """Rest once a run is lost: on the paused run that it was, or was to close, if the store did not take
        that. The next in the queue then closes the latter in its place.
        """
        parts, closed, self._closed = self._parts, self._closed, None
        open_run = parts.journal.head.open_run
        if open_run == lost.run_id:
            parts.status.to(PodState.PAUSED)
        elif closed is None or open_run is None:
            self.run = parts.journal.run_id = None
            parts.status.to(PodState.IDLE)
        else:
            self.run, figures = closed
            parts.journal.run_id = None if self.run is None else self.run.run_id
            parts.accounts.go_back(figures)
            parts.status.to(PodState.PAUSED if self.queue is None else PodState.IDLE)

    def break_off(self, error: BaseException) -> None:
        """Stop the run where it is, because a defect ends the pod."""
        self.history_lock.refuse_waiting()
        if (run := self.run) is not None:
            if self._parts.status.state in AT_WORK:
                self._play.stop_clock()  # the system lives on and counts it
                if run.exchange is not None:
                    run.exchange.end(error)
            if run.reply is not None:
                fail([run.reply], RunFailed(error, run_id=run.run_id))
            run.waits.leave()  # it may let others pass, and then another holds the history lock
        if self.history_lock.holder is not None and not self.history_lock.holder.left:
            self.history_lock.holder.leave()

    def take_waiting(self) -> Waiting:
        """Remove and return what waits behind the run that a defect broke off, for the pod that replaces this
        one.
        """
        run = self.run if self._parts.status.state in AT_WORK else None
        waiting = Waiting(self.queue, run is not None, None if run is None else run.ending)
        self.queue = None
        return waiting

    def take_up(self, waiting: Waiting, *, resume: bool) -> None:
        """Continue with what waited for a pod that failed. The run that was broken off is resumed, or stays
        paused; it is cancelled if somebody had asked for that.
        """
        self.queue = waiting.queue
        if self._parts.status.state is PodState.IDLE:
            self._start_next()
        elif waiting.ending == "cancelled":
            self.between_steps(AsyncFuture(), self.cancel_paused)
        elif resume and waiting.interrupted and waiting.ending is None:
            self.resume(AsyncFuture(), commands.Resume())

    def turn_away(self) -> None:
        """Answer everyone who still waits, because the pod has ended."""
        run, self.run = self.run, None
        self._play.stop_clock()
        waiting = [] if self.queue is None else self.queue.replies()
        waiting += [] if self._between is None else self._between.take_waiting()
        if run is not None:
            run.waits.leave()
            waiting += run.replies_to_words()
            waiting += [] if run.reply is None else [run.reply]
        self.queue = None
        fail(waiting, self._parts.status.gone())
        resolve(self._take_end_asked())

    def close(self) -> None:
        """Drop the parts that refer back to this one, once the pod has stopped and nothing is played any
        more.
        """
        self.history_lock.close()
        del self._play


async def _notify_hooks(hooks: Hooks, parts: RunParts, run: Run, result: RunResult) -> None:
    from actors.pod.runs.end_hooks import EndHooks  # noqa: PLC0415 - paid for by pods with hooks

    await EndHooks(hooks, parts.resources, parts.journal).notify(run, result)
