"""``polypod pool``: queues jobs, does them, lists, shows, cancels and forgets them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from actors.cli import options
from actors.cli.display.help_format import Commands
from actors.cli.errors import FAILED, Exit
from actors.cli.places import working_folder
from actors.cli.pods.manifest import Wishes
from protocol.jobs import Job, JobStatus, OnLost, Workspace

_STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)


def _of_a_queue(command: Any) -> Any:
    return options.as_json(options.store(command))


@click.group(cls=Commands)
def pool() -> None:
    """Manage a durable queue of jobs, and runners that each run several at once.

    JOB is an id, as `polypod pool add` prints it, the beginning of one that fits no other job, or a number.
    """


@pool.command(short_help="Queue a job.")
@click.argument("name")
@click.argument("instructions")
@click.option("--agent", help="The runner for the job  [default: the pool chooses]")
@click.option(
    "--priority", type=int, default=0, show_default=True, help="Jobs of a higher priority start first."
)
@click.option("--model", help="A model of that runner  [default: its own]")
@click.option(
    "--cwd",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Its working directory  [default: the current one]",
)
@click.option(
    "--workspace",
    type=click.Choice(get_args(Workspace)),
    help=("worktree: in its own git worktree, whose branch keeps the changes  [default: what [pool] sets]"),
)
@click.option(
    "--on-lost",
    type=click.Choice(get_args(OnLost)),
    default="requeue",
    show_default=True,
    help="What happens to the job if the process that runs it dies.",
)
@_of_a_queue
def add(
    instructions: str,
    cwd: Path | None,
    workspace: Workspace | None,
    store: str | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Queue a job called NAME and print its id; - reads the INSTRUCTIONS from standard input."""
    from actors.cli.pool.jobs import add_job  # noqa: PLC0415 - paid for by who has jobs

    text = sys.stdin.read() if instructions == "-" else instructions
    job = Job(instructions=text, cwd=str(working_folder(cwd)), **wanted)
    add_job(store, job, workspace, as_json=as_json)


@pool.command("ls", short_help="List the jobs, the last submitted first.")
@click.option(
    "--status",
    "statuses",
    metavar="STATUS",
    multiple=True,
    type=click.Choice(_STATUSES),
    help=f"Only those that are {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}; may be repeated.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="The maximum number of jobs."
)
@_of_a_queue
def list_jobs(statuses: tuple[JobStatus, ...], limit: int, store: str | None, as_json: bool) -> None:
    """List the jobs, the last submitted first, and how many there are of each status."""
    from actors.cli.pool.jobs import list_jobs as list_  # noqa: PLC0415 - as above

    list_(store, statuses or _STATUSES, limit, as_json=as_json)


@pool.command(short_help="Show a job: its instructions, how it ended, what it changed.")
@click.argument("job")
@click.option("--log", is_flag=True, help="Print its stdout.log instead, in the lines of Claude Code.")
@_of_a_queue
def show(job: str, log: bool, store: str | None, as_json: bool) -> None:
    """Show JOB: its instructions, its status or how it ended, and what it changed."""
    from actors.cli.pool.jobs import show_job  # noqa: PLC0415 - as above

    show_job(store, job, log=log, as_json=as_json)


@pool.command(short_help="Cancel jobs that wait or run.")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@_of_a_queue
def cancel(jobs: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Cancel each JOB: a waiting one ends at once, a running one is ended by the process that runs it."""
    from actors.cli.pool.jobs import cancel_jobs  # noqa: PLC0415 - as above

    cancel_jobs(store, jobs, as_json=as_json)


@pool.command(short_help="Delete the records of jobs that ended long ago.")
@click.option(
    "--older-than", metavar="AGE", required=True, help="Jobs that ended this long ago, like 30d or 12h."
)
@click.option("--dry-run", is_flag=True, help="List what would be deleted, and delete nothing.")
@_of_a_queue
def gc(older_than: str, dry_run: bool, store: str | None, as_json: bool) -> None:
    """Delete the records and logs of jobs that ended long ago, but never their branches."""
    from actors.cli.ages import age_of  # noqa: PLC0415 - as above
    from actors.cli.pool.jobs import forget_jobs  # noqa: PLC0415 - as above

    forget_jobs(store, age_of(older_than), dry_run=dry_run, as_json=as_json)


@pool.command(short_help="Run the jobs of the queue until none is left.")
@click.option(
    "--runner",
    "runners",
    metavar="NAME[=COMMAND]",
    multiple=True,
    help="A runner for the jobs: claude, codex, gemini, local, acp:COMMAND, pod, process, or "
    "your own NAME=COMMAND; may be repeated  [default: what [pool] sets]",
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=N",
    multiple=True,
    help="How many jobs a runner may run at once; may be repeated  [default: what [pool] sets, else 4]",
)
@click.option("--forever", is_flag=True, help="Wait for more jobs when none is left, until Ctrl-C.")
@options.manifest
@options.model
@options.base_url
@options.allow
@_of_a_queue
def run(
    runners: tuple[str, ...],
    limits: tuple[str, ...],
    forever: bool,
    manifest: Path | None,
    model: str | None,
    base_url: str | None,
    allow: tuple[Path, ...],
    store: str | None,
    as_json: bool,
) -> None:
    """Run the jobs of the queue with a limited number of runners until none is left; several such commands
    may run at once.

    The options for manifest, model and folders apply to the runners pod and process. After Ctrl-C, unfinished
    jobs stay in the queue. The exit code is 1 if a job failed.
    """
    from actors.cli.pool.working import limit_named, runner_named, work_off  # noqa: PLC0415 - as above

    named, bounds = dict(map(runner_named, runners)), dict(map(limit_named, limits))
    wishes = Wishes(manifest, None, model, base_url, allow)
    if work_off(store, named, bounds, wishes, forever=forever, as_json=as_json):
        raise Exit(FAILED)
