"""How a job is done: by a function, or by a runner whose life is seen to its end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from actors.routing.pool.endings import Outcome
from actors.routing.pool.queue import Claimed
from actors.runtime.children.launcher import Launcher
from actors.runtime.user_folders import make_private
from actors.swarm.agents.inboxes import inbox_of, make_socket_folder
from actors.swarm.agents.projections import Meta, Projections
from actors.swarm.agents.state import AgentState, after
from actors.swarm.runners.base import Answer, Host, Launch, Life, Permission, Runner, StopWaits
from protocol import errors
from protocol.agents import AgentSpec
from protocol.errors import AgentFailed, Failure
from protocol.events import AgentStopped, Event, RunEnd
from protocol.jobs import Job
from protocol.text import encodable
from protocol.usage import Usage

#: Errors of a process that was a pod, or of what owned it.
_DEATHS = frozenset({"PodLost", "ChildLost"})
#: Errors of what a pod is to be made of: who is asked again says the same.
_FOR_GOOD = (
    errors.ManifestError,
    errors.ChainInvalid,
    errors.MissingKey,
    errors.InvalidKey,
    errors.BudgetError,
)


class JobContext:
    """What a function is called with that is a runner: the job, and where and how it is to be done."""

    __slots__ = ("_cost", "_said", "_usage", "attempt", "cwd", "id", "job", "model")

    def __init__(self, job_id: str, job: Job, cwd: Path, model: str | None, attempt: int) -> None:
        self.id, self.job, self.cwd, self.model, self.attempt = job_id, job, cwd, model, attempt
        self._said: str | None = None
        self._usage: Usage | None = None
        self._cost: float | None = None

    def __repr__(self) -> str:
        return f"<JobContext {self.id}>"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def instructions(self) -> str:
        """What is to be done."""
        return self.job.instructions

    @property
    def task(self) -> str:
        """What is to be done, under the name that an agent's function has for it."""
        return self.job.instructions

    async def say(self, text: str, *, usage: Usage | None = None, cost: float | None = None) -> None:
        """An answer, which is the result where the function gives none, and what it took (US dollars)."""
        self._said = text
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage + usage
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost

    def answer(self, given: Any, seconds: float) -> Outcome:
        """What came of the job, where the function gave that."""
        given = self._said if given is None else given
        text = given if given is None or isinstance(given, str) else getattr(given, "text", None)
        if text is None and given is not None:
            words = f"its function returned {type(given).__name__}, which is not a string and has no text"
            return Outcome(kind="failed", seconds=seconds, error=Failure("TypeError", words))
        usage = self._usage or getattr(given, "usage", None)
        cost = getattr(given, "cost", None) if self._cost is None else self._cost
        return Outcome(
            kind="done",
            text=None if text is None else encodable(str(text)),
            usage=usage if isinstance(usage, Usage) else None,  # what others call so is unknown here
            cost=cost if isinstance(cost, int | float) and math.isfinite(cost) else None,
            seconds=seconds,
        )


#: A function that is a runner. It gives the answer: a text, None, or what has a ``text`` and may have
#: ``usage`` and ``cost``, such as a ``RunResult``.
JobFunction = Callable[[JobContext], Awaitable[Any]]


class Worker(Protocol):
    """Does jobs of one runner."""

    async def do(self, claimed: Claimed, cwd: Path) -> Outcome:
        """Do a job. Cancelled, it ends what it has begun and says how far that came."""


class FunctionWorker:
    """Has a function do them."""

    def __init__(self, function: JobFunction) -> None:
        self._function = function

    async def do(self, claimed: Claimed, cwd: Path) -> Outcome:
        """Call the function."""
        model = claimed.model or claimed.job.model
        context = JobContext(claimed.id, claimed.job, cwd, model, claimed.attempts)
        began = time.monotonic()
        try:
            given = await self._function(context)
        except asyncio.CancelledError:
            return Outcome(
                kind="cancelled",
                seconds=time.monotonic() - began,
                error=Failure("Cancelled", "it was cancelled"),
            )
        except Exception as error:  # noqa: BLE001 - it is the job's
            return Outcome(kind="failed", seconds=time.monotonic() - began, error=Failure.of(error))
        return context.answer(given, time.monotonic() - began)


class LifeSettings(Struct, frozen=True):
    """What all runners of a pool are started with. ``folder`` is that of the executions' files."""

    folder: Path
    store: str
    launcher: Callable[[], Launcher]
    env: tuple[str, ...] = ()
    waits: StopWaits = StopWaits()


