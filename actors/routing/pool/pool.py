"""``Pool``: works off a queue of jobs with bounded runners, and loses none."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from actors.routing.pool.availability import Availability
from actors.routing.pool.choosing import JobClassifier
from actors.routing.pool.driving import Driving, left
from actors.routing.pool.forgetting import forget_ended
from actors.routing.pool.open_queue import open_queue
from actors.routing.pool.performing import Performing
from actors.routing.pool.queue import Everything, NewJob, TaskQueue, number_of, unknown_job
from actors.routing.pool.settings import PoolRunner, checked, limits_of, workers_of
from actors.routing.pool.work import LifeSettings
from actors.routing.pool.working_copy import Git
from actors.runtime.arguments import check_count, check_seconds, path_of, several, table_of
from actors.runtime.closing import Closing
from actors.runtime.future import AsyncFuture
from actors.runtime.on_loop import ask_on, call_on, future_of
from actors.runtime.user_folders import data_path
from actors.swarm.agents.home import home_of
from actors.swarm.runners.base import stop_waits
from protocol.config import RunnerSection
from protocol.errors import InvalidInput, PolypodError, PoolError
from protocol.foreign import shown
from protocol.jobs import JOB_ENDS, Execution, Job, JobStatus
from protocol.routing import SystemStatus

T = TypeVar("T")

_ALL: tuple[JobStatus, ...] = ("queued", "running", "done", "failed", "cancelled", "lost")


class Pool(Closing):
    """Does jobs with runners, each a limited number at a time, until it is closed or its system is left.

    ``runners`` has for each name a Runner, what ``Swarm.start`` takes as one, an async function that is
    called with a JobContext, a PodManifest, or a ``pod_runner(…)``; without any the pool only submits jobs,
    for other processes on its queue. ``limits`` says how many jobs a runner has at once, over all processes
    on the queue (4 where it does not). A job goes to the runner that it names, else to the one that
    ``classifier`` chooses, else to the one with the least to do. ``queue`` is a TaskQueue, which the
    pool closes; by default that of the system's store, so that jobs outlive the process where sessions do.
    ``cwd`` is where jobs are done that name no folder; ``logs`` the folder of their files, by default one
    beside the store; ``worktrees`` that of their working copies, by default one in the user's folder of data
    (``$XDG_DATA_HOME``). ``sections`` are what is otherwise with runners, as a Swarm's ``runners`` (by
    default what a ``polypod.toml`` sets); ``env``, ``request_wait`` and ``term_wait`` are as a Swarm has
    them.

    It begins at once. Raises PoolError, UnknownRunner, ConfigError, SystemNotRunning, StoreError.
    """

    def __init__(
        self,
        system: Any,
        runners: Mapping[str, PoolRunner] | None = None,
        limits: Mapping[str, int] | None = None,
        classifier: JobClassifier | None = None,
        *,
        queue: TaskQueue | None = None,
        cwd: str | Path | None = None,
        logs: str | Path | None = None,
        worktrees: str | Path | None = None,
        sections: Iterable[RunnerSection] | None = None,
        env: Iterable[str] = (),
        request_wait: float = 1.0,
        term_wait: float = 2.0,
    ) -> None:
        home = home_of(system)
        runners = {} if runners is None else table_of("runners", runners)
        bounds = limits_of(runners, {} if limits is None else table_of("limits", limits))
        if queue is not None and not isinstance(queue, TaskQueue):
            raise PoolError(f"queue: expected a TaskQueue, got {shown(queue)}")
        waits, variables = stop_waits(request_wait, term_wait), several("env", env)
        self._cwd = path_of("cwd", "." if cwd is None else cwd).resolve()
        copies = data_path() / "worktrees" if worktrees is None else path_of("worktrees", worktrees)
        self._queue = open_queue(home.store) if queue is None else queue
        self._temporary: Path | None = None
        #: The folder of the jobs' files.
        self.logs = self._folder_of_logs(logs)
        settings = LifeSettings(
            folder=self.logs,
            store=home.store.url,
            launcher=home.launcher,
            env=variables,
            waits=waits,
        )
        try:
            workers = workers_of(runners, home, settings, self._cwd, sections)
        except PolypodError:
            self._queue.close()
            self._remove_temporary()
            raise
        performing = Performing(
            workers,
            Git(home.launcher),
            self._cwd,
            copies.absolute(),
        )
        self._mailroom = home.mailroom
        self._availability = Availability(bounds)
        self._driving = call_on(
            home.mailroom,
            lambda: Driving(home, self._queue, self._availability, performing, classifier),
        )
        home.protect(self.logs)
        home.close_first(self)

    def __repr__(self) -> str:
        return f"<Pool {self._queue.url}, {self._driving.at_work} at work>"

    def _folder_of_logs(self, logs: str | Path | None) -> Path:
        if logs is not None:
            return path_of("logs", logs).absolute()
        if self._queue.folder is not None:
            return self._queue.folder
        try:
            self._temporary = Path(tempfile.mkdtemp(prefix="polypod-pool-"))
        except OSError as error:
            self._queue.close()
            text = f"no folder can be created for the logs of jobs: {error.strerror or error}"
            raise PoolError(
                text, hint="set logs= to a folder, or TMPDIR to another one for temporary files"
            ) from error
        return self._temporary

    def submit(self, job: Job) -> AsyncFuture[Execution]:
        """Queue a job; the future gives how it ended, whatever the end. Where the pool is left before, it
        gives how the job stands, which others may do then. Raises PoolError; the future StoreError where the
        job cannot be kept, SystemNotRunning where the pool was left.
        """
        new = NewJob(checked(job), time.time())
        future: AsyncFuture[Execution] = future_of(self._mailroom)
        self._do(future, lambda: self._driving.requests.add(new, future))
        return future

    def submit_all(self, jobs: Iterable[Job]) -> AsyncFuture[list[Execution]]:
        """Queue jobs, all of them or none; the future gives how they stand, once they are kept as safely as
        the queue keeps them. Raises as ``submit``.
        """
        new = [NewJob(checked(job), time.time()) for job in several("jobs", jobs)]
        future: AsyncFuture[list[Execution]] = future_of(self._mailroom)
        self._do(future, lambda: self._driving.requests.add_all(new, future))
        return future

    def wait_for(self, job: str) -> AsyncFuture[Execution]:
        """How a job ends, whoever has submitted it. Raises UnknownJob."""
        number = number_of(job)
        return ask_on(self._mailroom, lambda: self._wait_for(job, number))

    async def _wait_for(self, job: str, number: int) -> Execution:
        ends, end = self._driving.ends, future_of(self._mailroom)
        ends.wait_for(number, end)  # first, so that no end comes between
        stands: Execution | None = None
        try:
            stands = await self.get(job)
        finally:
            if (stands is None or stands.status in JOB_ENDS) and not end.done():
                ends.drop(number, end)
        if stands.status in JOB_ENDS:
            return stands
        execution: Execution = await end
        return execution

    def get(self, job: str) -> AsyncFuture[Execution]:
        """How a job stands. Raises UnknownJob."""
        return self._ask(partial(_found, job))

    def executions(
        self, statuses: Iterable[JobStatus] = _ALL, limit: int | None = None
    ) -> AsyncFuture[list[Execution]]:
        """The jobs there are, the last submitted first, without what they ended with."""
        wanted = several("statuses", statuses)
        for each in wanted:
            if each not in _ALL:
                hint = f"the statuses are {', '.join(_ALL)}"
                raise InvalidInput(f"statuses: {shown(each)} is not the status of a job", hint=hint)
        if limit is not None:
            check_count("limit", limit, 0, "jobs")
        return self._ask(lambda queue: queue.list(wanted, limit))

    def counts(self) -> AsyncFuture[dict[tuple[JobStatus, str], int]]:
        """How many jobs there are, by status and runner (``""`` for any)."""
        return self._ask(lambda queue: queue.counts())

    def ended_since(self, mark: int | None) -> AsyncFuture[tuple[int, list[Execution]]]:
        """The jobs that ended behind ``mark``, in any process, and the mark of now; of None just that."""
        if mark is not None:
            check_count("mark", mark, 0, "jobs")

        def look(queue: TaskQueue) -> tuple[int, list[Execution]]:
            now, ended = queue.ended_since(mark, Everything())
            return now, [execution for _, execution in ended]

        return self._ask(look)

    def status(self) -> SystemStatus:
        """How many jobs each runner has, as was seen last, and until when some are limited."""
        return self._availability.status(time.time())

    def cancel(self, job: str) -> AsyncFuture[bool]:
        """Cancel a job, in whatever process it runs; whether it had not ended yet. Raises UnknownJob."""
        number = number_of(job)
        future: AsyncFuture[bool] = future_of(self._mailroom)
        self._do(future, lambda: self._driving.requests.cancel(number, future))
        return future

    def forget(self, older_than: float) -> AsyncFuture[list[Execution]]:
        """Forget the jobs that ended so many seconds ago or earlier, with their files; the future gives them.
        A queue in memory forgets by itself.
        """
        check_seconds("older_than", older_than)
        before, logs = time.time() - older_than, self.logs
        return self._ask(lambda queue: forget_ended(queue, before, logs))

    def join(self) -> AsyncFuture[None]:
        """Wait until no job waits or is at work, in whatever process."""
        future: AsyncFuture[None] = future_of(self._mailroom)
        self._do(future, lambda: self._driving.join(future))
        return future

    def _ask(self, ask: Callable[[TaskQueue], T]) -> AsyncFuture[T]:
        """What the queue says, asked in its turn."""
        future: AsyncFuture[T] = future_of(self._mailroom)
        self._do(future, lambda: self._driving.requests.ask(ask, future))
        return future

    def _do(self, future: AsyncFuture[Any], request: Callable[[], object]) -> None:
        """Have something requested on the loop, now where the caller is there."""

        def do(_: object) -> None:
            if self._driving.is_leaving:
                future.set_exception(left())
            else:
                request()
                self._driving.rouse()

        if self._mailroom.here():
            do(None)
        else:
            self._mailroom.post(do)

    def close(self) -> AsyncFuture[None]:
        """As ``aclose``, from any thread."""
        return ask_on(self._mailroom, self.aclose)

    async def aclose(self) -> None:
        """Stop: end what runs; in a queue that outlives the process it waits for others. Idempotent."""
        await self._driving.aclose()
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _found(job: str, queue: TaskQueue) -> Execution:
    """Raises UnknownJob."""
    found = queue.find(number_of(job))
    if found is None or (job != found.id and not job.isdecimal()):
        raise unknown_job(job)
    return found
