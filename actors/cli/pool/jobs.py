"""What ``polypod pool`` does with a queue: jobs are added, listed, shown, cancelled and forgotten."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import get_args

from msgspec.structs import replace

from actors.cli.display.event_format import Line
from actors.cli.display.format import count
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import SeveralFit
from actors.cli.places import default_store
from actors.cli.pool.rows import fields_of, files_of, lines_of
from actors.cli.sessions.store_reader import exists
from actors.config.configuration import Configuration
from actors.routing.pool.forgetting import forget_ended
from actors.routing.pool.open_queue import open_queue
from actors.routing.pool.queue import NewJob, TaskQueue, number_of, unknown_job
from actors.routing.pool.settings import checked
from actors.sessions.answers import wait
from actors.sessions.urls import open_store
from actors.swarm.agents.projections import read_lines
from protocol.errors import PoolError, StoreError, UnknownJob
from protocol.jobs import JOB_ENDS, Execution, Job, JobStatus, Workspace
from protocol.text import unshortened

#: Jobs that are named to a person whose beginning of an id fits several.
_SHOWN = 8
#: Columns that a list has where it is not shown at a terminal.
_PIPED = 100


@contextlib.contextmanager
def _queue_of(store: str | None, *, makes: bool = False) -> Iterator[TaskQueue | None]:
    """The queue of a store; None where there is no such store and none is to be made. Raises StoreError."""
    url = store or default_store()
    if url == "memory:":
        raise StoreError("a queue in memory would end with this command", hint="use sqlite:FILE or jsonl:DIR")
    if not makes and not exists(url):
        yield None
        return
    with contextlib.ExitStack() as stack:
        opened = open_store(url)
        stack.callback(lambda: wait(opened.close()))
        queue = open_queue(opened)
        stack.callback(queue.close)
        yield queue


def add_job(store: str | None, job: Job, workspace: Workspace | None, *, as_json: bool) -> None:
    """Queue a job, and print it. Raises PolypodError."""
    assert job.cwd is not None
    where = workspace or Configuration.load(job.cwd).pool.workspace
    job = checked(replace(job, workspace=where))
    with _queue_of(store, makes=True) as queue:
        assert queue is not None
        with queue.transaction():
            [number] = queue.add([NewJob(job, time.time())])
        execution = queue.find(number)
    assert execution is not None
    if as_json:
        put_json(execution)
    else:
        Terminal().row(Line("answer", execution.id))


def list_jobs(store: str | None, statuses: tuple[JobStatus, ...], limit: int, *, as_json: bool) -> None:
    """Print jobs, the last submitted first, and how many there are of each status. Raises StoreError."""
    with _queue_of(store) as queue:
        found = [] if queue is None else _listed(queue, statuses, limit)
        counts = {} if queue is None else queue.counts()
    if as_json:
        for each in found:
            put_json(each)
        return
    terminal = Terminal()
    if not found:
        terminal.note("no matching jobs" if counts else "no jobs")
    _list(found, terminal)
    totals = dict.fromkeys(statuses, 0)
    for (status, _), number in counts.items():
        if status in totals:
            totals[status] += number
    if found:
        terminal.note(", ".join(f"{number:,} {status}" for status, number in totals.items() if number))


def _listed(queue: TaskQueue, statuses: tuple[JobStatus, ...], limit: int) -> list[Execution]:
    """The jobs with what they ended with."""
    numbers = [_number(each) for each in queue.list(statuses, limit)]
    return [each for each in map(queue.find, numbers) if each is not None]


def _number(execution: Execution) -> int:
    return number_of(execution.id)


def forget_jobs(store: str | None, age: float, *, dry_run: bool, as_json: bool) -> None:
    """Forget the jobs that ended so many seconds ago, or list them. Raises StoreError."""
    with _queue_of(store) as queue:
        before = time.time() - age
        gone = [] if queue is None else forget_ended(queue, before, queue.folder, dry_run=dry_run)
    terminal = Terminal()
    if as_json:
        for each in gone:
            put_json(each)
        return
    if dry_run:
        _list(gone, terminal)
    terminal.note(f"{count(len(gone), 'job')} {'would be forgotten' if dry_run else 'forgotten'}")


def _list(executions: list[Execution], terminal: Terminal) -> None:
    for line in _lines_of(executions):
        terminal.row(line)


def _lines_of(executions: list[Execution]) -> Iterator[Line]:
    return lines_of(executions, time.time(), shutil.get_terminal_size((_PIPED, 0)).columns)


def _find(queue: TaskQueue | None, job: str) -> Execution:
    """The job of that id or number, or the one whose id begins so. Raises UnknownJob, or UsageError if there
    are more.
    """
    if queue is None or not job:
        raise unknown_job(job)
    try:
        number = number_of(job)
    except UnknownJob:
        return _find_by_beginning(queue, job)
    found = queue.find(number)  # and no other: fix-1 must not mean fix-12 once that job is forgotten
    if found is None or job not in {found.id, str(number)}:
        raise unknown_job(job)
    return found


def _find_by_beginning(queue: TaskQueue, beginning: str) -> Execution:
    """Raises UnknownJob, UsageError."""
    start = unshortened(beginning)
    numbers = [_number(each) for each in queue.list(get_args(JobStatus), None) if each.id.startswith(start)]
    found = [each for each in map(queue.find, numbers[:_SHOWN]) if each is not None]
    if not found:
        raise unknown_job(beginning)
    if len(numbers) > 1:
        lines = [line.text.strip() for line in _lines_of(found)]
        raise SeveralFit(f"{len(numbers)} jobs match {beginning!r}; use one of these ids:", lines)
    return found[0]


def show_job(store: str | None, job: str, *, log: bool, as_json: bool) -> None:
    """Print a job, or its log. Raises PoolError, StoreError, UsageError."""
    with _queue_of(store) as queue:
        execution = _find(queue, job)
        folder = None if queue is None else queue.folder
    if log:
        lines = [] if folder is None else list(read_lines(folder / execution.id / "stdout.log"))
        if not lines:
            raise PoolError(f"job {execution.id} has no log", hint="jobs of functions have none")
        for line in lines:
            put_json(line)
    elif as_json:
        put_json(execution)
    else:
        _show(execution, Terminal())


def _show(execution: Execution, terminal: Terminal) -> None:
    terminal.row(Line("user", execution.id))
    for name, value in fields_of(execution, time.time()):
        terminal.line(Line("error" if name == "error" else "answer", f"{name:<9} {value}"))
    if execution.changes is not None:
        for line in files_of(execution.changes):
            terminal.line(Line("quiet", line))
    terminal.line(Line("quiet", f"\n{execution.job.instructions}"))
    if execution.result:
        terminal.line(Line("answer", f"\n{execution.result}"))


def cancel_jobs(store: str | None, jobs: tuple[str, ...], *, as_json: bool) -> None:
    """Cancel jobs, all that are named or none. Raises UnknownJob, StoreError, UsageError."""
    terminal = Terminal()
    with _queue_of(store) as queue:
        numbers = [_number(_find(queue, each)) for each in jobs]
        assert queue is not None
        with queue.transaction():
            before = [queue.cancel(number, time.time()) for number in numbers]
        stands = [queue.find(number) for number in numbers]
    for was, execution in zip(before, stands, strict=True):
        assert execution is not None
        if as_json:
            put_json(execution)
        elif was in JOB_ENDS:
            terminal.note(f"{execution.id} had already ended: {was}")
        else:
            how = "was cancelled" if was == "queued" else "is being cancelled"
            terminal.row(Line("answer", f"{execution.id} {how}"))
