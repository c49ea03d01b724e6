"""``AskingRuns``: the runs of a pod whose calls may wait for a person, and the answers to those calls."""

from __future__ import annotations

import contextlib
from typing import Any

from actors.pod.approvals.asking_play import AskingPlay
from actors.pod.approvals.open_approvals import OpenApprovals
from actors.pod.runs.between_steps import Between
from actors.pod.runs.run_loop import RunLoop
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from protocol import commands
from protocol.errors import SessionError
from protocol.items import Part, TextPart


class AskingRuns(RunLoop):
    """The runs of a pod whose calls may wait for a person: anything done between two steps wakes a waiting
    run.
    """

    __slots__ = ("_approvals",)

    plays = AskingPlay

    def __init__(self, parts: RunParts) -> None:
        super().__init__(parts)
        assert parts.approvals is not None
        self._approvals: OpenApprovals = parts.approvals

    def between_steps(self, reply: AsyncFuture[Any], work: Between) -> None:
        """As ``RunLoop.between_steps``."""
        super().between_steps(reply, work)
        self._approvals.wake()

    def steer(self, content: tuple[Part, ...], reply: AsyncFuture[Any]) -> None:
        """As ``RunLoop.steer``; the waiting calls are denied."""
        super().steer(content, reply)
        if self._approvals.state.open:
            assert self.run is not None
            self._parts.tasks.start_at_once(self._deny_open(self.run, content))

    async def _deny_open(self, run: Run, content: tuple[Part, ...]) -> None:
        words = "".join(part.text for part in content if isinstance(part, TextPart))
        self._parts.tool_calls.deny_open(run, words)
        with contextlib.suppress(SessionError):  # the run is lost by that
            await self._parts.journal.commit()
        self._approvals.wake()

    def check_none_waits(self) -> None:
        """Raise WaitingForApproval if calls wait, since the history cannot be changed then."""
        self._approvals.check_none_open()

    def answer(self, command: commands.Approve | commands.Disapprove, reply: AsyncFuture[Any]) -> None:
        """Take a person's answer to a waiting call; ``reply`` is answered once that is durable."""
        self.between.do_at_once(reply, self._take_answer(command))

    async def _take_answer(self, command: commands.Approve | commands.Disapprove) -> None:
        try:
            await self._parts.tool_calls.claim_answer(command)
            self._parts.tool_calls.answer(self.run, command)
            await self._parts.journal.commit()
        finally:
            self._approvals.wake()

    async def try_compact(self, waits: Interruptible) -> None:
        """As ``RunLoop.try_compact``; does nothing while calls wait."""
        if not self._approvals.state.open:
            await super().try_compact(waits)
