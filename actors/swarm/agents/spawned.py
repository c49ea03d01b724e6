"""``SpawnedAgents``: agents that models start, and the one report that each pod gets on those it started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from actors.pod.notify_soon import notify
from actors.runtime.arguments import path_of
from actors.swarm.agents.agent import Agent
from actors.swarm.agents.pod_runner import Given, PodRunner, pod_manifest
from actors.swarm.agents.reports import report_of, reported_in, sessions_of
from protocol.agents import AgentResult
from protocol.errors import PolypodError, ToolError
from protocol.events import Lagged, PodStarted
from protocol.manifest import PodManifest

if TYPE_CHECKING:
    from actors.pod.accounts.budget import Budget
    from actors.pod.pod import PodActor
    from actors.swarm.agents.swarm import Swarm

#: Agents of one pod that may be at work at once.
_MOST = 16
#: Seconds after which a store is asked again that could not say which agents a pod has started.
_AGAIN = 0.5
#: Tools that start agents, and all that start others: agents that a model starts have none of them.
_STARTING = frozenset({"agents", "swarm_spawn"})
_STARTERS = _STARTING | frozenset({"pods", "spawn_pod", "send_to_pod", "stop_pod"})


class _Spawned(Struct, eq=False):
    agent: Agent
    result: AgentResult | None = None


class _Started(Struct, eq=False):
    """The agents that a pod has started, with its session and those that it was compacted from; without any
    where that is not known.
    """

    pod: str
    sessions: set[str]
    agents: list[_Spawned]

    def is_of(self, pod: str, sessions: Collection[str]) -> bool:
        """Whether a pod with these sessions is the same, whatever it is called: another may have its name."""
        return not self.sessions.isdisjoint(sessions) if sessions else self.pod == pod and not self.sessions


class SpawnedAgents:
    """What pods of a system have started by ``swarm_spawn``. Their lifetime is the swarm's, not the call's.

    ``options`` are those of ``Swarm.start``; without them an agent is a pod like the one that starts it.
    Each agent's first entry names the session of who has started it: a pod that goes on in that session gets
    the report of those that its history does not report yet.
    """

    def __init__(self, swarm: Swarm, options: Mapping[str, Any]) -> None:
        self._swarm = swarm
        self._options = dict(options)
        #: What was reported is forgotten.
        self._all: list[_Started] = []
        #: The ids of those whose report is being given.
        self._reporting: set[str] = set()
        #: Held from an agent's start until it is in ``_all``, so that nobody takes it for an earlier life's.
        self._adding = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        #: The pods that cannot be taken up for now, and why; and what tries it again.
        self._failing: dict[str, str] = {}
        self._trying: set[asyncio.Task[None]] = set()
        self._started = swarm.home.bus.subscribe(kinds=[PodStarted])
        swarm.home.mailroom.post(lambda _: self._begin(self._take_up_all()))

    @property
    def problems(self) -> list[str]:
        """Which pods' agents cannot be found for now."""
        return [f"the agents that pod {pod!r} started: {why}" for pod, why in self._failing.items()]

    def close(self) -> None:
        """Take up no more pods."""
        self._started.close()
        for task in self._trying:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._swarm.home.mailroom.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what models start -------------------------------------------------------------------------

    async def spawn(self, pod: str, task: str, model: str | None, provider: str | None) -> str:
        """Start an agent for a pod. Raises ToolError, whose words are for the model."""
        budget = self._budget_of(pod)
        if budget is not None and (exceeded := budget.exceeded()) is not None:
            raise ToolError(f"another agent would exceed {exceeded}")
        position = self._swarm.home.roster.position(pod)
        starter = None if position is None else position[0]
        try:
            given = self._given(pod, model, provider)
            if given.get("runner", "pod") == "pod":
                given = self._drawing_on(budget, given)
            async with self._adding:
                sessions = await self._sessions_of(starter)
                self._check_may_start(pod, sessions)
                agent = await self._swarm.start(task, **given, starter=starter)
                self._wait_for(pod, sessions, agent)
        except ToolError:
            raise
        except PolypodError as error:
            raise ToolError(f"the agent could not be started: {error}") from error
        return (
            f"agent {agent.id} has started; you will get a message when all agents that you "
            "started have ended"
        )

    async def _sessions_of(self, session_id: str | None) -> set[str]:
        """A pod's session and those that it was compacted from. Raises StoreError, SessionCorrupt."""
        return set() if session_id is None else set(await sessions_of(self._swarm.home.store, session_id))

    def _check_may_start(self, pod: str, sessions: Collection[str]) -> None:
        """Raises ToolError."""
        started = self._of(pod, sessions)
        if started is not None and sum(each.result is None for each in started.agents) >= _MOST:
            raise ToolError(f"{_MOST} of your agents are running, which is the limit: wait for them")

    def _of(self, pod: str, sessions: Collection[str]) -> _Started | None:
        return next((each for each in self._all if each.is_of(pod, sessions)), None)

    def _wait_for(self, pod: str, sessions: Collection[str], agent: Agent) -> None:
        if (started := self._of(pod, sessions)) is None:
            self._all.append(started := _Started(pod, set(), []))
        started.sessions.update(sessions)
        spawned = _Spawned(agent)
        started.agents.append(spawned)
        self._begin(self._watch(started, spawned))

    def _given(self, pod: str, model: str | None, provider: str | None) -> dict[str, Any]:
        """The options that an agent is started with: as the program says, else those of the pod itself."""
        asked = {"model": model, "provider": provider}
        given = self._options | {name: value for name, value in asked.items() if value is not None}
        actor = self._swarm.home.roster.started(pod)
        if self._options or actor is None:
            return given
        template = actor.resources.template
        manifest = _without_starters(template.manifest)
        if model is None:
            return {"manifest": manifest, "client": template.client}
        other = PodManifest.of(model="/".join(each for each in (provider, model) if each)).model
        return {"manifest": replace(manifest, model=other)}

    def _drawing_on(self, budget: Budget | None, given: dict[str, Any]) -> dict[str, Any]:
        """Options for a pod that draws on the budget of whoever starts it, besides its own."""
        own = {name: given.pop(name) for name in ("client", "tools", "hooks", "deps") if name in given}
        own |= {name: tuple(own[name]) for name in ("tools", "hooks") if name in own}
        cwd = path_of("cwd", given.get("cwd") or ".").resolve()
        manifest = pod_manifest(given.get("manifest"), cwd, given.get("model"), given.get("provider"))
        runner = PodRunner(self._swarm.home, manifest, Given(**own, budget=budget))
        return {**given, "runner": runner}

    def _budget_of(self, pod: str) -> Budget | None:
        """The budget of the pod that starts an agent; None if nothing limits it."""
        actor = self._swarm.home.roster.started(pod)
        return None if actor is None else actor.resources.budget

    # -- the report --------------------------------------------------------------------------------

    async def _watch(self, started: _Started, spawned: _Spawned) -> None:
        """Wait for the end of an agent's task; the last one of a pod's has the report sent, and all end."""
        budget = self._budget_of(started.pod)
        spawned.result = await self._swarm.result_of(spawned.agent)
        if budget is not None and spawned.agent.spec.runner != "pod":
            self._charge(budget, spawned)
        if started in self._all and all(each.result is not None for each in started.agents):
            self._all.remove(started)
            await self._report(started.pod, started.agents)

    async def _report(self, pod: str, ended: Sequence[_Spawned]) -> None:
        """Give the report of agents that a pod of this name has started to who goes on in its session."""
        self._reporting.update(each.agent.id for each in ended)
        found: dict[str | None, PodActor | None] = {}
        shares: dict[PodActor | None, list[_Spawned]] = {}
        for each in ended:
            starter = each.agent.spec.starter
            if starter not in found:
                found[starter] = await self._receiver(pod, starter)
            shares.setdefault(found[starter], []).append(each)
        for share in shares.items():  # none waits for another, which may wait for a person
            self._begin(self._give(*share))

    async def _receiver(self, pod: str, starter: str | None) -> PodActor | None:
        """The living pod that goes on in the session of who started agents, whatever its name is now: another
        may have the name. The name alone says it where no session is known.
        """
        roster = self._swarm.home.roster
        if starter is None:
            await roster.wait_until_started(pod)
            return roster.started(pod)
        started = map(roster.started, list(roster.pods))
        living = [each for each in started if each is not None and not each.stopping]
        for each in living:
            if each.durable_position()[0] == starter:
                return each
        for each in filter(_may_start_agents, living):  # one whose session was compacted
            with contextlib.suppress(Exception):  # a store may raise anything: it is asked again
                if starter in await sessions_of(self._swarm.home.store, each.durable_position()[0]):
                    return each
        return None

    async def _give(self, actor: PodActor | None, ended: Sequence[_Spawned]) -> None:
        """Give a pod a report, and end the agents; where it has ended, it gets that once it lives again."""
        results = [(each.agent.id, each.agent.spec.task, each.result) for each in ended]
        words = report_of((name, task, result) for name, task, result in results if result is not None)
        try:
            given = actor is not None and await notify(actor, words)
        finally:
            self._reporting.difference_update(each.agent.id for each in ended)
        if given:
            for each in ended:
                await self._swarm.retire_agent(each.agent)
        else:  # who was taken up meanwhile has not found them
            await self._take_up_living({each.agent.spec.starter for each in ended})

    async def _take_up_all(self) -> None:
        """Take up the pods that live, and those that live again."""
        await self._take_up_living()
        async for event in self._started:
            if isinstance(event, Lagged):  # any of them may be among those that were dropped
                await self._take_up_living()
            elif isinstance(event, PodStarted) and event.resumed:
                await self._take_up(event.pod)

    async def _take_up_living(self, starters: set[str | None] | None = None) -> None:
        for pod in list(self._swarm.home.roster.pods):
            await self._take_up(pod, starters)

    async def _take_up(self, pod: str, starters: set[str | None] | None = None) -> None:
        """Wait for the agents that a pod has started in an earlier life and got no report of; with
        ``starters`` only where it goes on in one of these sessions. Tried again where the store fails.
        """
        try:
            await self._take_up_unreported(pod, starters)
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and other pods are to be taken up
            if pod not in self._failing:
                task = self._begin(self._try_again(pod))
                self._trying.add(task)
                task.add_done_callback(self._trying.discard)
            self._failing[pod] = str(error)
        else:
            self._failing.pop(pod, None)

    async def _try_again(self, pod: str) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            await self._take_up(pod)
            if pod not in self._failing:
                return

    async def _take_up_unreported(self, pod: str, starters: set[str | None] | None) -> None:
        """Raises whatever the store does."""
        roster = self._swarm.home.roster
        await roster.wait_until_started(pod)
        actor = roster.started(pod)
        if actor is None or actor.stopping or not _may_start_agents(actor):
            return
        async with self._adding:
            sessions = await self._sessions_of(actor.durable_position()[0])
            if starters is None or not starters.isdisjoint(sessions):
                for agent in await self._find_unreported(sessions):
                    self._wait_for(pod, sessions, agent)

    async def _find_unreported(self, sessions: Collection[str]) -> list[Agent]:
        """The agents started in these sessions that none of them reports. Raises SessionError, WireError."""
        started = await self._swarm.started_by(sessions)
        known = {each.agent.id for one in self._all for each in one.agents} | self._reporting
        started = [each for each in started if each.id not in known]
        reported = await reported_in(self._swarm.home.store, sessions) if started else set[str]()
        return [each for each in started if each.id not in reported]

    def _charge(self, budget: Budget, spawned: _Spawned) -> None:
        """Count in the starter's budget what an agent has taken that is not a pod here. The system's budget
        already has what pods in processes of their own took.
        """
        result = spawned.result
        assert result is not None
        used = None if result.usage is None else result.usage.total_tokens
        tokens, cost, unknown = used or 0, result.cost or 0.0, used is None
        if spawned.agent.spec.runner == "process":
            budget.spend_here(tokens, cost, unknown)
        else:
            budget.spend(tokens, cost, unknown)


def _may_start_agents(actor: PodActor) -> bool:
    return not _STARTING.isdisjoint(actor.resources.template.manifest.tools.builtin)


def _without_starters(manifest: PodManifest) -> PodManifest:
    builtin = tuple(each for each in manifest.tools.builtin if each not in _STARTERS)
    return replace(manifest, tools=replace(manifest.tools, builtin=builtin))
