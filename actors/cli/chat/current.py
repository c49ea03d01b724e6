"""``Current``: the pod that a chat talks with, and how another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from actors.cli.config import store_option
from actors.cli.display.views import View
from actors.cli.running import Plan
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.sessions.head import short_id
from actors.system import PodSystem
from protocol.errors import PodStopped, PolypodError
from protocol.manifest import PodManifest
from protocol.results import PodDescription

if TYPE_CHECKING:
    from actors.pod.runs.tool_runner import ToolRunner
    from actors.tools.base import Tool, ToolContext


class Current:
    """The pod of a chat. ``described`` is how it was when somebody last looked."""

    def __init__(
        self, system: PodSystem, plan: Plan, view: View, pod: Pod, described: PodDescription
    ) -> None:
        self.system = system
        self.plan = plan
        self.pod = pod
        self.described = described
        self._view = view
        #: Called with the new pod where another has taken the place of the one before.
        self.on_change: Callable[[Pod], object] = _ignore

    @classmethod
    async def begin(cls, system: PodSystem, plan: Plan, view: View) -> Current:
        """The pod that a command asked for. Raises PolypodError."""
        pod = await plan.spawn(system, view)
        return cls(system, plan, view, pod, await pod.describe())

    async def look(self) -> PodDescription:
        """Look how it is now."""
        self.described = await self.pod.describe()
        return self.described

    async def become(self, session: str | None, manifest: PodManifest | None = None) -> PodDescription:
        """Have the pod of another session (None: a new one), or with another manifest, take its place. Where
        that cannot be, the one before goes on, and what it raises is raised.
        """
        before = self.plan._replace(session=self.described.session_id)
        await self.pod.stop()
        plan = before._replace(session=session, manifest=manifest or before.manifest)
        try:
            self.pod, self.plan = await plan.spawn(self.system, self._view), plan
        except PolypodError:
            self.pod, self.plan = await before.spawn(self.system, self._view), before
            raise
        finally:
            self.on_change(self.pod)
        return await self.look()

    @property
    def model(self) -> str:
        """What answers, by its name in events."""
        return actor_of(self.pod).resources.template.model

    @property
    def runner(self) -> ToolRunner:
        """What runs the tools that are always there."""
        return actor_of(self.pod).resources.template.tools

    def tools(self, alert: Callable[[str], object]) -> Iterable[Tool]:
        """The tools that there are now; ``alert`` gets words about lists of sources that cannot be used.
        Raises ToolSourceError where a source has not said yet which it has.
        """
        sources = actor_of(self.pod).resources.template.sources
        return self.runner.toolbox if sources is None else sources.look(alert).toolbox

    def context(self) -> ToolContext | None:
        """What the pod may touch now; None where it has just ended."""
        try:
            return self.runner.context(self.pod.name)
        except PodStopped:
            return None

    def way_on(self) -> str:
        """The words that say how to go on, after an interruption."""
        session_id = short_id(self.described.session_id)
        command = f"polypod chat --resume {session_id}{store_option(self.plan.store)}"
        return f"interrupted; this goes on with it: {command}"


def _ignore(_: Pod) -> None:
    pass
