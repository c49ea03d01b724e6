"""``PodActor``: one pod. It decides, and never waits on model, tool or disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pykka._envelope import Envelope

from actors.pod.fork import Branch, branch_off
from actors.pod.run import PendingInput, QueuedRun, RunState, TypedRun
from actors.pod.running import OutOfTime, RunningActor
from actors.pod.session_actor import CommitEnded, StepEnded
from actors.pod.turns import Progressed, ToolEnded
from actors.runtime.actor import DEFERRED
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.commands import Command
from protocol.errors import (
    Failure,
    NotPaused,
    NotRunning,
    PodError,
    PodStopped,
    RunFailed,
    SessionError,
)
from protocol.events import (
    AssistantMessage,
    PodFailed,
    RunEnd,
    RunOutcome,
    SessionForked,
    SystemMessage,
    ToolResulted,
    UserMessage,
)
from protocol.events import PodStopped as PodStoppedEvent
from protocol.items import (
    AssistantItem,
    Item,
    SystemItem,
    ToolResult,
    UserItem,
)
from protocol.lifecycle import PodState
from protocol.results import PodDescription
from protocol.usage import Usage

#: How long a stop waits for a step that was cancelled, in seconds.
STOP_GRACE = 5.0


class PodActor(RunningActor):
    """One pod: mailbox, state, run, queue. See ``protocol.lifecycle`` for its states."""

    def __repr__(self) -> str:
        turn_ = f", turn {self._run.steps}" if self._run is not None else ""
        return f"<Pod {self._parts.name} {self._state.name}{turn_}>"

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

    # -- the end ---------------------------------------------------------------------------------

    def on_stop(self) -> Any:
        if self._busy or self._run is not None:
            return self._wind_down()
        pending = self._record_end(None)
        if pending is None:
            self._closed(None)
            return None
        return self._close_after(pending, None)

    async def _wind_down(self) -> None:
        """End the run that goes on as cancelled, then close."""
        if self._run is not None and self._run.ending is None:
            self._run.ending = "cancelled"
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step}, timeout=STOP_GRACE)
        if self._commit_under_way is not None:
            await self._settle_after(self._commit_under_way)
        run, self._run = self._run, None
        pending = self._record_end(run)
        if pending is not None:
            await self._settle_after(pending)
        self._closed(run)

    async def _close_after(self, pending: Future[None], run: RunState | None) -> None:
        await self._settle_after(pending)
        self._closed(run)

    async def _settle_after(self, pending: Future[None]) -> None:
        """Wait for a commit at the pod's end, when no message can bring word of it any more."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(pending), STOP_GRACE)
        except (SessionError, TimeoutError):
            self._log.roll_back()
        else:
            self._log.settle()

    def _record_end(self, run: RunState | None) -> Future[None] | None:
        """The last entries; what cannot be kept any more is left out, and the session restores as it is."""
        try:
            if run is not None and self._state is not PodState.PAUSED:
                self._answer_open_calls(run)
                self._log.record(
                    RunEnd, run.run_id, outcome="cancelled", steps=run.steps, usage=run.usage or Usage()
                )
            self._log.record(PodStoppedEvent)
            return self._log.commit()
        except SessionError:
            self._log.roll_back()
            return None

    def _closed(self, run: RunState | None) -> None:
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
