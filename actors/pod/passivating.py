"""``PassivatingActor``: a pod that rests gives back its history, and has it again when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.pod.ending import EndingActor, GraceOver, ShutDown
from actors.pod.memory.extraction import Proposal
from actors.pod.restore import restore
from actors.pod.running import OutOfTime
from actors.pod.stepping import CommitEnded, StepEnded, StepOverdue
from actors.pod.turns import Progressed, ToolEnded
from protocol import commands
from protocol.errors import CompactionFailed, RunFailed, SessionCorrupt, UnknownEntry
from protocol.lifecycle import PodState

if TYPE_CHECKING:
    from actors.pod.sweep import Sweep

_RESTING = frozenset({PodState.IDLE, PodState.PAUSED})


class PassivatingActor(EndingActor):
    """While it is passive, what stays of a pod is what it stands for: its name, its claim on the
    session, where the session ends, a paused run, its sums. A message that needs the history waits
    until it is read back, and those behind it wait too.
    """

    #: Who looks for pods that have been idle for long; None where nobody does.
    sweep: Sweep | None = None
    active_at = 0.0
    watched = False
    #: Whether the store alone has the history.
    passive = False
    #: What the history weighed when it was given back, in tokens; None where nobody had weighed it.
    _weighed: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""
        return self.actor_stopped.is_set()

    # -- going ---------------------------------------------------------------------------------

    def _on_passivate(self, _: commands.Passivate) -> bool:
        return self.passivate()

    def passivate(self) -> bool:
        """Give back the history unless something is under way; tells whether it is given back."""
        if not self.passive and self._at_rest():
            context = self._context_
            self._weighed = context.occupancy() if context and context.items is self._head.items else None
            self._context_ = self._measured = None
            self._free = self._asked = self._runs = None  # empty queues take more room than all the rest
            self._log.let_go()
            self.passive = True
        return self.passive

    def _at_rest(self) -> bool:
        """Whether the store has all there is, and nobody waits for anything. Memory jobs that have reported
        their end may still be leaving: they need no history.
        """
        return (
            self._state in _RESTING
            and self._task is None
            and not (self._stopping or self._busy)
            and self._log.clean
            and self._job is None
            and self._librarian is None
            and not (self._free or self._runs or self._commits or self._waiting)
            and all(reply.done() for reply in self._asked or ())
        )

    # -- coming back -----------------------------------------------------------------------------

    def _lacks_history(self, message: Any) -> bool:
        """Whether a passive pod has to have its history for a message."""
        kind = type(message)
        if self._stopping or kind in _WITHOUT_HISTORY:
            return False
        if kind is commands.Describe:
            return self._weighed is None
        return self._state is PodState.PAUSED or kind not in _IF_PAUSED

    async def _brought_back(self, message: Any) -> Any:
        """Handle a message once the history is there. Where it cannot be read, only this message fails:
        the pod stays passive, and the next one tries again.
        """
        try:
            await self._come_back()
        except Exception as error:  # noqa: BLE001 - goes to who asked
            if self._reply_to is None:
                return None
            return _without_history(message, error)
        return self.on_receive(message)

    async def _come_back(self) -> None:
        """Read the history up to where it ended; if another has written behind it, the next commit tells."""
        log, last = self._log, self._head.last
        session_id = self._head.session_id
        try:
            state, _ = await restore(self._parts.store, session_id, last.hash)
        except UnknownEntry as error:
            raise SessionCorrupt(
                session_id, last.seq, "the entry that its pod wrote last is not there any more"
            ) from error
        log.restored(session_id, last, state.items, state.pointer, state.open_run)
        self._measured = state.calls
        await self._look_through()
        self._weighed = None
        self.passive = False
        if self.sweep is not None:
            self.sweep.watch(self)


#: Messages that say or ask nothing of the history.
_WITHOUT_HISTORY = frozenset(
    {
        commands.Steer,
        commands.Pause,
        commands.WaitForMemoryJobs,
        commands.Passivate,
        commands.Stop,
        StepEnded,
        StepOverdue,
        CommitEnded,
        ToolEnded,
        Progressed,
        OutOfTime,
        GraceOver,
        ShutDown,
    }
)
#: Those that do only where a run is paused.
_IF_PAUSED = frozenset({commands.Cancel, commands.Resume})
#: What those are answered that never raise.
_NEVER_RAISE = {commands.TryPreRunCompact: None, commands.TryPostRunExtract: None, Proposal: False}


def _without_history(message: Any, error: Exception) -> Any:
    """The answer to a message whose pod could not have its history back, as its command promises it."""
    if type(message) in _NEVER_RAISE:
        return _NEVER_RAISE[type(message)]
    if isinstance(message, commands.Run):
        raise RunFailed(error, run_id=message.run_id) from error
    if isinstance(message, commands.Compact):
        raise CompactionFailed(f"the history could not be read: {error}") from error
    raise error
