"""``JsonLinesCommits``: writes to a JSON-lines store, at once on the caller's thread, or gathered
and synced.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from actors.runtime.future import AsyncFuture
from actors.sessions.committer import Committer
from actors.sessions.disk import store_error
from actors.sessions.jsonl.claims import Claims
from actors.sessions.jsonl.write import Append
from actors.sessions.store import Durability
from protocol.errors import HeadConflict, SessionError

#: Bytes of a job that would hold up the loop for milliseconds; the writer thread takes it.
_LARGE = 1 << 20


class JsonLinesCommits:
    """The only way to write to a store's files. ``failed`` is called with each job that was refused."""

    def __init__(
        self, url: str, claims: Claims, durability: Durability, failed: Callable[[Append, SessionError], None]
    ) -> None:
        self._inline = durability == "process"
        self._claims = claims
        self._failed = failed
        self._committer: Committer[Append] = Committer(url, self._commit)
        self._syncers = ThreadPoolExecutor(8, thread_name_prefix=f"sync {url}")

    def submit(self, job: Append) -> AsyncFuture[None] | None:
        """Write now; long jobs, and all jobs in power mode, go to the writer thread. Raises SessionError."""
        held = job.held
        if not self._inline or job.size >= _LARGE or held.queued != held.finished:
            future = self._committer.put(job)
            held.queued += 1
            return future
        outcome = self._perform(job)
        if isinstance(outcome, SessionError):
            raise outcome
        if outcome is not None:
            os.close(outcome)
        return None

    def flush(self) -> None:
        """Wait until everything submitted is durable."""
        self._committer.flush()

    def close(self) -> None:
        """Write what waits, and end the thread. Idempotent."""
        self._committer.close()
        self._syncers.shutdown()

    def _commit(self, jobs: list[Append]) -> None:
        """Write all jobs on the writer thread, then sync all, so that one wait serves many."""
        written: list[tuple[Append, int]] = []
        for job in jobs:
            outcome = self._perform(job)
            if isinstance(outcome, int):
                written.append((job, outcome))
            else:
                job.finish(outcome)
        if self._inline:  # enough if the process ends, not if the machine does
            for job, descriptor in written:
                os.close(descriptor)
                job.finish()
            return
        files = {job.held: descriptor for job, descriptor in written}
        outcomes = self._sync_files(list(files.values()))
        broken = {held: error for held, error in zip(files, outcomes, strict=True) if error is not None}
        for job, descriptor in reversed(written):
            if job.held in broken:
                job.undo(self._claims.files, descriptor)
            os.close(descriptor)
        for job, _ in written:
            error = broken.get(job.held)
            job.finish(error and store_error(error, job.held.path))

    def _sync_files(self, descriptors: list[int]) -> list[OSError | None]:
        """Sync the files in parallel: a disk takes many syncs together as quickly as one."""
        if len(descriptors) == 1:
            return [self._sync(descriptors[0])]
        try:
            return list(self._syncers.map(self._sync, descriptors))
        except RuntimeError:  # the main thread has ended, and executors with it
            return [self._sync(each) for each in descriptors]

    def _sync(self, descriptor: int) -> OSError | None:
        try:
            self._claims.files.sync(descriptor)
        except OSError as error:
            return error
        return None

    def _perform(self, job: Append) -> int | SessionError | None:
        try:
            return job.perform(self._claims)
        except FileExistsError:
            failure: SessionError = HeadConflict(f"session {job.held.session_id} already exists")
        except OSError as error:
            failure = store_error(error, error.filename or job.held.path)
            failure.__cause__ = error
        except SessionError as error:
            failure = error
        self._failed(job, failure)
        return failure
