"""``Swarm``: the agents of one folder: starts, finds and lists them, and makes sure that each has one end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actors.runtime.arguments import path_of, several, table_of, text_of
from actors.runtime.closing import Closing
from actors.runtime.on_loop import ask_on
from actors.runtime.user_folders import state_path
from actors.sessions.answers import settled
from actors.swarm.agents.agent import Agent
from actors.swarm.agents.find import Found, find_agents
from actors.swarm.agents.history import POD_RUNNERS, pod_chain, pod_sessions_of, read_history
from actors.swarm.agents.home import home_of
from actors.swarm.agents.ids import find_id, first_number, next_number, slug_of
from actors.swarm.agents.inboxes import inbox_of
from actors.swarm.agents.keeper import Keeper
from actors.swarm.agents.pod_runner import Given, pod_manifest
from actors.swarm.agents.projections import Meta, Projections, make_folders, reserve_folder
from actors.swarm.agents.record import Record
from actors.swarm.agents.runner_choice import RunnerChoice
from actors.swarm.agents.spawned import SpawnedAgents
from actors.swarm.agents.takeover import Takeover
from actors.swarm.runners.base import Answer, Runner, RunnerSpec, stop_waits
from actors.swarm.spawner import check_manifest
from protocol.agents import AgentResult, AgentSpec, opening_of
from protocol.config import RunnerSection
from protocol.errors import (
    AgentError,
    ConfigError,
    SessionCorrupt,
    SessionInUse,
    SessionNotFound,
    SystemNotRunning,
    WireError,
)
from protocol.events import (
    ApprovalRequested,
)
from protocol.manifest import PodManifest, RestartSection
from protocol.text import is_encodable

if TYPE_CHECKING:
    from actors.runtime.future import AsyncFuture

T = TypeVar("T")
_GIVEN = frozenset(Given.__struct_fields__) - {"budget"}


class Swarm(Closing):
    """Agents, kept in a folder (``root``, by default one in the user's state folder) and in the store of an
    entered system.

    They end with that system; earlier ones that are found there can be resumed. ``runners`` are settings of
    runners, and runners of your own, as in ``[[runner]]``; without it they are those of the ``polypod.toml``
    that applies where an agent works. ``spawn`` are options of ``start`` for agents that models start with
    the tool ``swarm_spawn``: by default these are pods like the one that starts them. ``env`` names further
    variables of our environment that foreign programs may have, ``request_wait`` and ``term_wait`` are how
    many seconds a program has to end once it is asked to, and after TERM.
    """

    def __init__(
        self,
        system: Any,
        root: str | Path | None = None,
        *,
        runners: Iterable[RunnerSection | Mapping[str, Any]] | None = None,
        spawn: Mapping[str, Any] | None = None,
        env: Iterable[str] = (),
        request_wait: float = 1.0,
        term_wait: float = 2.0,
    ) -> None:
        self.home = home_of(system)
        self.root = (state_path() / "swarm" if root is None else path_of("root", root)).resolve()
        self._runners = RunnerChoice(self.home, None if runners is None else several("runners", runners))
        self._takeover = Takeover(self.home.store, self._runners)
        self._env = several("env", env)
        options = {} if spawn is None else table_of("spawn", spawn)
        self._waits = stop_waits(request_wait, term_wait)
        self._keepers: dict[str, Keeper] = {}
        #: What was found in the folder and is not an agent's, or of another store.
        self._strange: list[str] = []
        self._closing = False
        self._opening: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self.home.protect(self.root)
        self.home.close_first(self)
        self._spawned = SpawnedAgents(self, options)
        self.home.offer_agents(self._spawned.spawn)

    def __repr__(self) -> str:
        return f"<Swarm {self.root}, {len(self._keepers)} agents>"

    @property
    def problems(self) -> list[str]:
        """Unsolved problems: folders without an agent, agents that cannot be read, pods whose reports wait
        for the store.
        """
        damaged = [
            f"{each.spec.id}: {each.journal.damage}" for each in self._keepers.values() if each.journal.damage
        ]
        return [*self._strange, *damaged, *self._spawned.problems]

    def _ask(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> AsyncFuture[T]:
        return ask_on(self.home.mailroom, ask)

    # -- agents --------------------------------------------------------------------------------------

    def start(
        self,
        task: str,
        runner: RunnerSpec | Callable[..., Any] = "pod",
        *,
        name: str | None = None,
        cwd: str | Path | None = None,
        model: str | None = None,
        provider: str | None = None,
        keep: bool = False,
        restart: RestartSection | Mapping[str, Any] | None = None,
        manifest: PodManifest | None = None,
        client: Any = None,
        tools: Iterable[Any] = (),
        hooks: Iterable[Any] = (),
        deps: Any = None,
        starter: str | None = None,
    ) -> AsyncFuture[Agent]:
        """Start an agent with a task; the future gives its handle once it is recorded.

        ``runner`` is ``"pod"`` (a pod of this system), ``"process"`` (one in a child process), a name such as
        ``"claude"`` or ``"local"``, the command of a program that speaks our lines, a Runner, or an async
        function. ``name`` is what its id begins with. ``restart`` says whether it is restarted when it fails,
        as ``[restart]`` of a manifest does. A pod is made from ``manifest``, ``client``, ``tools``, ``hooks``
        and ``deps`` as by ``PodSystem.spawn``. ``starter`` is the session of the pod whose model starts it,
        and which gets its report. Raises AgentError, UnknownRunner, ConfigError, SystemNotRunning,
        StoreError, and InvalidInput for an argument of the wrong type.
        """
        task = _task_of(task)
        texts = {"name": name, "model": model, "provider": provider, "starter": starter}
        asked = {what: None if given is None else text_of(what, given) for what, given in texts.items()}
        if manifest is not None:
            check_manifest(manifest)
        given = Given(client, several("tools", tools), several("hooks", hooks), deps)
        return self._ask(
            lambda: self._start(
                task,
                runner,
                asked["name"],
                path_of("cwd", "." if cwd is None else cwd).resolve(),
                manifest,
                given,
                model=asked["model"],
                provider=asked["provider"],
                keep=keep,
                restart=_restart_of(restart, manifest),
                starter=asked["starter"],
            )
        )

    async def _start(
        self,
        task: str,
        runner: RunnerSpec | Callable[..., Any],
        name: str | None,
        cwd: Path,
        manifest: PodManifest | None,
        given: Given,
        **asked: Any,
    ) -> Agent:
        await self._open()
        if not cwd.is_dir():  # noqa: ASYNC240 - takes microseconds
            raise AgentError(f"there is no directory {cwd}", hint="set cwd= to the agent's working directory")
        if not is_encodable(str(cwd)):
            raise AgentError(f"no agent can work in {cwd}: its name is not UTF-8", hint="rename it")
        model, provider = asked["model"], asked["provider"]
        if asked["keep"]:
            runner = self._runners.kept(runner, manifest, given)
        made, label = self._runners.of(runner, pod_manifest(manifest, cwd, model, provider), given, cwd)
        agent_id, held = await self._reserve_id(slug_of(name or task))
        spec = AgentSpec(
            id=agent_id,
            task=task,
            runner=label,
            cwd=str(cwd),
            root=str(self.root),
            created_at=time.time(),
            has_objects=not given.is_empty or not (label == runner or isinstance(runner, list | tuple)),
            **asked,
        )
        try:
            record = Record(self.home.store, agent_id, self.home.bus.publish)
            await record.create(opening_of(spec))
        except BaseException:
            self._forget(agent_id)
            raise
        finally:
            os.close(held)
        keeper = self._keep(spec, record.session_id, made)
        keeper.journal.begin(record)
        keeper.journal.projections.write_meta()
        keeper.begin(task, resuming=False)
        return Agent(self, keeper)

    async def _reserve_id(self, slug: str) -> tuple[str, int]:
        """An id that no agent, pod or session has, in whatever process; it is ours from here on. With it a
        descriptor that holds its folder. Raises AgentError where the folder cannot be made.
        """
        number, store = first_number(), self.home.store
        try:
            agents = make_folders(self.root)
            while True:
                agent_id, number = f"{slug}-{number}", next_number(number)
                if not self.home.roster.is_free(agent_id):
                    continue
                if (held := reserve_folder(agents, agent_id)) is None:
                    continue
                taken = True
                try:
                    taken = bool(await settled(store.sessions(pod=agent_id)))  # asks the index alone
                finally:
                    if taken:
                        with contextlib.suppress(OSError):
                            (agents / agent_id).rmdir()
                        os.close(held)
                if not taken:
                    self.home.roster.reserved.add(agent_id)
                    return agent_id, held
        except OSError as error:
            raise AgentError(
                f"cannot write the agents' folder {self.root}: {error.strerror}",
                hint="choose another folder with root=",
            ) from error

    def _keep(self, spec: AgentSpec, session_id: str, runner: Runner | None) -> Keeper:
        meta = Meta(agent=spec, session_id=session_id, store=self.home.store.url)
        projections = Projections(self.root / "agents" / spec.id, meta)
        keeper = self._keepers[spec.id] = Keeper(
            self.home,
            spec,
            session_id,
            projections,
            runner,
            inbox=inbox_of(self.root, spec.id),
            waits=self._waits,
            env=self._env,
        )
        self.home.roster.reserved.add(spec.id)
        return keeper

    def _forget(self, agent_id: str) -> None:
        self._keepers.pop(agent_id, None)
        self.home.roster.reserved.discard(agent_id)
        with contextlib.suppress(OSError):
            (self.root / "agents" / agent_id).rmdir()

    def agents(self) -> AsyncFuture[list[Agent]]:
        """All existing agents, newest first, including those of other processes on the same folder."""
        return self._ask(self._list)

    async def _list(self) -> list[Agent]:
        await self._look()
        keepers = sorted(self._keepers.values(), key=lambda each: (-each.spec.created_at, each.spec.id))
        return [Agent(self, each) for each in keepers]

    def get(self, beginning: str) -> AsyncFuture[Agent]:
        """The one agent whose id begins with the text. Raises UnknownAgent if there is none, or several."""
        beginning = text_of("beginning", beginning)

        async def find() -> Agent:
            await self._look()
            return Agent(self, self._keepers[find_id(beginning, self._keepers)])

        return self._ask(find)

    def has_living(self) -> bool:
        """Whether this process looks after any living agent. Called on the loop of the system."""
        return any(keeper.is_ours for keeper in self._keepers.values())

    def approvals(self) -> AsyncFuture[list[ApprovalRequested]]:
        """What agents wait for a person to approve, oldest first."""

        async def collect() -> list[ApprovalRequested]:
            ours = [keeper for keeper in self._keepers.values() if keeper.is_ours]
            asked = [each for keeper in ours for each in keeper.state.asks]
            return sorted(asked, key=lambda each: each.at)

        return self._ask(collect)

    # -- what handles ask ----------------------------------------------------------------------------

    async def result_of(self, agent: Agent) -> AgentResult:
        """As ``Agent.wait``; a task that was done stays so though its agent's supervisor has died since."""
        keeper = self._keepers[agent.id]
        await keeper.wait()
        return keeper.state.task_result()

    async def started_by(self, sessions: Collection[str]) -> list[Agent]:
        """The agents that models have started in these sessions, the oldest first, but for those that another
        process looks after. Raises StoreError.
        """
        wanted = several("sessions", sessions)
        await self._look()
        found = [each for each in self._keepers.values() if each.spec.starter in wanted]
        found.sort(key=lambda each: (each.spec.created_at, each.spec.id))
        return [Agent(self, each) for each in found if not each.is_elsewhere]

    async def retire_agent(self, agent: Agent) -> None:
        """End an idle agent as its task ended, because whoever started it has no other for it."""
        await self._keepers[agent.id].retire()

    async def stop_agent(self, keeper: Keeper) -> None:
        """As ``Agent.stop``."""
        await self._open()
        await keeper.stop()

    async def resume_agent(self, keeper: Keeper, runner: RunnerSpec | None, given: Mapping[str, Any]) -> None:
        """As ``Agent.resume``."""
        await self._look_at(keeper)
        if strange := given.keys() - _GIVEN:
            raise TypeError(f"resume() does not know {', '.join(sorted(strange))}")
        if runner is not None or given or keeper.runner is None:
            keeper.check_ended("is still running", hint="stop it first")
            keeper.runner = self._runners.again(keeper, runner, given)
        await keeper.resume()

    async def remove_agent(self, keeper: Keeper) -> None:
        """As ``Agent.remove``."""
        await self._look_at(keeper)
        async with keeper.unchanging():
            if not keeper.removed:
                keeper.check_ended("still running", hint="stop it first")
                await self._remove(keeper)

    async def _remove(self, keeper: Keeper) -> None:
        """Raises SessionError."""
        store = self.home.store
        sessions = [keeper.journal.session_id]
        with contextlib.suppress(SessionNotFound, SessionCorrupt, WireError):  # damaged
            history = await read_history(store, keeper.journal.session_id, keeper.spec.id)
            for each in pod_sessions_of(history):
                sessions += await pod_chain(store, each)
        for session_id in reversed(sessions):  # its own last: until then it can be removed again
            with contextlib.suppress(SessionNotFound):
                await settled(store.delete(session_id))
        self._drop(keeper)

    def _drop(self, keeper: Keeper) -> None:
        """Forget an agent whose session is gone."""
        keeper.removed = True
        keeper.journal.projections.remove()
        self._forget(keeper.spec.id)

    async def answer_agent(self, keeper: Keeper, approval_id: str, answer: Answer) -> None:
        """As ``Agent.approve`` and ``Agent.deny``."""
        if any(each.approval_id == approval_id for each in keeper.approvals.open) or keeper.pod is None:
            await keeper.approvals.answer(approval_id, keeper.journal.session_id, answer)
            return
        system = self.home.system
        if answer.approved:
            said = {"always": answer.always, "arguments": answer.arguments, "note": answer.note}
            await system.approve(approval_id, **said)
        else:
            await system.deny(approval_id, note=answer.note)

    # -- what is there -------------------------------------------------------------------------------

    def open(self) -> AsyncFuture[None]:
        """Look for the agents that there are, and record the end of those whose supervisor died. Done with
        the first thing that is asked of a swarm.
        """
        return self._ask(self._open)

    async def _open(self) -> None:
        if self._closing:
            raise SystemNotRunning("the swarm is closed", hint="create one in an entered system")
        if self._opening is None or _has_failed(self._opening):
            self._opening = self.home.mailroom.loop.create_task(self._look_around(first=True))
        await asyncio.shield(self._opening)

    async def _look(self) -> None:
        """Look for the agents that there are, and for what other processes have done since the last look."""
        first = self._opening is None
        await self._open()
        if not first:
            await self._look_around()

    async def _look_at(self, keeper: Keeper) -> None:
        """See how one agent stands."""
        await self._open()
        async with self._looking:
            if not (keeper.is_ours or keeper.removed):
                await self._refresh(keeper)

    async def _look_around(self, *, first: bool = False) -> None:
        async with self._looking:
            store, known = self.home.store, self.home.roster.reserved
            found, self._strange = await find_agents(store, self.root, known, by_sessions=first)
            for keeper in list(self._keepers.values()):
                if not keeper.is_ours:
                    await self._refresh(keeper)
            for each in found:
                if each.spec.id not in known:  # else it was started meanwhile
                    await self._take_in(each)

    async def _take_in(self, found: Found) -> None:
        spec = found.spec
        keeper = self._keep(spec, found.session_id, None)
        if spec.runner not in POD_RUNNERS:
            with contextlib.suppress(ConfigError):  # said to who resumes it
                keeper.runner = self._runners.again(keeper)
        await self._refresh(keeper, anew=True)

    async def _refresh(self, keeper: Keeper, *, anew: bool = False) -> None:
        """See how an agent stands that is not ours."""
        try:
            await self._takeover.refresh(keeper, anew=anew)
        except SessionNotFound:  # another process has removed it
            self._drop(keeper)
        except SessionInUse:
            keeper.is_elsewhere = True
        except (WireError, SessionCorrupt) as error:
            keeper.note_damage(error)

    # -- its end -------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End all agents, the last started first, but for those that are kept; idempotent."""
        self._closing = True
        self._spawned.close()
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        living = [each for each in reversed(self._keepers.values()) if each.is_ours]
        await asyncio.gather(*(each.leave() for each in living), return_exceptions=True)
        for each in self._keepers:
            self.home.roster.reserved.discard(each)


def _task_of(given: object) -> str:
    """Raises AgentError for what is not a task."""
    task = text_of("task", given)
    if not task.strip():
        raise AgentError("an agent needs a task", hint="say what to do")
    return task


def _restart_of(
    restart: RestartSection | Mapping[str, Any] | None, manifest: PodManifest | None
) -> RestartSection:
    """The restart section asked for, else the manifest's. Raises ManifestError."""
    if restart is None:
        return RestartSection() if manifest is None else manifest.restart
    if isinstance(restart, RestartSection):
        return restart
    return PodManifest.of(restart=table_of("restart", restart)).restart


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
