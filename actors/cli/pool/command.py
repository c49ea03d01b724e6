"""``polypod pool``: queues jobs, does them, lists, shows, cancels and forgets them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from actors.cli import options
from actors.cli.display.help_format import Commands
from actors.cli.errors import FAILED, Exit
from actors.cli.pods.manifest import Wishes
from protocol.jobs import Job, JobStatus, OnLost, Workspace

_STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)


def _of_a_queue(command: Any) -> Any:
    return options.as_json(options.store(command))


@click.group(cls=Commands, short_help="Queue jobs, and do them with bounded runners.")
def pool() -> None:
    """Jobs in a queue that outlives processes, and runners that each do several at once.

    JOB is an id, as `polypod pool add` prints it, or its number.
    """


@pool.command(short_help="Queue a job.")
@click.argument("name")
@click.argument("instructions")
@click.option("--agent", help="The runner that is to do it  [default: the pool chooses]")
@click.option("--priority", type=int, default=0, show_default=True, help="A higher one starts first.")
@click.option("--model", help="A model of that runner  [default: its own]")
@click.option(
    "--cwd", metavar="DIR", type=click.Path(path_type=Path), help="Where it is done  [default: here]"
)
@click.option(
    "--workspace",
    type=click.Choice(get_args(Workspace)),
    help=(
        "worktree: in a git worktree of its own, whose branch keeps what was done  [default: what [pool] "
        "sets]"
    ),
)
@click.option(
    "--on-lost",
    type=click.Choice(get_args(OnLost)),
    default="requeue",
    show_default=True,
    help="What becomes of it if the process that works on it dies.",
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
    from actors.cli.pool.jobs import add_job, folder_of  # noqa: PLC0415 - paid for by who has jobs

    text = sys.stdin.read() if instructions == "-" else instructions
    job = Job(instructions=text, cwd=str(folder_of(cwd)), **wanted)
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
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
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
    """Show JOB: its instructions, how it stands or ended, and what it changed."""
    from actors.cli.pool.jobs import show_job  # noqa: PLC0415 - as above

    show_job(store, job, log=log, as_json=as_json)


@pool.command(short_help="Cancel jobs that wait or run.")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@_of_a_queue
def cancel(jobs: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Cancel each JOB: one that waits ends at once, one that runs is ended by the process that does it."""
    from actors.cli.pool.jobs import cancel_jobs  # noqa: PLC0415 - as above

    cancel_jobs(store, jobs, as_json=as_json)


@pool.command(short_help="Forget jobs that ended long ago.")
@click.option("--older-than", metavar="AGE", required=True, help="What ended so long ago, like 30d or 12h.")
@click.option("--dry-run", is_flag=True, help="List what would go, and forget nothing.")
@_of_a_queue
def gc(older_than: str, dry_run: bool, store: str | None, as_json: bool) -> None:
    """Forget jobs that ended long ago, with their logs; never their branches."""
    from actors.cli.ages import age_of  # noqa: PLC0415 - as above
    from actors.cli.pool.jobs import forget_jobs  # noqa: PLC0415 - as above

    forget_jobs(store, age_of(older_than), dry_run=dry_run, as_json=as_json)


@pool.command(short_help="Do the jobs of the queue, until none is left.")
@click.option(
    "--runner",
    "runners",
    metavar="NAME[=COMMAND]",
    multiple=True,
    help="Who does jobs: claude, codex, gemini, local, acp:COMMAND, pod, process, or a name of yours and the "
    "command of its program; may be repeated  [default: as [pool] says]",
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=N",
    multiple=True,
    help="How many jobs a runner has at once; may be repeated  [default: as [pool] says, else 4]",
)
@click.option("--forever", is_flag=True, help="Wait for more once none is left, until Ctrl-C.")
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
    """Do the jobs of the queue with bounded runners, until none is left; several may do so at once.

    A manifest, a model and folders are those of the runners pod and process. After Ctrl-C, unfinished jobs
    stay in the queue. The exit code is 1 if a job failed meanwhile.
    """
    from actors.cli.pool.working import limit_named, runner_named, work_off  # noqa: PLC0415 - as above

    named, bounds = dict(map(runner_named, runners)), dict(map(limit_named, limits))
    wishes = Wishes(manifest, None, model, base_url, allow)
    if work_off(store, named, bounds, wishes, forever=forever, as_json=as_json):
        raise Exit(FAILED)
