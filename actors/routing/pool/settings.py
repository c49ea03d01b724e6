"""What a pool is made of, checked: its runners, their limits, and its jobs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct
from msgspec.structs import replace

from actors.routing.pool.placing import placed
from actors.routing.pool.queue import Claimed
from actors.routing.pool.work import FunctionWorker, JobFunction, LifeSettings, LifeWorker, Worker
from actors.runtime.arguments import several
from actors.swarm.agents.home import Home
from actors.swarm.agents.pod_runner import Given, PodRunner
from actors.swarm.runners.base import Runner
from actors.swarm.runners.configured import configured_runner
from actors.swarm.runners.named import runner_of
from protocol.config import RunnerSection
from protocol.errors import PoolError
from protocol.foreign import shown
from protocol.jobs import Job, OnLost, Workspace
from protocol.manifest import PodManifest
from protocol.text import encodable

#: Jobs that a runner has at once where nothing is said.
LIMIT = 4
_MOST = 2**31
_PODS = ("pod", "process")


class PodWork(Struct, frozen=True, eq=False):
    """Pods as a runner: each job is a run of a new pod; see ``pod_runner``."""

    manifest: PodManifest
    given: Given = Given()
    process: bool = False


#: What may stand for a runner: a Runner, a name or a command as ``Swarm.start`` takes it, an async function
#: that is called with a JobContext, or the manifest of pods.
PoolRunner = Runner | str | Sequence[str] | JobFunction | PodManifest | PodWork


def pod_runner(
    manifest: PodManifest,
    *,
    client: Any = None,
    tools: Iterable[Any] = (),
    hooks: Iterable[Any] = (),
    deps: Any = None,
    output: Any = None,
    process: bool = False,
) -> PodWork:
    """Pods as a runner of a pool: each job is one run of a new pod, made of these as by ``spawn``. With
    ``output`` the answer is of that type, as that of ``Pod.run``, and ``Execution.result`` is its JSON.
    Raises InvalidInput for tools and hooks that are not lists.
    """
    return PodWork(
        manifest, Given(client, several("tools", tools), several("hooks", hooks), deps, output), process
    )


def workers_of(
    runners: Mapping[str, Any],
    home: Home,
    settings: LifeSettings,
    cwd: Path,
    sections: Iterable[RunnerSection] | None = None,
) -> dict[str, Worker]:
    """What does the jobs of each runner; without ``sections`` the configuration of ``cwd`` says what is
    otherwise with them. Raises PoolError, UnknownRunner, ConfigError.
    """

    def found(spec: Any) -> Runner:
        return configured_runner(spec, cwd) if sections is None else runner_of(spec, tuple(sections))

    return {_named(name): _worker(name, each, home, settings, found) for name, each in runners.items()}


def _named(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or encodable(name) != name:
        raise PoolError(
            f"{shown(name)} is not a valid name for a runner",
            hint="in runners={name: runner} the names must be strings",
        )
    return name


def _worker(
    name: str, runner: Any, home: Home, settings: LifeSettings, found: Callable[[Any], Runner]
) -> Worker:
    if isinstance(runner, str) and runner in _PODS:
        runner = PodWork(PodManifest.of(), process=runner == "process")
    if isinstance(runner, PodManifest):
        runner = PodWork(runner)
    if isinstance(runner, PodWork):
        work = runner
        return LifeWorker(name, lambda claimed, cwd: _pod_runner(home, work, claimed, cwd), settings)
    if _is_function(runner):
        return FunctionWorker(runner)
    if isinstance(runner, str | Sequence) or hasattr(runner, "start"):
        made = found(runner) if isinstance(runner, str | Sequence) else runner
        return LifeWorker(name, lambda *_: made, settings)
    raise PoolError(
        f"runner {shown(name)}: {shown(runner)} is not a runner",
        hint="use a Runner, the name or the command of one, an async function, or a PodManifest",
    )


def _is_function(runner: Any) -> bool:
    """Whether it is an async function, or an object that is called like one."""
    if inspect.iscoroutinefunction(runner):
        return True
    call = getattr(runner, "__call__", None)  # noqa: B004 - of an object
    return not isinstance(runner, type) and inspect.iscoroutinefunction(call)


def _pod_runner(home: Home, work: PodWork, claimed: Claimed, cwd: Path) -> Runner:
    """Raises ManifestError."""
    manifest = placed(work.manifest, claimed.job, cwd)
    model = claimed.model or claimed.job.model
    if model is not None:
        manifest = replace(manifest, model=PodManifest.of(model=model).model)
    return PodRunner(home, manifest, work.given, process=work.process)


def limits_of(runners: Iterable[str], limits: Mapping[str, int]) -> dict[str, int]:
    """How many jobs each runner has at once. Raises PoolError."""
    names = list(runners)
    for name, limit in limits.items():
        if name not in names:
            raise PoolError(
                f"limits names {shown(name)}, which is not a runner of the pool",
                hint=f"its runners are {', '.join(names) or 'none'}",
            )
        if not _is_number(limit) or not 0 < limit < _MOST:
            raise PoolError(
                f"limits[{shown(name)}] is {shown(limit)}",
                hint=f"a limit must be a number of jobs, 1 or more, and below {_MOST}",
            )
    return {name: limits.get(name, LIMIT) for name in names}


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def checked(job: Job) -> Job:
    """A job that can be queued. Raises PoolError."""
    if not isinstance(job, Job):
        raise PoolError(f"{shown(job)} is not a Job", hint='as in submit(Job("name", "what to do"))')
    for field in ("name", "instructions", "agent", "model", "cwd"):
        value: object = getattr(job, field)
        if not isinstance(value, str) and (value is not None or field in {"name", "instructions"}):
            raise PoolError(f"the {field} of a job must be a string, not {shown(value)}")
    if not job.name.strip() or not job.instructions.strip():
        named = job.name.strip()
        which = f"the job {job.name!r} has no instructions" if named else "the job has no name"
        raise PoolError(
            which, hint="say what to do" if named else "choose a short one: its id begins with it"
        )
    if not _is_number(job.priority):
        raise PoolError(f"the priority of a job must be an integer, not {shown(job.priority)}")
    if abs(job.priority) >= _MOST:
        raise PoolError(f"the priority {shown(job.priority)} is out of range", hint=f"stay below {_MOST}")
    for field, allowed in (("workspace", get_args(Workspace)), ("on_lost", get_args(OnLost))):
        if getattr(job, field) not in allowed:
            raise PoolError(
                f"the {field} of a job must be {' or '.join(allowed)}, not {shown(getattr(job, field))}"
            )
    texts = (job.name, job.instructions, job.agent, job.model, job.cwd)
    if all(text is None or text.isascii() for text in texts):
        return job
    name, instructions, agent, model, cwd = (text if text is None else encodable(text) for text in texts)
    return replace(job, name=name, instructions=instructions, agent=agent, model=model, cwd=cwd)
