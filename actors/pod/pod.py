"""``PodActor``: one pod. It decides, and never waits on model, tool or disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from pykka._envelope import Envelope

from actors.pod.checks import checked_content, checked_item
from actors.pod.ending import GraceOver, ShutDown
from actors.pod.fork import Branch, branch_off, drop_branch
from actors.pod.memory.consolidation import Consolidated, Consolidating
from actors.pod.memory.extraction import Proposal
from actors.pod.passivating import PassivatingActor
from actors.pod.run import PendingInput, QueuedRun, TypedRun
from actors.pod.running import OutOfTime
from actors.pod.stepping import CommitEnded, StepEnded, StepOverdue
from actors.pod.turns import EndedLate, Progressed, ToolEnded
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.commands import Command, Describe
from protocol.errors import (
    PodError,
)
from protocol.events import (
    AssistantMessage,
    RunOutcome,
    SessionForked,
    SystemMessage,
    ToolResulted,
    UserMessage,
)
from protocol.items import (
    AssistantItem,
    Item,
    SystemItem,
    ToolResult,
    UserItem,
)
from protocol.lifecycle import PodState
from protocol.results import PodDescription, RunResult
from protocol.usage import Usage


class PodActor(PassivatingActor):
    """One pod: mailbox, state, run, queue. See ``protocol.lifecycle`` for its states."""

    def __repr__(self) -> str:
        turn_ = f", turn {self._run.steps}" if self._run is not None else ""
        return f"<Pod {self._parts.name} {self._state.name}{turn_}>"

    # -- the mailbox -----------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        if self._stopping and isinstance(message, Command):
            raise self._gone()
        if self.sweep is not None and type(message) is not Describe:  # a look wakes nobody
            self.active_at = self.sweep.now()
        if self.passive and self._lacks_history(message):
            return self._brought_back(message)
        try:
            return _HANDLERS.get(type(message), PodActor._on_stranger)(self, message)
        except PodError:
            if self._reply_to is None:  # it was told: nobody asked how it goes, and the pod lives on
                return None
            raise

    def _on_stranger(self, message: Any) -> Any:
        raise PodError(f"pod {self._parts.name!r} knows no command {type(message).__name__}")

    def _refuse(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is not None and isinstance(envelope.message, ShutDown):
            envelope.reply_to.set(None)
        elif envelope.reply_to is not None and isinstance(envelope.message, Command):
            envelope.reply_to.set_exception(self._gone())  # type: ignore[arg-type]
        else:
            super()._refuse(envelope)

    # -- commands --------------------------------------------------------------------------------

    def _on_run(self, command: commands.Run) -> Any:
        content = checked_content(command.content)
        if content != command.content:
            command = msgspec.structs.replace(command, content=content)
        self._submit(QueuedRun(command, "run", self.defer_reply()))
        return DEFERRED

    def _on_steer(self, command: commands.Steer) -> Any:
        if self._run is None or self._state is not PodState.RUNNING:
            raise self._not_running()
        content = checked_content(command.content)
        self._run.pending.append(PendingInput(content, "steer", self.defer_reply()))
        return DEFERRED

    def _on_notify(self, command: commands.Notify) -> Any:
        self._notify(checked_content(command.content), self.defer_reply())
        return DEFERRED

    def _on_cancel(self, command: commands.Cancel) -> Any:
        run = self._run
        if command.run_id is not None and (run is None or run.run_id != command.run_id):
            self._drop_queued(command.run_id)
            return None
        if self._state is PodState.PAUSED:
            reply = self.defer_reply()
            self._when_free(lambda: self._drop_paused([reply]), reply)
            return DEFERRED
        return None if run is None else self._end_soon("cancelled")

    def _drop_queued(self, run_id: str) -> None:
        """A run that has not begun never will, and leaves no trace."""
        for queued in self._runs or ():
            if queued.command.run_id == run_id:
                assert self._runs is not None
                self._runs.remove(queued)
                queued.reply.set(RunResult("", "cancelled", Usage(), run_id, self._log.durable_session))
                return

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
        self._cancel_step()
        return DEFERRED

    def _on_resume(self, _: commands.Resume) -> Any:
        if self._state is not PodState.PAUSED:
            raise self._not_paused()
        reply = self.defer_reply()
        self._when_free(lambda: self._resume_run(reply), reply)
        return DEFERRED

    def _on_push_item(self, command: commands.PushItem) -> Any:
        item = checked_item(command.item)
        reply = self.defer_reply()
        self._when_free(lambda: self._push(item, reply), reply)
        return DEFERRED

    def _push(self, item: Item, reply: AsyncFuture[Any]) -> None:
        if not isinstance(item, ToolResult):  # what comes after a call without a result would part the two
            self._answer_open_calls(self._run)
        kind, extra = _EVENT_OF[type(item)]
        self._log.record(kind, None, item=item, **extra)
        self._commit(lambda: self._told(reply, None), self._refuse_to(reply))

    def _on_fork(self, command: commands.Fork) -> Any:
        reply = self.defer_reply()
        refused = self._refuse_to(reply)
        self._when_free(lambda: self._commit(lambda: self._fork(command.at, reply), refused), reply)
        return DEFERRED

    def _fork(self, at: str | None, reply: AsyncFuture[Any]) -> None:
        def then(branch: Branch | None, error: BaseException | None) -> None:
            if branch is None:
                assert error is not None
                stopped = isinstance(error, asyncio.CancelledError)  # a cancel of the run does not reach here
                reply.set_exception(self._gone() if stopped else error)
                self._advance()
                return
            session_id, at_hash = branch
            self._log.record(SessionForked, self._run_id, new_session_id=session_id, at_hash=at_hash)
            refused = self._refuse_to(reply)

            def untold(error: BaseException) -> None:
                drop_branch(self._parts, session_id)
                refused(error)

            self._commit(lambda: self._told(reply, session_id), untold)

        self._do(branch_off(self._parts, at), then, what="the fork", caller=None, of_run=False)

    def _on_history(self, _: commands.History) -> list[Item]:
        return self._log.durable_items()

    def _on_describe(self, _: commands.Describe) -> PodDescription:
        return PodDescription(
            name=self._parts.name,
            state=self._state,
            session_id=self._log.durable_session,
            head=self._log.durable_hash.hex(),
            extract_pointer=self._log.durable_pointer,
            occupancy=self._context.occupancy() if self._weighed is None else self._weighed,
            usage=self._usage or Usage(),
            cost=self._cost,
            passive=self.passive,
            seconds=self._seconds + self._run_seconds,
        )


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
    commands.TryPostRunExtract: PodActor._on_try_post_run_extract,
    commands.SpawnMemoryJobs: PodActor._on_spawn_memory_jobs,
    commands.WaitForMemoryJobs: PodActor._on_wait_for_memory_jobs,
    Proposal: PodActor._on_proposal,
    Consolidating: PodActor._on_consolidating,
    Consolidated: PodActor._on_consolidated,
    commands.History: PodActor._on_history,
    commands.Describe: PodActor._on_describe,
    commands.Passivate: PodActor._on_passivate,
    commands.Stop: PodActor._on_stop,
    StepEnded: PodActor._on_step_ended,
    StepOverdue: PodActor._on_step_overdue,
    CommitEnded: PodActor._on_commit_ended,
    commands.Fork: PodActor._on_fork,
    ToolEnded: PodActor._on_tool_ended,
    Progressed: PodActor._on_progressed,
    EndedLate: PodActor._on_ended_late,
    OutOfTime: PodActor._on_out_of_time,
    GraceOver: PodActor._on_grace_over,
    ShutDown: PodActor._on_shut_down,
}