class LifeWorker:
    """Has a runner start an agent for each, and ends that with its task."""

    def __init__(self, name: str, make: Callable[[Claimed, Path], Runner], settings: LifeSettings) -> None:
        """``make`` gives the runner of a job that is done in a folder. Raises PolypodError."""
        self._name, self._make, self._settings = name, make, settings

    async def do(self, claimed: Claimed, cwd: Path) -> Outcome:
        """Start an agent, and see it to its end."""
        try:
            runner = self._make(claimed, cwd)
            files = self._files(claimed, cwd)
            inbox = inbox_of(self._settings.folder, f"{claimed.id}\0{claimed.attempts}")
            make_socket_folder(inbox.parent)
        except Exception as error:  # noqa: BLE001 - it is the job's
            return Outcome(kind="failed", error=Failure.of(error))
        launch = Launch(
            agent_id=claimed.id,
            cwd=cwd,
            inbox=inbox,
            log=files.folder / "events.jsonl",
            task=claimed.job.instructions,
            model=claimed.model or claimed.job.model,
            env=self._settings.env,
            waits=self._settings.waits,
        )
        attendance = _Attendance(claimed.id, runner.start(launch, _Headless(self._settings)), files)
        try:
            return await attendance.see_to_its_end()
        finally:
            inbox.unlink(missing_ok=True)

    def _files(self, claimed: Claimed, cwd: Path) -> Projections:
        """The files of this attempt, in the place of those of an earlier one. Raises OSError."""
        settings = self._settings
        spec = AgentSpec(
            id=claimed.id,
            task=claimed.job.instructions,
            runner=self._name,
            cwd=str(cwd),
            root=str(settings.folder),
            created_at=claimed.submitted_at,
            model=claimed.model or claimed.job.model,
        )
        make_private(settings.folder)
        files = Projections(
            settings.folder / claimed.id, Meta(agent=spec, session_id=claimed.id, store=settings.store)
        )
        files.rebuild(())
        return files


class _Headless(Host):
    """Nobody can be asked."""

    def __init__(self, settings: LifeSettings) -> None:
        self._settings = settings

    def launcher(self) -> Launcher:
        return self._settings.launcher()

    async def ask(self, permission: Permission, /) -> Answer:
        return Answer(approved=False, note=f"nobody can be asked about {permission.tool} here")


class _Attendance:
    """One life, from its start to its end."""

    def __init__(self, agent_id: str, life: Life, files: Projections) -> None:
        self._id, self._life, self._files = agent_id, life, files
        self._state = AgentState()
        self._ending: asyncio.Task[None] | None = None
        self._cancelled = False
        self._began = time.monotonic()

    async def see_to_its_end(self) -> Outcome:
        reading = asyncio.ensure_future(self._read())
        await self._wait(reading)
        error = reading.exception()
        if error is not None:  # a defect of the runner
            self._end()
        if self._ending is not None:
            await self._wait(self._ending)
            self._ending.cancelled() or self._ending.exception()  # what it says is seen
        if error is not None:
            self._take(self._stopped(Failure.of(error)))
        return self._outcome(error)

    async def _wait(self, task: asyncio.Task[None]) -> None:
        """Wait for the end of ``task``, which a cancellation does not cut short: it ends the life."""
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self._cancelled = True
                self._end()

    async def _read(self) -> None:
        async for event in self._life:
            self._take(event)
            if isinstance(event, RunEnd):  # its task is all that it was started for
                self._end()
        if self._state.ended is None:
            raise AgentFailed("its runner ended without a result", died=True)

    def _take(self, event: Event) -> None:
        self._state = after(self._state, event, self._id)
        self._files.write(event)

    def _stopped(self, failure: Failure) -> AgentStopped:
        return AgentStopped(self._id, "", 0, time.time(), reason="exit", error=failure)

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._life.stop())

    def _outcome(self, error: BaseException | None) -> Outcome:
        state = self._state
        result = state.result()
        why = result.error or (None if state.ended is None else state.ended.error)
        kind: Any = {"done": "done", "killed": "cancelled"}.get(result.status, "failed")
        if kind == "done":
            pass
        elif self._cancelled:
            kind, why = "cancelled", Failure("Cancelled", "it was cancelled")
        elif error is not None or self._has_died(why):
            kind = "died"
        how = Failure("AgentFailed", f"its task ended as {state.outcome}")
        seconds = result.seconds if result.seconds is not None else time.monotonic() - self._began
        text = encodable(result.text) if result.text or kind == "done" else None
        return Outcome(
            kind=kind,
            text=text,
            model=state.model,
            usage=result.usage,
            cost=result.cost,
            seconds=seconds,
            error=None if kind == "done" else why or how,
        )

    def _has_died(self, why: Failure | None) -> bool:
        """Whether its program ended without a word about the task, or never was up."""
        ended = self._state.ended
        if why is not None and _is_for_good(why):
            return False
        killed = ended is not None and ended.reason == "killed"
        of_death = why is not None and (why.kind in _DEATHS or bool(why.details.get("died")))
        return killed or of_death or not self._state.lives


def _is_for_good(why: Failure) -> bool:
    kind = getattr(errors, why.kind, None)
    return isinstance(kind, type) and issubclass(kind, _FOR_GOOD)
