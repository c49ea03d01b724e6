"""``Performing``: does jobs that were claimed, in their folders or in working copies, whatever the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from actors.routing.pool.endings import Outcome
from actors.routing.pool.queue import Claimed
from actors.routing.pool.work import Worker
from actors.routing.pool.working_copy import Git, WorkingCopy
from actors.runtime.arguments import path_of
from protocol.errors import Failure, WorkspaceError
from protocol.jobs import Execution

T = TypeVar("T")

#: Characters of a job's name in the message of a commit.
_TITLE = 72
#: How a job ends that was cancelled before it began.
CANCELLED = Outcome(kind="cancelled", error=Failure("Cancelled", "it was cancelled"))


class Performing:
    """The workers of one pool. ``cwd`` is where jobs are done that name no folder, ``worktrees`` has the
    working copies.
    """

    def __init__(self, workers: Mapping[str, Worker], git: Git, cwd: Path, worktrees: Path) -> None:
        self._workers, self._git, self._cwd, self._worktrees = workers, git, cwd, worktrees

    async def perform(self, claimed: Claimed) -> Outcome:
        """Do a job. Cancelled, it ends what it has begun; it raises nothing."""
        try:
            return await self._perform(claimed)
        except asyncio.CancelledError:  # before it was begun
            return CANCELLED
        except Exception as error:  # noqa: BLE001 - it is the job's
            return Outcome(kind="failed", error=Failure.of(error))

    async def _perform(self, claimed: Claimed) -> Outcome:
        """Do a job in its folder or in a working copy. Raises WorkspaceError."""
        job, worker = claimed.job, self._workers[claimed.agent]
        cwd = self._cwd if job.cwd is None else path_of("cwd", job.cwd).absolute()
        if not cwd.is_dir():
            raise WorkspaceError(
                f"there is no folder {cwd}", hint="set cwd= to the working directory of the job"
            )
        if job.workspace == "shared":
            return await worker.do(claimed, cwd)
        return await self._perform_apart(worker, claimed, cwd)

    async def _perform_apart(self, worker: Worker, claimed: Claimed, cwd: Path) -> Outcome:
        """Do a job in a working copy. Raises WorkspaceError."""
        name = _name_of(claimed)
        copy, cancelled = await _to_its_end(WorkingCopy.make(self._git, cwd, self._worktrees, name))
        outcome = CANCELLED if cancelled else await worker.do(claimed, copy.cwd)
        try:
            changes, _ = await _to_its_end(copy.finish(_message(claimed)))
        except WorkspaceError as error:  # what was said is kept, and so is the folder
            kind = "failed" if outcome.kind == "done" else outcome.kind
            return replace(outcome, kind=kind, error=outcome.error or Failure.of(error))
        return replace(outcome, changes=changes)

    async def save(self, execution: Execution) -> None:
        """Have its branch keep what was done of a job whose process died and that nobody does again, and
        remove its working copy. Where that cannot be, both stay as they are.
        """
        folder = self._worktrees / _name_of(execution)
        if execution.job.workspace == "worktree" and folder.is_dir():
            with contextlib.suppress(WorkspaceError):
                copy = await WorkingCopy.find(self._git, folder)
                await copy.finish(_message(execution))


def _name_of(job: Claimed | Execution) -> str:
    """The name of a job's working copy: the same for each attempt, and no other job's, though numbers begin
    anew in another queue.
    """
    return f"{job.id}-{round(job.submitted_at * 1e6) & 0xFFFFFFFF:08x}"


def _message(job: Claimed | Execution) -> str:
    return f"{job.job.name[:_TITLE]}\n\nBy {job.agent}."


async def _to_its_end(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """What ``work`` gives, and whether the caller was cancelled meanwhile: the work goes on to its end all
    the same.
    """
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    return task.result(), cancelled
