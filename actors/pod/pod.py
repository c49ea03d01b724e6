"""``PodActor``: one pod: its mailbox, and the parts that carry out its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from pykka import ActorDeadError, messages

from actors.pod.accounts.accounts import Accounts
from actors.pod.ending import Ending
from actors.pod.handlers import HANDLERS
from actors.pod.history.conversation import Conversation
from actors.pod.local import ShutDown
from actors.pod.memory.memory_jobs import MemoryJobs
from actors.pod.memory.recall import Recall
from actors.pod.passivity import answer_without_history, needs_history
from actors.pod.pod_parts import PodParts
from actors.pod.resources import PodResources
from actors.pod.runs.run_loop import RunLoop
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import ResumeHere, RunHere
from actors.pod.runs.tool_calls import ToolCalls
from actors.pod.session.journal import Journal
from actors.pod.session.lifecycle import Lifecycle, Resumed, open_session
from actors.pod.session.patience import Patience
from actors.pod.status import Status
from actors.pod.tasks_at_work import TasksAtWork
from actors.runtime.actor import DEFERRED, AsyncActor
from actors.runtime.circles import AnyWait, Work, next_number
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Left
from actors.sessions.approvals import NO_APPROVALS
from actors.sessions.replay import Replayed
from protocol import commands
from protocol.commands import Command, Describe
from protocol.delegation import Children, cost_sum, usage_sum
from protocol.errors import HeadConflict, PodError, SessionNotFound, StoreError, SystemOfParent
from protocol.events import RunOutcome
from protocol.items import TextPart
from protocol.lifecycle import PodState
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.approvals.open_approvals import OpenApprovals
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.idle_reaper import IdleReaper
    from actors.pod.runs.run_state import Run
    from actors.pod.supervisor import Supervisor, Waiting
    from actors.runtime.loop import Mailroom

_IDLE = PodState.IDLE  # Python 3.11 takes as long to look a member of an enum up as to make an object
_RESTING = frozenset({_IDLE, PodState.PAUSED})

#: Seconds after which a history that could not be read back is read again for a run that waits.
_RECALL_AGAIN = 1.0


class PodActor(AsyncActor):
    """One pod. It takes commands, one at a time, and never waits on model, tool or disk.

    See ``protocol.lifecycle`` for its states. A passive pod has dropped its history, and keeps only its name,
    its claim on the session, the position where that ends, a paused run, and its sums. A message that needs
    the history waits until it is read back, and those behind it wait too.
    """

    # What every pod comes to have, and what each message looks at, has a slot; the rest stands in the class
    # until it is set. Ten thousand pods start often, and a dict of its own is a kilobyte for each.
    __slots__ = (
        "_accounts_kept",
        "_conversation",
        "_memory",
        "_tasks_at_work",
        "delegation",
        "journal",
        "passive",
        "reaper",
        "resources",
        "run_loop",
        "started",
        "status",
    )

    #: Who starts the pod again when it fails; None where nobody does.
    supervisor: Supervisor | None = None
    active_at = 0.0
    watched = False
    #: Held while the history is read back.
    _recalling: asyncio.Lock | None = None
    #: The session to go on with; None for a new one.
    _resume: Resumed | None = None
    #: What the history weighed when it was given back, in tokens; None where nobody had weighed it.
    weighed: int | None = None
    #: Measured calls of a history that was read back, until somebody weighs it.
    _measured: list[tuple[int, Usage]] | None = None
    #: What ends the wait for the store that the start or a message is in, and when: once a stop waits for it.
    _patience: Patience | None = None
    _given_up_at: float | None = None
    _approvals: OpenApprovals | None = None
    _ending: Ending | None = None
    #: What a session that was restored says of calls that wait, and of what people have allowed.
    _approvals_left = NO_APPROVALS

    def __init__(self, resources: PodResources, resume: Resumed | None) -> None:
        """``resume`` is the session to continue."""
        self.resources = resources
        if resume is not None:
            self._resume = resume
        #: Called once with why the pod does not live, None where it does.
        self.started: Callable[[BaseException | None], None] | None = None
        self.journal = Journal(resources, self._mailroom, self)
        self.status = Status(self.journal)
        #: Whether the store alone has the history.
        self.passive = False
        #: Who looks for pods that have been idle for long; None where nobody does.
        self.reaper: IdleReaper | None = None
        #: The parts that the first command that needs them makes.
        self._tasks_at_work: TasksAtWork | None = None
        self._accounts_kept: Accounts | None = None
        self._conversation: Conversation | None = None
        self._memory: MemoryJobs | None = None
        #: What ``runs`` gives, once it is made; a property costs as much as ten looks.
        self.run_loop: RunLoop | None = None
        #: The sub-agents; None where the pod can have none.
        self.delegation: Delegation | None = resources.delegation
        if self.delegation is not None:
            self.delegation.attach(self, self.journal)
        if resources.commands is not None:
            resources.commands.notify = self._notify_soon

    def __repr__(self) -> str:
        running = self.run_loop is not None and self.run_loop.run is not None
        turn = f", turn {self.accounts.steps}" if running else ""
        return f"<Pod {self.name} {self.status.state.name}{turn}>"

    @property
    def name(self) -> str:
        """The pod's name in its system."""
        return self.resources.name

    def durable_position(self) -> tuple[str, int]:
        """The pod's session and the number of its last durable entry."""
        return self.journal.log.durable_session, self.journal.log.durable_seq

    # -- its parts -------------------------------------------------------------------------------

    def _parts(
        self,
    ) -> tuple[PodResources, Status, Journal, Accounts, Conversation, TasksAtWork, Mailroom]:
        """The fields of a PodParts."""
        made = self.accounts, self.conversation, self.tasks
        return self.resources, self.status, self.journal, *made, self._mailroom

    @property
    def conversation(self) -> Conversation:
        """The view of the history."""
        if self._conversation is None:
            self._conversation = Conversation(self.resources, self._measured)
            self._measured = None
        return self._conversation

    @property
    def has_memory_jobs(self) -> bool:
        """Whether its memory jobs were ever needed."""
        return self._memory is not None

    @property
    def memory(self) -> MemoryJobs:
        """The memory jobs."""
        if self._memory is None:
            self._memory = MemoryJobs(PodParts(*self._parts()), self)
        return self._memory

    @property
    def runs(self) -> RunLoop:
        """The runs, and what is done between their steps."""
        if self.run_loop is None:
            approvals = self.approvals
            recalls = self.resources.template.manifest.memory.recall_tokens > 0
            of = (self.resources, self.journal, self._mailroom, self)
            runs, tool_calls = (RunLoop, ToolCalls(*of)) if approvals is None else _asking(of, approvals)
            self.run_loop = runs(
                RunParts(
                    *self._parts(),
                    template=self.resources.template,
                    pod=self,
                    recall=Recall(self.resources, self.journal) if recalls and self._resume is None else None,
                    tool_calls=tool_calls,
                    approvals=approvals,
                ),
            )
        return self.run_loop

    @property
    def approvals(self) -> OpenApprovals | None:
        """What people were asked and have answered; None if no call can need that."""
        if self._approvals is None and (
            self._approvals_left is not NO_APPROVALS or self.resources.template.asks
        ):
            from actors.pod.approvals.open_approvals import OpenApprovals  # noqa: PLC0415 - paid for by pods that ask

            self._approvals = OpenApprovals(self.resources, self.journal, self._approvals_left)
        return self._approvals

    @property
    def tasks(self) -> TasksAtWork:
        """The pod's tasks beside its mailbox."""
        if self._tasks_at_work is None:
            self._tasks_at_work = TasksAtWork(self._mailroom, self.resources.name, self)
        return self._tasks_at_work

    @property
    def accounts(self) -> Accounts:
        """What its model calls used up."""
        if self._accounts_kept is None:
            self._accounts_kept = Accounts(self.resources.budget)
        return self._accounts_kept

    @property
    def ending(self) -> Ending:
        """The end of the pod, and those who wait for it."""
        if self._ending is None:
            self._ending = Ending(self)
        return self._ending

    @property
    def lifecycle(self) -> Lifecycle:
        """The pod's session, from the first claim to the release."""
        return Lifecycle(self.resources, self.journal, self.status)

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of the pod's inherits."""
        carried = self.accounts.carried(self.journal.head)
        if self.approvals is not None:
            carried |= self.approvals.carried()
        if self.delegation is not None:
            carried |= self.delegation.carried()
        return carried

    # -- its sub-agents --------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether the pod is about to end, or has ended."""
        return self.status.stopping

    def notify(self, words: str) -> AsyncFuture[None]:
        """Send the pod words, as a ``Notify``."""
        reply: AsyncFuture[None] = AsyncFuture()
        reply.caller = copy_context()
        self._mailroom.send(self, commands.Notify((TextPart(words),)), reply)
        return reply

    def _notify_soon(self, words: str) -> None:
        """Send the pod words as soon as it can be notified."""
        from actors.pod.notify_soon import notify  # noqa: PLC0415 - paid for by pods with commands

        async def send() -> None:
            await notify(self, words)

        self.tasks.start(send())

    def sums(self) -> tuple[Usage | None, float | None, float]:
        """What the pod and its ended sub-agents used up in its life: usage, US dollars, seconds."""
        accounts = self.accounts
        if self.delegation is None:
            return accounts.usage, accounts.cost, accounts.seconds
        of = self.delegation.state
        return (
            usage_sum(accounts.usage, of.usage),
            cost_sum(accounts.cost, of.cost),
            accounts.seconds + of.seconds,
        )

    def _leave_children(self, state: Children) -> None:
        """Record the end of sub-agents from an earlier life, because the pod can no longer have any."""
        from actors.pod.delegation.sub_agent import record_ended  # noqa: PLC0415 - paid for by whoever had any

        for child in state.open:
            record_ended(self.journal.log, child, "cancelled")

    def store_refused(self, error: BaseException) -> None:
        """Undo what the store could not keep; the log is back at what is durable."""
        if self._conversation is not None:
            self._conversation.rewind()
        if self._approvals is not None:
            self._approvals.rewind()
        if self.run_loop is not None:
            self.run_loop.lose(error)
        self.tasks.loop.call_soon(self._retry_ends)

    def _retry_ends(self) -> None:
        if not self.status.stopping and self.journal.has_refused_ends() and self.runs.history_lock.is_free():
            self.tasks.start(self.journal.retry())

    # -- its beginning ---------------------------------------------------------------------------

    def on_start(self) -> Any:
        if self._resume is not None:
            begin = self._restore_or_open if self._resume.or_new else self._restore
            return self._start(begin(self._resume))
        try:
            pending = open_session(self.resources)
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._fail_start(error)
            return None
        if pending is not None:
            return self._start(self.lifecycle.await_opened(pending))
        self._begin_life()
        return None

    async def _restore(self, resumed: Resumed) -> None:
        async def take_over(state: Replayed) -> None:
            self.accounts.take_over(state)
            self._measured = state.calls
            if state.approvals != NO_APPROVALS:
                self._approvals_left = state.approvals
            if (answer := state.open_answer) is not None:
                self.runs.left_answer = answer
            if self.delegation is not None:
                self.delegation.take_over(state.children, state.items)
            elif state.children.open:
                self._leave_children(state.children)
            await self.conversation.look_through()

        await self.lifecycle.restore(resumed, take_over)

    async def _restore_or_open(self, resumed: Resumed) -> None:
        """Continue the session of that name, or make it. If another process makes it meanwhile, continue that
        one, or fail because it is held.
        """
        with suppress(SessionNotFound):
            await self._restore(resumed)
            return
        try:
            if (pending := open_session(self.resources)) is not None:
                await self.lifecycle.await_opened(pending)
        except HeadConflict:
            self.journal.log.roll_back()
            await self._restore(resumed)
        else:
            self._resume = None

    async def _start(self, opening: Coroutine[Any, Any, None]) -> None:
        try:
            await self._in_patience(opening)
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._fail_start(error)
        else:
            self._begin_life()

    async def _in_patience(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the store while all messages wait; once a stop waits too, only for a bounded time. Raises
        StoreError.
        """
        self._patience = Patience(self._given_up_at)
        try:
            await self._patience.wait(work)
        finally:
            self._patience = None

    def _on_waiting(self, message: Any) -> None:
        if isinstance(message, _STOPS) and self._given_up_at is None:
            self._given_up_at = self._mailroom.loop.time() + self.resources.template.store_grace
            if self._patience is not None:
                self._patience.end_at(self._given_up_at)

    def _begin_life(self) -> None:
        self.status.to(_IDLE if self.journal.head.open_run is None else PodState.PAUSED)
        self._report_start(None)
        if self.delegation is not None and self.delegation.has_any:
            self.tasks.start(self.delegation.bring_back())

    def _report_start(self, error: BaseException | None) -> None:
        started, self.started = self.started, None
        if started is not None:
            started(error)

    def _fail_start(self, error: BaseException) -> None:
        self.status.state, self.status.stopping = PodState.FAILED, True
        self.journal.close()
        self._end()
        self._report_start(error)

    # -- who waits for it ------------------------------------------------------------------------

    def actor_send(self, message: Any, reply_to: AsyncFuture[Any]) -> None:
        self.note_turn(message, reply_to)
        _send(self, message, reply_to)

    def note_turn(self, message: Any, reply: AsyncFuture[Any]) -> None:
        """Mark ``reply`` if it comes in the pod's turn, so that a wait for it that can never end
        is refused.
        """
        kind = type(message)
        if kind in _IN_TURN or (kind is _WaitForSubAgents and self._waits_long(message)):
            reply.place, reply.number = self, next_number()

    def _waits_long(self, message: commands.WaitForSubAgents) -> bool:
        """Whether an answer waits for sub-agents and runs to end."""
        return message.timeout is None and self.delegation is not None

    @property
    def at_work(self) -> Work | None:
        """The work that now holds the history, as its code sees it."""
        run_loop = self.run_loop  # which another thread may take away
        holder = None if run_loop is None else run_loop.history_lock.holder
        return None if holder is None else holder.code

    def refuse_wait(self, wait: AnyWait) -> None:
        with suppress(ActorDeadError, SystemOfParent):
            self._mailroom.post(self._on_refused_wait, wait)

    def _on_refused_wait(self, wait: AnyWait) -> None:
        # While a message waits here, those behind it do, and what was asked may yet be answered at once.
        found = wait.find_refusals() if self._task is None else []
        wait.is_refused = False
        for each, error in found:
            if self.run_loop is None or not each.is_only_one or not self.run_loop.withdraw(each.asked, error):
                each.fail(error)

    # -- its mailbox -----------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        if self.status.stopping and isinstance(message, Command):
            raise self.status.gone()
        if self.reaper is not None and type(message) is not Describe:  # a look wakes nobody
            self.active_at = self.reaper.now()
        if self.passive and self._lacks_history(message):
            return self._receive_with_history(message)
        try:
            return _HANDLERS.get(type(message), PodActor._on_stranger)(self, message)
        except PodError:
            if self._reply_to is None:  # a ``tell``: nobody waits for the outcome, and the pod lives on
                return None
            raise

    def _on_stranger(self, message: Any) -> Any:
        raise PodError(f"pod {self.name!r} does not know the command {type(message).__name__}")

    def _refuse(self, message: Any, reply_to: AsyncFuture[Any] | None) -> None:
        if self.supervisor is not None and self.supervisor.take(message, reply_to):
            return
        if reply_to is not None and isinstance(message, ShutDown):
            reply_to.set(None)
        elif reply_to is not None and isinstance(message, Command):
            reply_to.set_exception(self.status.gone())
        else:
            super()._refuse(message, reply_to)

    # -- without its history ---------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""
        return self._stopped

    def passivate(self) -> bool:
        """Drop the history unless something is under way; returns whether the pod is passive. A run that
        waits for a person reads it back before it goes on.
        """
        parked = not self.passive and self._is_parked()
        if parked:
            self._let_run_recall()
        if not self.passive and (parked or self._is_at_rest()):
            conversation = self._conversation
            self.weighed = None if conversation is None else conversation.known_weight()
            if conversation is not None:
                conversation.drop_history()
            self._measured = None
            self.journal.log.drop_items()
            self.passive = True
        return self.passive

    def _is_at_rest(self) -> bool:
        """Whether the store has everything, and nobody waits for anything. Memory jobs that have reported
        their end may still be finishing: they need no history.
        """
        return (
            self.status.state in _RESTING
            and self._task is None
            and not self.status.stopping
            and self.journal.at_rest
            and (self.run_loop is None or self.run_loop.at_rest)
            and (self._memory is None or not self._memory.under_way)
        )

    def _is_parked(self) -> bool:
        """Whether the only thing under way is a run that waits for a person."""
        return (
            self._approvals is not None
            and self._approvals.parked
            and self._task is None
            and not self.status.stopping
            and self.journal.at_rest
            and (self._memory is None or not self._memory.under_way)
        )

    def _let_run_recall(self) -> None:
        """Have the waiting run read the history back before it goes on."""
        assert self._approvals is not None
        run = self.runs.run
        assert run is not None
        if self._approvals.recall is None:
            is_begun_here = run.began_in is self.journal.head.items
            run.began_in = None
            self._approvals.recall = partial(self._recall_for, run, is_begun_here=is_begun_here)

    async def _recall_for(self, run: Run, *, is_begun_here: bool) -> None:
        """Read the history back for a run, which cannot go on without it: the run waits for the store, and if
        the pod ends it does nothing more. Raises Left, SessionError.
        """
        while self.passive:
            try:
                await self._recall()
            except StoreError:
                if self.status.stopping:
                    run.waits.leave()
                    raise Left from None
                await asyncio.sleep(_RECALL_AGAIN)
        if is_begun_here:
            run.began_in = self.journal.head.items
        assert self._approvals is not None
        self._approvals.recall = None

    async def _recall(self) -> None:
        """Read the history back. Raises SessionError."""
        if self._recalling is None:
            self._recalling = asyncio.Lock()
        async with self._recalling:
            if self.passive:
                await self.lifecycle.read_back(self.conversation)
                self.weighed, self.passive = None, False
                if self.reaper is not None:
                    self.reaper.watch(self)

    def _lacks_history(self, message: Any) -> bool:
        """Whether the history must be read back before a passive pod can handle a message."""
        status = self.status
        return not status.stopping and needs_history(type(message), status.state, weighed=self.weighed)

    async def _receive_with_history(self, message: Any) -> Any:
        """Handle a message once the history has been read back. If it cannot be read, only this message
        fails: the pod stays passive, and the next message tries again.
        """
        try:
            await self._in_patience(self._recall())
        except Exception as error:  # noqa: BLE001 - goes to who asked
            return None if self._reply_to is None else answer_without_history(message, error)
        return self.on_receive(message)

    # -- its end ---------------------------------------------------------------------------------

    def _handle_receive(self, message: Any) -> Any:
        """Handle pykka's own messages; a stop waits for what is under way, which pykka's does not."""
        if type(message) is not messages._ActorStop:
            return super()._handle_receive(message)
        return self._on_stop(message)

    def _on_stop(self, _: object) -> Any:
        """Handle ``ActorRef.stop``, and the command."""
        return self._stop_by("cancelled")

    def _on_shut_down(self, _: ShutDown) -> Any:
        return self._stop_by("paused")

    def _stop_by(self, ending: RunOutcome) -> Any:
        """End the pod; an open run ends first, with outcome ``ending``. The reply comes once the pod has
        ended.
        """
        self.status.stopping = True
        self.ending.begin(ending, self.defer_reply())
        return DEFERRED

    def enter_stopped(self) -> None:
        """Note that the pod has come to its end."""
        self.status.to(PodState.STOPPED)
        self._ending = None
        self._end()
        # What knows this pod, or each other, in circles would be freed only by a pass over all objects.
        if self.run_loop is not None:
            self.run_loop.close()
        self.run_loop = self._memory = self._tasks_at_work = None
        if self.supervisor is not None:
            self.supervisor.note_stop()

    def end_by_defect(self, error: BaseException) -> None:
        """End the pod, because one of its tasks raised an unexpected error, or its request hangs."""
        if not self._stopped:
            self._handle_error(error, None)

    def on_failure(self, _type: Any, error: Any, _traceback: Any) -> Any:
        """Publish that a defect ended the pod, and answer everyone who waits."""
        self.status.stopping = True
        self.runs.break_off(error)
        return self.ending.fail(error)

    # -- as its supervisor sees it ---------------------------------------------------------------

    def take_up(self, waiting: Waiting, *, resume: bool) -> None:
        """Take over what waited for the failed pod that this one replaces."""
        self.runs.take_up(waiting, resume=resume)

    def refuse(self, message: Any, reply_to: AsyncFuture[Any] | None) -> None:
        """Answer a message that came too late, once no supervisor is left to take it."""
        self._refuse(message, reply_to)

    def request_progress(self) -> tuple[object, int, int] | None:
        """How far the request under way is: its exchange, its attempt, and how much has arrived; None if
        there is none.
        """
        run = None if self.run_loop is None else self.run_loop.run
        return None if run is None or run.exchange is None else run.exchange.progress()


def _asking(of: tuple[Any, ...], approvals: OpenApprovals) -> tuple[type[RunLoop], ToolCalls]:
    """The classes of runs and calls for a pod whose calls may need a person's approval."""
    from actors.pod.approvals.asking_calls import AskingToolCalls  # noqa: PLC0415 - paid for by pods that ask
    from actors.pod.approvals.asking_runs import AskingRuns  # noqa: PLC0415 - paid for by pods that ask

    return AskingRuns, AskingToolCalls(*of, approvals=approvals)


#: What is answered only in a turn of the pod's: behind the run that goes on, or between two of its steps.
_IN_TURN = frozenset(
    {
        commands.Run,
        RunHere,
        commands.Steer,
        commands.Notify,
        commands.Resume,
        ResumeHere,
        commands.PushItem,
        commands.Compact,
        commands.TryPreRunCompact,
        commands.Fork,
    }
)
_WaitForSubAgents = commands.WaitForSubAgents
_send = AsyncActor.actor_send
#: Messages that end a pod.
_STOPS = (commands.Stop, ShutDown, messages._ActorStop)
#: What becomes of each message: what ends the pod is its own business.
_HANDLERS: dict[type, Callable[[PodActor, Any], Any]] = {
    **HANDLERS,
    commands.Stop: PodActor._on_stop,
    ShutDown: PodActor._on_shut_down,
}
