"""``Jobs``: what extractions and consolidations know of the memory jobs that they are part of."""

from __future__ import annotations

from contextvars import Context
from typing import Any, Protocol

from actors.runtime.future import AsyncFuture


class Jobs(Protocol):
    """The memory jobs of one pod together."""

    #: The context variables of whoever asked for memory jobs last.
    caller: Context | None

    def ask_pod(self, message: Any) -> AsyncFuture[bool]:
        """Send a message to the pod's mailbox."""

    def track_leaving(self, ended: AsyncFuture[bool]) -> None:
        """Count a job that has reported its end as at work until ``ended`` resolves."""

    def consolidate(self) -> None:
        """Consolidate what extractions have staged."""

    def count_as_at_work(self) -> None:
        """Count one more memory job as at work, until ``note_job_ended``."""

    def note_job_ended(self) -> None:
        """Count one job less as at work, and answer those who wait if it was the last."""

    def answer_if_done(self) -> None:
        """Answer those who wait for all memory jobs, if that was the last."""
