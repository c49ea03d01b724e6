"""``Committer``: group commit in a thread: jobs that arrive during a commit are committed together in the
next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from actors.runtime.future import AsyncFuture
from protocol.errors import StoreError


class Job:
    """Something to be made durable. ``future`` exists once the job has to wait, and resolves when it is
    durable or has failed.
    """

    __slots__ = ("future", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.future: AsyncFuture[None] | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Finish the job: resolve its future, with ``error`` if it failed."""
        self.resolve(error)

    def resolve(self, error: BaseException | None = None) -> None:
        """Resolve the future."""
        if self.future is None:
            return
        if error is None:
            self.future.set()
        else:
            self.future.set_exception(error)


class _Marker:
    """A place in the queue that somebody waits for; the ``last`` one ends the thread."""

    __slots__ = ("last", "reached")

    def __init__(self, *, last: bool) -> None:
        self.last = last
        self.reached = threading.Event()


J = TypeVar("J", bound=Job)


class Committer(Generic[J]):
    """Runs ``commit`` with all waiting jobs, in order, in one thread.

    ``commit`` must call ``done`` on each job and must not raise; it gets at most ``group`` jobs at once. More
    than ``limit`` waiting bytes are refused. The thread starts with the first job and is a daemon: an exit
    without ``close`` loses what was not confirmed. Only one thread may call ``put``.
    """

    #: The most bytes that may wait.
    LIMIT = 256 << 20

    def __init__(
        self, name: str, commit: Callable[[list[J]], None], *, group: int = 1024, limit: int = LIMIT
    ) -> None:
        self._name = name
        self._commit = commit
        self._group = group
        self._limit = limit
        self._jobs: SimpleQueue[J | _Marker] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Written by one thread each: the first by the caller's, the second by ours.
        self._given = self._finished = 0

    def put(self, job: J) -> AsyncFuture[None]:
        """Commit ``job`` soon, and return its future. Raises StoreError if the disk has fallen behind, or no
        more threads can be started.
        """
        waiting = self._given - self._finished
        if waiting > self._limit:
            raise StoreError(
                f"{self._name} cannot keep up: {waiting >> 20} MiB are waiting to be written",
                hint="try again later, or move the store to a faster disk",
            )
        if self._thread is None:
            self._thread = self._start_thread()
        self._given += job.size
        if job.future is None:
            job.future = AsyncFuture()
        self._jobs.put(job)
        return job.future

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"commit {self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StoreError(
                f"cannot write {self._name}: the thread that writes cannot be started ({error})",
                hint="stop other threads or processes, or raise their limit",
            ) from error
        return thread

    def flush(self) -> None:
        """Wait until everything put so far has been handled. Thread-safe."""
        self._mark(_Marker(last=False))

    def close(self) -> None:
        """Commit what waits and end the thread. Idempotent; the committer can be used again."""
        if self._mark(_Marker(last=True)) and self._thread is not None:
            self._thread.join()
            self._thread = None

    def _mark(self, marker: _Marker) -> bool:
        """Wait until the thread reaches the marker. Returns whether there is a thread."""
        if self._thread is None:
            return False
        self._jobs.put(marker)
        marker.reached.wait()
        return True

    def _run(self) -> None:
        while True:
            group, marker = self._gather()
            if group:
                self._carry_out(group)
                self._finished += sum([job.size for job in group])
            if marker is not None:
                marker.reached.set()
                if marker.last:
                    return

    def _carry_out(self, group: list[J]) -> None:
        try:
            self._commit(group)
        except Exception as error:  # noqa: BLE001 - a defect, which must not leave anybody waiting for ever
            for job in group:
                if job.future is not None and not job.future.done():
                    job.finish(error)

    def _gather(self) -> tuple[list[J], _Marker | None]:
        """Wait for a job, and take all others that are there, up to a marker."""
        group: list[J] = []
        item = self._jobs.get()
        while not isinstance(item, _Marker):
            group.append(item)
            if len(group) >= self._group:
                return group, None
            try:
                item = self._jobs.get_nowait()
            except Empty:
                return group, None
        return group, item
