"""A pod for one run: made, run once, and stopped, whatever the outcome."""

from __future__ import annotations

from typing import Any

from actors.pod.handle import Pod
from actors.pod.runs.run_state import RunHere
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.results import RunResult


class SingleRun:
    """The one run of a pod that is stopped after it."""

    def __init__(self, spawning: AsyncFuture[Pod], command: RunHere) -> None:
        """``command`` contains the id for its run."""
        self._spawning = spawning
        self._command = command
        self._pod: Pod | None = None
        self._cancelled = False

    async def play(self) -> RunResult[Any]:
        """Run it to its end. Raises what ``spawn`` and ``Pod.run`` do."""
        pod = self._pod = await self._spawning
        try:
            result = pod.address.ask(pod, self._command)
            if self._cancelled:
                self.cancel()
            return await result  # type: ignore[no-any-return]
        finally:
            await pod.stop()

    def cancel(self) -> None:
        """End the run as cancelled, even one that has not begun."""
        self._cancelled = True
        if self._pod is not None:
            self._pod.address.ask(self._pod, commands.Cancel(self._command.run_id))
