"""``SubAgent``: what a pod knows of a sub-agent that has not ended; ``ChildSpawner``: what starts them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from actors.runtime.future import AsyncFuture
from protocol.errors import PolypodError
from protocol.events import ChildEnded, ChildStarted, RunEnd
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.handle import Pod
    from actors.pod.pod import PodActor
    from actors.pod.resources import PodResources
    from actors.pod.session.lifecycle import Resumed
    from actors.sessions.log import SessionLog
    from protocol.errors import Failure
    from protocol.events import RunOutcome
    from protocol.manifest import PodManifest


class ChildSpawner(Protocol):
    """Starts the pods that are sub-agents."""

    @property
    def leaving(self) -> bool:
        """Whether all pods are about to end, with their runs paused."""

    def prepare(self, manifest: PodManifest, name: str, parent: Delegation) -> PodResources:
        """Make what a sub-agent works with. Raises NameTaken, ManifestError, ModelError, BudgetError."""

    def start(self, resources: PodResources, resumed: Resumed | None) -> AsyncFuture[Pod]:
        """Start it; the future fails as that of ``spawn``."""

    def shut_down(self, pod: Pod) -> AsyncFuture[bool]:
        """End it with its run paused; the future resolves once it has ended."""


class SubAgent:
    """A sub-agent that has not ended, as far as its parent knows."""

    __slots__ = (
        "ended",
        "ending",
        "fresh",
        "held",
        "last",
        "news",
        "paused",
        "pausing",
        "pod",
        "resources",
        "started",
        "why",
    )

    def __init__(self, started: ChildStarted, resources: PodResources | None = None) -> None:
        self.started = started
        self.resources = resources
        #: Its handle, once it lives.
        self.pod: Pod | None = None
        #: Why it cannot be reached.
        self.why: str | None = None
        #: Whether its task has not begun.
        self.fresh = True
        #: Whether its run is paused, and whether that goes on with the next run of its parent.
        self.paused = self.held = False
        self.pausing: AsyncFuture[None] | None = None
        #: Whether its end is on the way.
        self.ending = False
        #: The last end of a run that is not paused.
        self.last: RunEnd | None = None
        #: Resolves once its end is durable.
        self.ended: AsyncFuture[ChildEnded] = AsyncFuture()
        #: Who waits for it to say or do something.
        self.news: list[asyncio.Future[None]] = []

    @property
    def session(self) -> str:
        """The session that it was started in."""
        return self.started.child_session

    def publish_news(self) -> None:
        """Wake those who wait for it to say or do something."""
        news, self.news = self.news, []
        for each in news:
            if not each.done():
                each.set_result(None)


#: What a pod took in its life: usage, US dollars, seconds; None where nobody knows.
Sums = tuple[Usage | None, float | None, float | None]
UNKNOWN: Sums = (None, None, None)


def record_ended(
    log: SessionLog,
    started: ChildStarted,
    outcome: RunOutcome,
    error: Failure | None = None,
    took: Sums = UNKNOWN,
) -> None:
    """Record the end of a sub-agent in its parent's log, with what it used up in its life."""
    usage, cost, seconds = took
    log.record_end(
        ChildEnded,
        None,
        child=started.child,
        name=started.name,
        child_session=started.child_session,
        outcome=outcome,
        usage=usage,
        cost=cost,
        seconds=seconds,
        error=error,
    )


async def goes_on(actor: PodActor) -> bool:
    """Whether a pod whose run has ended has another run, or will have one."""
    if actor.ended:
        return False
    more: AsyncFuture[bool] = AsyncFuture()

    async def look(_: object) -> bool:
        return actor.runs.has_more

    actor.runs.between_steps(more, look)
    with contextlib.suppress(PolypodError):
        return await more
    return False
