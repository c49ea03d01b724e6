"""``SpawnedAgents``: agents that models start, and the one report that each pod gets of those it started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from actors.swarm.agents.agent import Agent
from actors.swarm.agents.pod_runner import Given, PodRunner, pod_manifest
from protocol.agents import AgentResult
from protocol.errors import PolypodError, ToolError
from protocol.manifest import PodManifest

if TYPE_CHECKING:
    from actors.pod.accounts.budget import Budget
    from actors.swarm.agents.swarm import Swarm

#: Agents of one pod that may be at work at once.
_MOST = 16
#: Tools that start others: agents that a model starts have none of them.
_STARTERS = frozenset({"agents", "swarm_spawn", "pods", "spawn_pod", "send_to_pod", "stop_pod"})


class _Spawned(Struct, eq=False):
    agent: Agent
    task: str
    result: AgentResult | None = None


class SpawnedAgents:
    """What pods of a system have started by ``swarm_spawn``. Their lifetime is the swarm's, not the call's.

    ``options`` are those of ``Swarm.start``; without them an agent is a pod like the one that starts it.
    """

    def __init__(self, swarm: Swarm, options: Mapping[str, Any]) -> None:
        self._swarm = swarm
        self._options = dict(options)
        #: By the pods that started them; what was reported is forgotten.
        self._of: dict[str, list[_Spawned]] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def spawn(self, pod: str, task: str, model: str | None, provider: str | None) -> str:
        """Start an agent for a pod. Raises ToolError, whose words are for the model."""
        if sum(each.result is None for each in self._of.get(pod, ())) >= _MOST:
            raise ToolError(f"{_MOST} agents of yours are at work, as many as may be: wait for them")
        budget = self._budget_of(pod)
        if budget is not None and (exceeded := budget.exceeded()) is not None:
            raise ToolError(f"nothing is left for another agent of {exceeded}")
        try:
            given = self._given(pod, model, provider)
            if given.get("runner", "pod") == "pod":
                given = self._drawing_on(budget, given)
            agent = await self._swarm.start(task, **given)
        except PolypodError as error:
            raise ToolError(f"the agent could not be started: {error}") from error
        spawned = _Spawned(agent, task)
        self._of.setdefault(pod, []).append(spawned)
        watching = self._swarm.home.mailroom.loop.create_task(self._watch(pod, spawned))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return f"agent {agent.id} has started; you get a message once all that you started have ended"

    def _given(self, pod: str, model: str | None, provider: str | None) -> dict[str, Any]:
        """What an agent is started with: as the program says, else as the pod itself was."""
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
        """The same options, for a pod that draws on the budget of who starts it besides its own."""
        own = {name: given.pop(name) for name in ("client", "tools", "hooks", "deps") if name in given}
        own |= {name: tuple(own[name]) for name in ("tools", "hooks") if name in own}
        cwd = Path(given.get("cwd") or ".").expanduser().resolve()
        manifest = pod_manifest(given.get("manifest"), cwd, given.get("model"), given.get("provider"))
        runner = PodRunner(self._swarm.home, manifest, Given(**own, budget=budget))
        return {**given, "runner": runner}

    def _budget_of(self, pod: str) -> Budget | None:
        """The budget of who starts an agent; None where nothing limits it."""
        actor = self._swarm.home.roster.started(pod)
        return None if actor is None else actor.resources.budget

    async def _watch(self, pod: str, spawned: _Spawned) -> None:
        """Wait for the end of an agent's task; the last one of a pod's has the report sent, and all end."""
        budget = self._budget_of(pod)
        spawned.result = await self._swarm.result_of(spawned.agent)
        if budget is not None and spawned.agent.spec.runner != "pod":
            self._charge(budget, spawned)
        of_pod = self._of.get(pod, [])
        if of_pod and all(each.result is not None for each in of_pod):
            del self._of[pod]
            with contextlib.suppress(PolypodError):  # the pod has ended
                await self._swarm.home.roster.get(pod).notify(_report(of_pod))
            for each in of_pod:
                await self._swarm.retire_agent(each.agent)

    def _charge(self, budget: Budget, spawned: _Spawned) -> None:
        """Count in the starter's budget what an agent has taken that is no pod here. The system's has that of
        pods in processes of their own already.
        """
        result = spawned.result
        assert result is not None
        used = None if result.usage is None else result.usage.total_tokens
        tokens, cost, unknown = used or 0, result.cost or 0.0, used is None
        if spawned.agent.spec.runner == "process":
            budget.spend_here(tokens, cost, unknown)
        else:
            budget.spend(tokens, cost, unknown)


def _without_starters(manifest: PodManifest) -> PodManifest:
    builtin = tuple(each for each in manifest.tools.builtin if each not in _STARTERS)
    return replace(manifest, tools=replace(manifest.tools, builtin=builtin))


def _report(spawned: list[_Spawned]) -> str:
    """What each has answered, in the order of their start."""
    return "\n\n".join(["[auto-swarm update]", *map(_lines, spawned)])


def _lines(spawned: _Spawned) -> str:
    result = spawned.result
    assert result is not None
    lines = [f"{spawned.agent.id}: {result.status}", f"task: {spawned.task}"]
    if result.error is not None:
        lines.append(f"error: {result.error}")
    if result.text:
        lines.append(f"answer: {result.text}")
    return "\n".join(lines)
