"""Which messages need a passive pod's history, and what is answered without it; pure."""

from __future__ import annotations

from typing import Any

from actors.pod.local import ShutDown
from actors.pod.runs.run_state import ResumeHere
from protocol import commands
from protocol.commands import Command
from protocol.errors import CompactionFailed, RunFailed
from protocol.lifecycle import PodState

#: Messages that say or ask nothing of the history.
_WITHOUT_HISTORY = frozenset(
    {
        commands.Steer,
        commands.Pause,
        commands.WaitForMemoryJobs,
        commands.WaitForSubAgents,
        commands.Passivate,
        commands.Stop,
        ShutDown,
    }
)
#: Those that do only where a run is paused.
_IF_PAUSED = frozenset({commands.Cancel, commands.Resume, ResumeHere})


def needs_history(kind: type, state: PodState, *, weighed: int | None) -> bool:
    """Whether a message of that kind needs the history of a pod in that state. ``weighed`` is the size of the
    history in tokens, where it is known.
    """
    if kind in _WITHOUT_HISTORY:
        # Words that steer deny the calls that wait; by all else a run that waits goes on, and reads it back.
        return kind is commands.Steer and state is PodState.WAITING
    if kind is commands.Describe:
        return weighed is None
    return state is PodState.PAUSED or kind not in _IF_PAUSED


def answer_without_history(message: Any, error: Exception) -> Any:
    """The answer to a message of a pod that could not read its history back, in the form that its command
    promises.
    """
    if isinstance(message, commands.TryPreRunCompact | commands.TryPostRunExtract):
        return None
    if isinstance(message, commands.Run):
        raise RunFailed(error, run_id=message.run_id) from error
    if isinstance(message, commands.Compact):
        raise CompactionFailed(f"the history could not be read: {error}") from error
    if not isinstance(message, Command):  # a memory job's
        return False
    raise error
