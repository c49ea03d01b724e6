"""Jobs: what a pool is asked to do, and how that stands or ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from protocol.errors import Failure
from protocol.usage import Usage

#: Where a job is done: where its folder is, or in a working copy of that repository of its own.
Workspace = Literal["shared", "worktree"]
#: How a job stands, or how it ended: ``lost`` is one of which nobody knows how far it came.
JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
#: What becomes of a job whose process died: it is done again, or given up.
OnLost = Literal["requeue", "lost"]
#: A job of such a status has ended.
JOB_ENDS: frozenset[JobStatus] = frozenset({"done", "failed", "cancelled", "lost"})


class Job(Struct, frozen=True, omit_defaults=True):
    """A task for a pool.

    ``agent`` is the runner that is to do it; one that the pool does not have, or None, leaves the choice to
    the pool. Of those that wait, a higher ``priority`` starts first, equal ones in order of submission.
    ``model`` is the runner's own unless it is named. The job is done in the folder ``cwd`` (the pool's where
    it is None), or with ``workspace="worktree"`` in a working copy of the git repository that this is.
    ``on_lost`` says what becomes of it where the process dies that works on it: it is done again, or ends as
    ``lost``.
    """

    name: str
    instructions: str
    agent: str | None = None
    priority: int = 0
    model: str | None = None
    cwd: str | None = None
    workspace: Workspace = "shared"
    on_lost: OnLost = "requeue"


class FileChange(Struct, frozen=True, omit_defaults=True):
    """A file that a job touched, and how many lines came and went; None of a file that has no lines."""

    path: str
    kind: Literal["added", "modified", "deleted"]
    added: int | None = None
    removed: int | None = None


class Changes(Struct, frozen=True, omit_defaults=True):
    """What a job changed in its working copy: its work is ``commit`` on ``branch``, which began at ``base``.
    Without ``files`` it has changed nothing, and there is no branch.
    """

    base: str
    files: tuple[FileChange, ...] = ()
    branch: str | None = None
    commit: str | None = None


class Execution(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a job stands, or how it ended.

    ``agent`` is the runner that did it, or is to; ``model`` what that says it worked with, and ``reason`` why
    a classifier chose them. ``result`` is the last answer, ``summary`` a few words of it, ``changes`` what it
    did to its working copy; None where it had none. ``usage``, ``cost`` (US dollars) and ``seconds`` are what
    the last attempt took, None where nobody knows. ``attempts`` counts how often it was started, and
    ``error`` says why it failed.
    """

    id: str
    job: Job
    agent: str | None = None
    model: str | None = None
    reason: str | None = None
    status: JobStatus
    result: str | None = None
    summary: str | None = None
    changes: Changes | None = None
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    attempts: int = 0
    error: Failure | None = None
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
