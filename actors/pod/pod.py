"""``PodActor``: one pod: its mailbox, and the parts that do what its commands ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from pykka import messages

from actors.compaction.call_order import in_call_order
from actors.memory.messages import Consolidated, Consolidating, Proposal
from actors.pod.accounts import Accounts
from actors.pod.checks import checked_content, checked_item
from actors.pod.conversation import Conversation
from actors.pod.journal import Journal
from actors.pod.lifecycle import Lifecycle, Resumed
from actors.pod.memory_jobs import MemoryJobs
from actors.pod.patience import Patience
from actors.pod.recall import Recall
from actors.pod.resources import PodResources
from actors.pod.run_loop import RunLoop
from actors.pod.run_state import QueuedRun, RunHere, resolve
from actors.pod.status import Status
from actors.pod.tasks_at_work import TasksAtWork
from actors.pod.tool_calls import EndedLate, ToolCalls
from actors.runtime.actor import DEFERRED, AsyncActor
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from actors.sessions.approvals import NO_APPROVALS
from actors.sessions.replay import Replayed
from protocol import commands
from protocol.commands import Command, Describe
from protocol.delegation import Children, cost_sum, usage_sum
from protocol.errors import CompactionFailed, PodError, RunFailed, SessionError
from protocol.events import (
    AssistantMessage,
    ChildEnded,
    RunOutcome,
    SessionForked,
    SystemMessage,
    ToolResulted,
    UserMessage,
)
from protocol.items import AssistantItem, Item, SystemItem, TextPart, ToolResult, UserItem
from protocol.lifecycle import AT_WORK, PodState
from protocol.results import PodDescription
from protocol.text import encodable
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.delegation import Delegation
    from actors.pod.idle_reaper import IdleReaper
    from actors.pod.open_approvals import OpenApprovals
    from actors.pod.supervised import Supervisor, Waiting

_RESTING = frozenset({PodState.IDLE, PodState.PAUSED})


class ShutDown(Struct, frozen=True):
    """To a pod whose system is left: end, with the run that goes on paused, so that it can be resumed."""


class PodActor(AsyncActor):
    """One pod. It takes commands, one at a time, and never waits on model, tool or disk.

    See ``protocol.lifecycle`` for its states. While it is passive it has given back its history, and
    keeps its name, its claim on the session, where the session ends, a paused run, its sums. A message that
    needs the history waits until it is read back, and those behind it wait too.
    """

    # What an idle pod has not set yet stands in the class: ten thousand of them start often.

    #: Who looks for pods that have been idle for long; None where nobody does.
    reaper: IdleReaper | None = None
    #: Who starts the pod again when it fails; None where nobody does.
    supervisor: Supervisor | None = None
    active_at = 0.0
    watched = False
    #: Whether the store alone has the history.
    passive = False
    #: What the history weighed when it was given back, in tokens; None where nobody had weighed it.
    _weighed: int | None = None
    #: Measured calls of a history that was read back, until somebody weighs it.
    _measured: list[tuple[int, Usage]] | None = None
    #: Resolves once the pod has stopped; None while it is to live.
    _stops: list[AsyncFuture[Any]] | None = None
    #: What ends the wait for the store that the start or a message is in, and when: once a stop waits for it.
    _patience: Patience | None = None
    _given_up_at: float | None = None
    #: The parts that the first command that needs them makes.
    _tasks_at_work: TasksAtWork | None = None
    _accounts_kept: Accounts | None = None
    _conversation: Conversation | None = None
    _memory: MemoryJobs | None = None
    _runs: RunLoop | None = None
    _approvals: OpenApprovals | None = None
    #: The sub-agents; None where the pod can have none.
    delegation: Delegation | None = None
    #: What a session that was restored says of calls that wait, and of what people have allowed.
    _approvals_left = NO_APPROVALS

    def __init__(
        self,
        resources: PodResources,
        resume: Resumed | None,
        started: Callable[[BaseException | None], None],
    ) -> None:
        """``resume`` is the session to go on with; ``started`` is called once with whether the pod lives."""
        super().__init__()
        self.resources = resources
        self._resume = resume
        self._started: Callable[[BaseException | None], None] | None = started
        self._journal = Journal(resources, self._mailroom, self)
        self._status = Status(resources.name, self._journal)
        if resources.delegation is not None:
            self.delegation = resources.delegation
            self.delegation.attach(self, self._journal)
        if resources.commands is not None:
            resources.commands.notify = self._notify_soon

    def __repr__(self) -> str:
        running = self._runs is not None and self._runs.run is not None
        turn = f", turn {self._accounts.steps}" if running else ""
        return f"<Pod {self.name} {self._status.state.name}{turn}>"

    @property
    def name(self) -> str:
        """The pod's name in its system."""
        return self.resources.name

    def durable_position(self) -> tuple[str, int]:
        """The pod's session and the number of its last durable entry."""
        return self._journal.log.durable_session, self._journal.log.durable_seq

    # -- its parts -------------------------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        """The view of the history."""
        if self._conversation is None:
            self._conversation = Conversation(self.resources, self._measured)
            self._measured = None
        return self._conversation

    @property
    def memory(self) -> MemoryJobs:
        """The memory jobs."""
        if self._memory is None:
            self._memory = MemoryJobs(
                self.resources,
                self._status,
                self._journal,
                self._accounts,
                self.conversation,
                self._tasks,
                self._mailroom,
                self,
            )
        return self._memory

    @property
    def runs(self) -> RunLoop:
        """The runs, and what is done between their steps."""
        if self._runs is None:
            approvals = self.approvals
            of = (self.resources, self._journal, self._mailroom, self, self.actor_stopped.is_set)
            tool_calls = ToolCalls(*of) if approvals is None else _asking_tool_calls(of, approvals)
            self._runs = RunLoop(
                self.resources,
                self._status,
                self._journal,
                self._accounts,
                self.conversation,
                self.memory,
                Recall(self.resources, self._journal, new=self._resume is None),
                tool_calls,
                self._tasks,
                self._mailroom,
                approvals,
            )
        return self._runs

    @property
    def approvals(self) -> OpenApprovals | None:
        """What people are asked, and have said; None where no call can need that."""
        if self._approvals is None and (
            self._approvals_left is not NO_APPROVALS or self.resources.template.asks
        ):
            from actors.pod.open_approvals import OpenApprovals  # noqa: PLC0415 - paid for by pods that ask

            self._approvals = OpenApprovals(self.resources, self._journal, self._approvals_left)
        return self._approvals

    @property
    def _tasks(self) -> TasksAtWork:
        if self._tasks_at_work is None:
            self._tasks_at_work = TasksAtWork(self._mailroom, self.name, self._defect)
        return self._tasks_at_work

    @property
    def _accounts(self) -> Accounts:
        if self._accounts_kept is None:
            self._accounts_kept = Accounts(self.resources.budget)
        return self._accounts_kept

    @property
    def _lifecycle(self) -> Lifecycle:
        return Lifecycle(self.resources, self._journal, self._status)

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of the pod's takes over."""
        carried = self._accounts.carried(self._journal.head)
        if self.approvals is not None:
            carried |= self.approvals.carried()
        if self.delegation is not None:
            carried |= self.delegation.carried()
        return carried

    # -- its sub-agents --------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether the pod is about to end, or has."""
        return self._status.stopping

    @property
    def tasks(self) -> TasksAtWork:
        """What the pod does beside its mailbox."""
        return self._tasks

    def notify(self, words: str) -> AsyncFuture[None]:
        """Send the pod words, as a ``Notify``."""
        reply: AsyncFuture[None] = AsyncFuture()
        reply.caller = copy_context()
        self._mailroom.send(self, commands.Notify((TextPart(words),)), reply)
        return reply

    def _notify_soon(self, words: str) -> None:
        """Send the pod words as soon as it can be notified."""
        from actors.pod.late_news import notify  # noqa: PLC0415 - paid for by pods with commands

        self._tasks.start(notify(self, words))

    def sums(self) -> tuple[Usage | None, float | None, float]:
        """What the pod took in its life, with its sub-agents that have ended: usage, US dollars, seconds."""
        accounts = self._accounts
        if self.delegation is None:
            return accounts.usage, accounts.cost, accounts.seconds
        of = self.delegation.state
        return (
            usage_sum(accounts.usage, of.usage),
            cost_sum(accounts.cost, of.cost),
            accounts.seconds + of.seconds,
        )

    def _leave_children(self, state: Children) -> None:
        """The pod can have no sub-agents any more: those it had are no longer its own."""
        for child in state.open:
            self._journal.log.record_end(
                ChildEnded,
                None,
                child=child.child,
                name=child.name,
                child_session=child.child_session,
                outcome="cancelled",
            )

    def store_refused(self, error: BaseException) -> None:
        """The store could not keep what was recorded; the log is back at what is durable."""
        if self._conversation is not None:
            self._conversation.rewind()
        if self._approvals is not None:
            self._approvals.rewind()
        if self._runs is not None:
            self._runs.lose(error)
        self._tasks.loop.call_soon(self._retry_ends)

    def _retry_ends(self) -> None:
        if self._journal.has_refused_ends() and self.runs.gate.is_free() and not self._status.stopping:
            self._tasks.start(self._journal.retry())

    # -- its beginning ---------------------------------------------------------------------------

    def on_start(self) -> Any:
        if self._resume is not None:
            return self._start(self._restore(self._resume))
        try:
            pending = self._lifecycle.open_session()
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._fail_start(error)
            return None
        if pending is not None:
            return self._start(self._lifecycle.await_opened(pending))
        self._begin_life()
        return None

    async def _restore(self, resumed: Resumed) -> None:
        async def take_over(state: Replayed) -> None:
            self._accounts.take_over(state)
            self._measured = state.calls
            if state.approvals != NO_APPROVALS:
                self._approvals_left = state.approvals
            if self.delegation is not None:
                self.delegation.take_over(state.children, state.items)
            elif state.children.open:
                self._leave_children(state.children)
            await self.conversation.look_through()

        await self._lifecycle.restore(resumed, take_over)

    async def _start(self, opening: Coroutine[Any, Any, None]) -> None:
        try:
            await self._in_patience(opening)
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._fail_start(error)
        else:
            self._begin_life()

    async def _in_patience(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the store while all messages wait; a stop does not do so for ever. Raises StoreError."""
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
        self._lifecycle.become_ready()
        self._report_start(None)
        if self.delegation is not None and self.delegation.has_any:
            self._tasks.start(self.delegation.bring_back())

    def _report_start(self, error: BaseException | None) -> None:
        started, self._started = self._started, None
        if started is not None:
            started(error)

    def _fail_start(self, error: BaseException) -> None:
        self._status.state, self._status.stopping = PodState.FAILED, True
        self._journal.close()
        self._end()
        self._report_start(error)

    # -- its mailbox -----------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        if self._status.stopping and isinstance(message, Command):
            raise self._status.gone()
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
        raise PodError(f"pod {self.name!r} knows no command {type(message).__name__}")

    def _refuse(self, message: Any, reply_to: AsyncFuture[Any] | None) -> None:
        if self.supervisor is not None and self.supervisor.take(message, reply_to):
            return
        if reply_to is not None and isinstance(message, ShutDown):
            reply_to.set(None)
        elif reply_to is not None and isinstance(message, Command):
            reply_to.set_exception(self._status.gone())
        else:
            super()._refuse(message, reply_to)

    # -- commands --------------------------------------------------------------------------------

    def _on_run(self, command: commands.Run) -> Any:
        content = checked_content(command.content)
        if content is not command.content:
            command = msgspec.structs.replace(command, content=content)
        runs = self._runs or self.runs  # a property costs as much as ten looks
        runs.submit(QueuedRun(command, "run", self.defer_reply()))
        return DEFERRED

    def _on_steer(self, command: commands.Steer) -> Any:
        self.runs.steer(checked_content(command.content), self.defer_reply())
        return DEFERRED

    def _on_notify(self, command: commands.Notify) -> Any:
        self.runs.notify(checked_content(command.content), self.defer_reply())
        return DEFERRED

    def _on_cancel(self, command: commands.Cancel) -> Any:
        runs = self.runs
        if command.run_id is not None and (runs.run is None or runs.run.run_id != command.run_id):
            runs.drop_queued(command.run_id)
            return None
        if self._status.state is PodState.PAUSED:
            runs.between_steps(self.defer_reply(), runs.cancel_paused)
            return DEFERRED
        return None if runs.run is None else self._end_soon("cancelled")

    def _on_pause(self, _: commands.Pause) -> Any:
        return None if self._status.state not in AT_WORK else self._end_soon("paused")

    def _end_soon(self, ending: RunOutcome) -> Any:
        self.runs.end_soon(ending, self.defer_reply())
        return DEFERRED

    def _on_resume(self, _: commands.Resume) -> Any:
        if self._status.state is not PodState.PAUSED:
            raise self.runs.not_paused()
        self.runs.resume(self.defer_reply())
        return DEFERRED

    def _on_push_item(self, command: commands.PushItem) -> Any:
        item = checked_item(command.item)
        self.runs.between_steps(self.defer_reply(), lambda _: self._push(item))
        return DEFERRED

    async def _push(self, item: Item) -> None:
        self.runs.check_none_waits()
        if not isinstance(item, ToolResult):  # what comes after a call without a result would part the two
            self.runs.close_open_calls()
        kind, extra = _EVENT_OF[type(item)]
        self._journal.log.record(kind, None, item=item, **extra)
        await self._journal.commit()

    def _on_fork(self, command: commands.Fork) -> Any:
        self.runs.between_steps(self.defer_reply(), lambda waits: self._fork(command.at, waits))
        return DEFERRED

    async def _fork(self, at: str | None, waits: Interruptible) -> str:
        from actors.pod import fork  # noqa: PLC0415 - paid for by who forks

        await self._journal.commit()
        if at is None and self.approvals is not None and self.approvals.state.open:
            at = await fork.before_open_answer(self.resources)
        session_id, at_hash = await waits.apart(fork.branch_off(self.resources, at), "the fork")
        self._journal.log.record(
            SessionForked, self._journal.run_id, new_session_id=session_id, at_hash=at_hash
        )
        try:
            await self._journal.commit()
        except SessionError:
            await fork.drop_branch(self.resources, session_id)
            raise
        return session_id

    def _on_compact(self, command: commands.Compact) -> Any:
        wanted = command.retained_tokens
        self.runs.between_steps(self.defer_reply(), lambda waits: self.runs.compact(wanted, waits))
        return DEFERRED

    def _on_try_pre_run_compact(self, _: commands.TryPreRunCompact) -> Any:
        self.runs.between_steps(self.defer_reply(), self.runs.try_compact)
        return DEFERRED

    def _on_try_post_run_extract(self, _: commands.TryPostRunExtract) -> Any:
        return DEFERRED if self.memory.extract(self.defer_reply()) else None

    def _on_spawn_memory_jobs(self, _: commands.SpawnMemoryJobs) -> None:
        self.memory.start_all(self.defer_reply().caller)

    def _on_wait_for_memory_jobs(self, command: commands.WaitForMemoryJobs) -> Any:
        return DEFERRED if self.memory.wait_for_all(self.defer_reply(), command.timeout) else True

    def _on_history(self, _: commands.History) -> list[Item]:
        return in_call_order(self._journal.log.durable_items())

    def _on_describe(self, _: commands.Describe) -> PodDescription:
        log, accounts = self._journal.log, self._accounts
        return PodDescription(
            name=self.name,
            state=self._status.state,
            session_id=log.durable_session,
            head=log.durable_hash.hex(),
            extract_pointer=log.durable_pointer,
            occupancy=self.conversation.context().occupancy() if self._weighed is None else self._weighed,
            usage=accounts.usage or Usage(),
            cost=accounts.cost,
            passive=self.passive,
            seconds=accounts.seconds + accounts.run_seconds(log.head),
        )

    # -- calls that wait for a person's word -----------------------------------------------------

    def _on_answer(self, command: commands.Approve | commands.Disapprove) -> Any:
        if command.note is not None:
            command = msgspec.structs.replace(command, note=encodable(command.note))
        reply = self.defer_reply()
        if self.delegation is not None and (asker := self.delegation.asker_of(command.approval_id)):
            answer = asker.address.ask(asker, command)
            answer.when_done(lambda: _pass_on(answer, reply))
        else:
            self.runs.answer(command, reply)
        return DEFERRED

    # -- what its memory jobs say ----------------------------------------------------------------

    def _on_proposal(self, proposal: Proposal) -> Any:
        self.memory.take(proposal, self.defer_reply())
        return DEFERRED

    def _on_consolidating(self, message: Consolidating) -> Any:
        self.memory.consolidations.begin(message, self.defer_reply())
        return DEFERRED

    def _on_consolidated(self, message: Consolidated) -> None:
        self.memory.consolidations.end(message)

    def _on_ended_late(self, message: EndedLate) -> None:
        self._tasks.start(self.runs.record_late(message))

    # -- without its history ---------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""
        return self.actor_stopped.is_set()

    def _on_passivate(self, _: commands.Passivate) -> bool:
        return self.passivate()

    def passivate(self) -> bool:
        """Give back the history unless something is under way; returns whether it is given back."""
        if not self.passive and self._is_at_rest():
            conversation = self._conversation
            self._weighed = None if conversation is None else conversation.known_weight()
            if conversation is not None:
                conversation.drop_history()
            self._measured = None
            self._journal.log.drop_items()
            self.passive = True
        return self.passive

    def _is_at_rest(self) -> bool:
        """Whether the store has all there is, and nobody waits for anything. Memory jobs that have reported
        their end may still be leaving: they need no history.
        """
        return (
            self._status.state in _RESTING
            and self._task is None
            and not self._status.stopping
            and self._journal.at_rest
            and (self._runs is None or self._runs.at_rest)
            and (self._memory is None or not self._memory.under_way)
        )

    def _lacks_history(self, message: Any) -> bool:
        """Whether a passive pod has to have its history for a message."""
        kind = type(message)
        if self._status.stopping or kind in _WITHOUT_HISTORY:
            return False
        if kind is commands.Describe:
            return self._weighed is None
        return self._status.state is PodState.PAUSED or kind not in _IF_PAUSED

    async def _receive_with_history(self, message: Any) -> Any:
        """Handle a message once the history is there. Where it cannot be read, only this message fails:
        the pod stays passive, and the next one tries again.
        """
        try:
            await self._in_patience(self._lifecycle.read_back(self.conversation))
        except Exception as error:  # noqa: BLE001 - goes to who asked
            return None if self._reply_to is None else _answer_without_history(message, error)
        self._weighed, self.passive = None, False
        if self.reaper is not None:
            self.reaper.watch(self)
        return self.on_receive(message)

    # -- its end ---------------------------------------------------------------------------------

    def _handle_receive(self, message: Any) -> Any:
        """Pykka's own messages; a stop waits for what is under way, so it is none of pykka's business."""
        if type(message) is not messages._ActorStop:
            return super()._handle_receive(message)
        return self._on_stop(message)

    def _on_stop(self, _: object) -> Any:
        """Of ``ActorRef.stop``, and the command."""
        return self._stop_by("cancelled")

    def _on_shut_down(self, _: ShutDown) -> Any:
        return self._stop_by("paused")

    def _stop_by(self, ending: RunOutcome) -> Any:
        """End the pod, and before it the run that goes on by ``ending``; the reply comes once it has."""
        reply = self.defer_reply()
        if self._stops is not None:
            self._stops.append(reply)
            return DEFERRED
        self._stops = [reply]
        self._status.stopping = True
        did_nothing = self._runs is None and self._memory is None
        did_nothing = did_nothing and (self.delegation is None or not self.delegation.has_any)
        if did_nothing and self._status.state is PodState.IDLE and self._journal.at_rest:
            self._stop_at_once()
            return DEFERRED
        self.runs.interrupt_all(ending)
        self._tasks.start_at_once(self._wind_down(ending))
        return DEFERRED

    def _stop_at_once(self) -> None:
        """End a pod that has done nothing in this life."""
        pending = self._lifecycle.end_session()
        if pending is None:
            self._leave()
        else:
            self._tasks.start(self._leave_after(pending))

    async def _leave_after(self, pending: Future[None] | Awaitable[None]) -> None:
        await self._journal.wait_for_last(pending, self.resources.template.store_grace)
        self._leave()

    async def _wind_down(self, ending: RunOutcome) -> None:
        if self.delegation is not None:
            await self._end_children(self.delegation, ending)
        commands_at_work = self.resources.commands
        if commands_at_work is not None:
            commands_at_work.begin_to_close()
        await self._lifecycle.stop(self.runs, self.memory)
        self.runs.turn_away()
        self.memory.give_up()
        self._journal.close()
        await self.memory.wait_for_cancelled()
        if commands_at_work is not None:
            await commands_at_work.close()
        self._leave()

    async def _end_children(self, delegation: Delegation, ending: RunOutcome) -> None:
        template = self.resources.template
        seconds = template.grace + template.memory_grace + template.store_grace
        await (delegation.stop_all if ending == "cancelled" else delegation.shut_down_all)(seconds)

    def _leave(self) -> None:
        self._journal.close()
        leaving = self._lifecycle.release_session()
        if leaving is None:
            self._enter_stopped()
        else:
            self._tasks.start(self._stop_after(leaving))

    async def _stop_after(self, leaving: asyncio.Task[None]) -> None:
        await asyncio.wait((leaving,), timeout=self.resources.template.store_grace)
        self._enter_stopped()

    def _enter_stopped(self) -> None:
        self._status.to(PodState.STOPPED)
        self._end()
        if self.supervisor is not None:
            self.supervisor.note_stop()
        resolve(self._stops or [])

    def _defect(self, error: BaseException) -> None:
        """A task of the pod raised what nobody expects."""
        if not self.actor_stopped.is_set():
            self._handle_error(error, None)

    def on_failure(self, _type: Any, error: Any, _traceback: Any) -> Any:
        """A defect ended the pod: say so, and answer all who wait."""
        self._status.stopping = True
        self.runs.break_off(error)
        return self._fail(error)

    async def _fail(self, error: BaseException) -> None:
        supervisor = self.supervisor
        if supervisor is None:
            await self._end_failed(error)
            return
        if self._stops is None and supervisor.decide(error):
            self._status.restarts = True
            if supervisor.waiting is None:  # else it had not taken up yet what waits
                supervisor.waiting = self.runs.take_waiting()
        try:
            await self._end_failed(error)
        finally:
            supervisor.on_failed(error)

    async def _end_failed(self, error: BaseException) -> None:
        if self.delegation is not None:
            await self._end_children(self.delegation, "cancelled")
        if self.resources.commands is not None:
            await self.resources.commands.close()
        await self._lifecycle.fail(error)
        self.runs.turn_away()
        self.memory.give_up()
        self._journal.close()
        await self.memory.wait_for_cancelled()
        resolve(self._stops or [])

    # -- as its supervisor sees it ---------------------------------------------------------------

    def take_up(self, waiting: Waiting, *, resume: bool) -> None:
        """Go on with what waited for a pod that failed, whose place this one takes."""
        self.runs.take_up(waiting, resume=resume)

    def refuse(self, message: Any, reply_to: AsyncFuture[Any] | None) -> None:
        """Answer a message that came too late, once there is no supervisor to take it."""
        self._refuse(message, reply_to)

    def expire(self, error: Exception) -> None:
        """End the pod as by a defect, since it hangs."""
        self._defect(error)

    def request_progress(self) -> tuple[object, int, int] | None:
        """How far the request under way is: itself, its attempt, what came of that; None where none is."""
        run = None if self._runs is None else self._runs.run
        return None if run is None or run.exchange is None else run.exchange.progress()


def _pass_on(answer: AsyncFuture[Any], reply: AsyncFuture[Any]) -> None:
    error = answer.exception()
    if error is None:
        reply.set(None)
    else:
        reply.set_exception(error)


def _asking_tool_calls(of: tuple[Any, ...], approvals: OpenApprovals) -> ToolCalls:
    from actors.pod.asking import AskingToolCalls  # noqa: PLC0415 - paid for by pods that ask

    return AskingToolCalls(*of, approvals=approvals)


_EVENT_OF: dict[type, tuple[Any, dict[str, Any]]] = {
    UserItem: (UserMessage, {"source": "push"}),
    AssistantItem: (AssistantMessage, {}),
    SystemItem: (SystemMessage, {}),
    ToolResult: (ToolResulted, {}),
}

#: Messages that say or ask nothing of the history.
_WITHOUT_HISTORY = frozenset(
    {
        commands.Steer,
        commands.Pause,
        commands.WaitForMemoryJobs,
        commands.Passivate,
        commands.Stop,
        ShutDown,
    }
)
#: Messages that end a pod.
_STOPS = (commands.Stop, ShutDown, messages._ActorStop)
#: Those that do only where a run is paused.
_IF_PAUSED = frozenset({commands.Cancel, commands.Resume})


def _answer_without_history(message: Any, error: Exception) -> Any:
    """The answer to a message whose pod could not have its history back, as its command promises it."""
    if isinstance(message, commands.TryPreRunCompact | commands.TryPostRunExtract):
        return None
    if isinstance(message, commands.Run):
        raise RunFailed(error, run_id=message.run_id) from error
    if isinstance(message, commands.Compact):
        raise CompactionFailed(f"the history could not be read: {error}") from error
    if not isinstance(message, Command):  # a memory job's
        return False
    raise error


_HANDLERS: dict[type, Callable[[PodActor, Any], Any]] = {
    commands.Run: PodActor._on_run,
    RunHere: PodActor._on_run,
    commands.Steer: PodActor._on_steer,
    commands.Notify: PodActor._on_notify,
    commands.Cancel: PodActor._on_cancel,
    commands.Pause: PodActor._on_pause,
    commands.Resume: PodActor._on_resume,
    commands.PushItem: PodActor._on_push_item,
    commands.Compact: PodActor._on_compact,
    commands.TryPreRunCompact: PodActor._on_try_pre_run_compact,
    commands.TryPostRunExtract: PodActor._on_try_post_run_extract,
    commands.SpawnMemoryJobs: PodActor._on_spawn_memory_jobs,
    commands.WaitForMemoryJobs: PodActor._on_wait_for_memory_jobs,
    commands.History: PodActor._on_history,
    commands.Describe: PodActor._on_describe,
    commands.Passivate: PodActor._on_passivate,
    commands.Approve: PodActor._on_answer,
    commands.Disapprove: PodActor._on_answer,
    commands.Fork: PodActor._on_fork,
    commands.Stop: PodActor._on_stop,
    ShutDown: PodActor._on_shut_down,
    Proposal: PodActor._on_proposal,
    Consolidating: PodActor._on_consolidating,
    Consolidated: PodActor._on_consolidated,
    EndedLate: PodActor._on_ended_late,
}
