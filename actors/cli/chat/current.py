"""``Current``: the pod that a chat talks with, and how another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from actors.cli.display.views import View
from actors.cli.follow import Plan
from actors.cli.places import store_option
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.sessions.answers import settled
from actors.sessions.head import short_id
from actors.system import PodSystem
from protocol.errors import PodStopped, PolypodError, SessionError
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
        #: False where this chat made the session and nothing was said in it yet: it goes when it is left.
        self.is_used = plan.session is not None
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
        left = self.described.session_id
        await self.pod.stop()
        plan = before._replace(session=session, manifest=manifest or before.manifest)
        try:
            self.pod, self.plan = await plan.spawn(self.system, self._view), plan
        except PolypodError:
            self.pod, self.plan = await before.spawn(self.system, self._view), before
            raise
        finally:
            self.on_change(self.pod)
        if session != left:
            if not self.is_used:
                await self._remove(left)
            self.is_used = session is not None
        return await self.look()

    def use(self) -> None:
        """Note that something is about to be said in the session, which is then kept when it is left."""
        self.is_used = True

    async def leave(self) -> None:
        """End the pod where nothing was said, and remove its session, which nobody would look for."""
        if not self.is_used:
            await self.pod.stop()
            await self._remove(self.described.session_id)

    async def _remove(self, session_id: str) -> None:
        with suppress(SessionError):  # then an empty session stays, which harms nobody
            await settled(self.system.store.delete(session_id))

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
        if not self.is_used:
            return "interrupted; nothing was said, so no session is kept"
        session_id = short_id(self.described.session_id)
        command = f"polypod chat --resume {session_id}{store_option(self.plan.store)}"
        return f"interrupted; continue with: {command}"


def _ignore(_: Pod) -> None:
    pass
