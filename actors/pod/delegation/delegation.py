"""``Delegation``: the sub-agents of one pod: what they are given, and how they begin, go on and end."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actors.pod.accounts.budget import Budget, ChildBudget, check_left
from actors.pod.delegation import output
from actors.pod.delegation.grants import child_manifest
from actors.pod.delegation.restore import bring_back
from actors.pod.delegation.shared_scope import SharedScope
from actors.pod.delegation.sub_agent import UNKNOWN, ChildSpawner, SubAgent, Sums, goes_on, record_ended
from actors.pod.local import actor_of
from actors.runtime.future import AsyncFuture
from actors.tools.pods import Asked
from protocol.delegation import NO_CHILDREN, Children
from protocol.errors import (
    Failure,
    NameTaken,
    PolypodError,
    SessionError,
    SessionInUse,
    ToolError,
)
from protocol.events import (
    AssistantMessage,
    ChildEnded,
    ChildStarted,
    Event,
    PodEnded,
    PodFailed,
    RunEnd,
    RunOutcome,
    RunStart,
)
from protocol.lifecycle import PodState
from protocol.scope import Scope
from protocol.text import encodable
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.handle import Pod
    from actors.pod.pod import PodActor
    from actors.pod.resources import Given, PodTemplate
    from actors.pod.session.journal import Journal
    from actors.pod.tasks_at_work import TasksAtWork

#: What a pod calls a sub-agent: dots stand between the names of a pod and its sub-agents.
_NAME = re.compile(r"[\w-]+")


class Delegation:
    """Gives work to sub-agents, and takes back what they were given when they have ended.

    Which ones have begun and ended is what the log says: ``state`` is folded from the pod's events as they
    become durable (``note_own``). Sub-agents whose start is still being recorded are kept beside it.
    """

    def __init__(
        self,
        name: str,
        template: PodTemplate,
        given: Given,
        spawner: ChildSpawner,
        budget: Budget | None,
    ) -> None:
        self.name = name
        self.given = given
        self.budget = budget
        self.state: Children = NO_CHILDREN
        self.template = template
        self.spawner = spawner
        self.scope = SharedScope(template)
        #: By the names that the pod calls them.
        self.living: dict[str, SubAgent] = {}
        #: By the names of their pods.
        self.by_pod: dict[str, SubAgent] = {}
        #: Whether sub-agents are to stand still, since the pod was paused or restored.
        self._held = False
        #: Whether the pod ends and can be restored: sub-agents that end with it have not come to their end.
        self._resting = False
        #: The sessions of those whose end is being sent to the pod.
        self._notifying: set[str] = set()
        #: Who waits for the ends of all; resolved each time that one may have come.
        self._waiting: list[asyncio.Future[None]] = []
        #: Resolves once those of an earlier life are there again; None where there are none.
        self._bringing_back: AsyncFuture[None] | None = None
        #: Of those that are being started, by whether each was.
        self._beginning: list[AsyncFuture[None]] = []
        #: Whether nobody ends those any more that are started late, since the pod has waited long enough.
        self._gave_up = False

    def attach(self, actor: PodActor, journal: Journal) -> None:
        """Attach to the pod, before it starts."""
        self._actor = actor
        self.journal = journal

    @property
    def tasks(self) -> TasksAtWork:
        """The pod's tasks beside its mailbox."""
        return self._actor.tasks

    @property
    def _leaving(self) -> bool:
        return self._resting or self.spawner.leaving

    @property
    def has_any(self) -> bool:
        """Whether any sub-agent has not ended."""
        return bool(self.living) or self._bringing_back is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the pods that have not ended."""
        living = self.living.values()
        return tuple(child.started.child if child.pod is None else child.pod.name for child in living)

    # -- what the log says -----------------------------------------------------------------------

    def note_own(self, events: Sequence[Event]) -> None:
        """Take the pod's own published events."""
        for event in events:
            if isinstance(event, ChildStarted):
                self.state = self.state.after(event)
            elif isinstance(event, ChildEnded):
                self._take_back(event)
            elif isinstance(event, RunStart):
                self._go_on()
            elif isinstance(event, RunEnd):
                if event.outcome == "paused":
                    self._hold()
                self._wake_waiting()

    def note_child(self, pod: str, events: Sequence[Event]) -> None:
        """Take the published events of a sub-agent."""
        child = self.by_pod.get(pod)
        if child is None:
            return
        for event in events:
            if isinstance(event, RunStart):
                child.fresh = child.paused = False
            elif isinstance(event, RunEnd):
                child.paused = event.outcome == "paused"
                if not child.paused:
                    child.last = event
                    self._begin_end(child, event.outcome, event.error)
            elif isinstance(event, PodFailed):
                self._begin_end(child, "failed", event.error)
            elif isinstance(event, PodEnded):
                if not self._leaving:
                    self._begin_end(child, "cancelled", None)
            elif not isinstance(event, AssistantMessage):
                continue
            child.publish_news()

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of the pod's inherits."""
        return {"children": self.state}

    def _given(self) -> dict[str, Scope]:
        """The scopes given to living sub-agents, by name."""
        return {name: child.started.scope for name, child in self.living.items()}

    # -- beginnings ------------------------------------------------------------------------------

    def admit(self, asked: Asked) -> SubAgent:
        """A new sub-agent as asked for, if that is within what the pod has. Raises ToolError."""
        section = self.template.manifest.delegation
        if section.max_depth < 1:
            raise ToolError("delegation.max_depth: this pod may not start sub-agents")
        if len(self.living) >= section.max_children:
            raise ToolError(
                f"delegation.max_children: {section.max_children} sub-agents are running already",
                hint="wait until one ends, or stop one",
            )
        if asked.name in self.living:
            raise ToolError(f"there is already a sub-agent named {asked.name!r}", hint="choose another name")
        if not _NAME.fullmatch(asked.name):
            raise ToolError(
                f"{encodable(asked.name)!r} is not a valid name for a sub-agent",
                hint="use only letters, digits, '-' and '_'",
            )
        scope = self.scope.check_asked(asked, self._given(), self._actor.resources.commands)
        name = f"{self.name}.{asked.name}"
        manifest = child_manifest(self.template.manifest, name, asked, self.scope.part(scope))
        try:
            if self.budget is not None:
                check_left(manifest.budget, self.budget)
            resources = self.spawner.prepare(manifest, name, self)
        except PolypodError as error:
            raise ToolError(f"{asked.name!r} was not started: {error.message}", hint=error.hint) from error
        head = self.journal.head
        started = ChildStarted(
            self.name,
            head.session_id,
            head.seq,
            0.0,
            child=name,
            name=asked.name,
            child_session=resources.log.head.session_id,
            task=encodable(asked.task),
            scope=scope,
            budget=manifest.budget,
        )
        child = SubAgent(started, resources)
        self._add(child)
        return child

    def _add(self, child: SubAgent) -> None:
        self.living[child.started.name] = self.by_pod[child.started.child] = child
        self.scope.leave_out(self._given().values())

    def _drop(self, child: SubAgent) -> None:
        """Forget a sub-agent that has ended or never started: what it was given is the pod's again."""
        if self.living.get(child.started.name) is child:
            del self.living[child.started.name]
        self.by_pod = {name: each for name, each in self.by_pod.items() if each is not child}
        if child.resources is not None and isinstance(child.resources.budget, ChildBudget):
            child.resources.budget.close()
        self.scope.leave_out(self._given().values())
        child.publish_news()
        self._wake_waiting()

    async def begin(self, child: SubAgent, began: AsyncFuture[None]) -> None:
        """Record that a sub-agent starts, then start it and give it its task, unless the pod ends meanwhile:
        then it is ended with the others.
        """
        self._beginning.append(began)
        try:
            await self._begin(child, began)
        finally:
            self._beginning.remove(began)

    async def _begin(self, child: SubAgent, began: AsyncFuture[None]) -> None:
        started, resources = child.started, child.resources
        assert resources is not None
        fields = {
            name: getattr(started, name)
            for name in ("child", "name", "child_session", "task", "scope", "budget")
        }
        self.journal.log.record(ChildStarted, self.journal.run_id, **fields)
        try:
            await self.journal.commit()
        except SessionError as error:
            self._drop(child)
            began.set_exception(ToolError(f"{started.name!r} was not started: {error.message}"))
            return
        try:
            child.pod = await self.spawner.start(resources, None)
        except PolypodError as error:
            if not self._leaving:
                await self._record_end(child, "failed", Failure.of(error))
            began.set_exception(ToolError(f"{started.name!r} was not started: {error.message}"))
            return
        if self._held or self._actor.stopping:
            child.held = True
            self._end_late(child)
        else:
            self._work(child)
        began.set(None)

    def _work(self, child: SubAgent) -> None:
        """Have a sub-agent begin its task, or continue it."""
        if child.pod is None or child.ending or not (child.fresh or child.held):
            return
        if child.fresh:
            child.fresh = child.held = False
            self._follow(child, child.pod.run(child.started.task))
        else:
            self.tasks.start(self._resume(child))

    async def _resume(self, child: SubAgent) -> None:
        pausing, child.pausing = child.pausing, None
        if pausing is not None:
            with contextlib.suppress(PolypodError):
                await pausing
        if child.pod is not None and child.held and not self._held:
            child.held = False
            if child.paused:
                self._follow(child, child.pod.resume())

    def _follow(self, child: SubAgent, run: AsyncFuture[Any]) -> None:
        """End the sub-agent if the start of its run is refused: such a run has no end event."""

        def look_how_it_ended() -> None:
            error = run.exception()
            if error is not None and not self._leaving:
                self._begin_end(child, "failed", Failure.of(error.__cause__ or error))

        run.when_done(look_how_it_ended)

    # -- pauses ----------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Pause the sub-agents, since the pod is paused."""
        self._held = True
        for child in self.living.values():
            if child.pod is not None and not child.paused and not child.ending:
                child.held, child.pausing = True, child.pod.pause()

    def _go_on(self) -> None:
        """Have the sub-agents continue, since the pod does, and notify it of those that ended meanwhile."""
        self._held = False
        for child in list(self.living.values()):
            self._work(child)
        for ended in self.state.unreported:
            self._begin_notify(ended)

    # -- ends ------------------------------------------------------------------------------------

    def _begin_end(self, child: SubAgent, outcome: RunOutcome, error: Failure | None) -> None:
        if not child.ending:
            child.ending = True
            self.tasks.start(self._end(child, outcome, error))

    async def _end(self, child: SubAgent, outcome: RunOutcome, error: Failure | None) -> None:
        """End the pod of a sub-agent that has finished its work, and record that."""
        if child.pod is not None:
            last = child.last
            if await goes_on(actor_of(child.pod)):  # it got words in the last moment
                child.ending = False
                if child.last is not None and child.last is not last:  # and has answered them meanwhile
                    self._begin_end(child, child.last.outcome, child.last.error)
                return
            await child.pod.stop()
        await self._record_end(child, outcome, error)

    async def _record_end(self, child: SubAgent, outcome: RunOutcome, error: Failure | None) -> None:
        took = UNKNOWN if child.pod is None else actor_of(child.pod).sums()
        await self.record_ended(child.started, outcome, error, took)

    async def record_ended(
        self,
        started: ChildStarted,
        outcome: RunOutcome,
        error: Failure | None = None,
        took: Sums = UNKNOWN,
    ) -> None:
        """Record the end of a sub-agent, with what it used up."""
        record_ended(self.journal.log, started, outcome, error, took)
        with contextlib.suppress(SessionError):  # then it goes with the next batch that the store takes
            await self.journal.commit()

    def _take_back(self, event: ChildEnded) -> None:
        """Take back what a sub-agent was given, since its end is durable."""
        self.state = self.state.after(event)
        child = self.by_pod.get(event.child)
        if child is not None and child.session == event.child_session:
            self._drop(child)
            child.ended.set(event)
        if not self._held:
            self._begin_notify(event)

    def _begin_notify(self, event: ChildEnded) -> None:
        """Notify the pod's model of the end of a sub-agent, and of its last words."""
        if event.child_session not in self._notifying and not self._actor.stopping:
            self._notifying.add(event.child_session)
            self.tasks.start(self._notify(event))

    async def _notify(self, event: ChildEnded) -> None:
        session = event.child_session
        try:
            last = await output.last_answer(self.template.store, session)
            await self._actor.notify(output.end_words(event, last))
        except PolypodError:  # a call waits for a person, or the pod stops: it is sent with the next run
            return
        finally:
            self._notifying.discard(session)
            self._wake_waiting()
        self.state = self.state.reported(session)

    async def wait_for_all(self, seconds: float | None) -> bool:
        """Wait until all sub-agents have ended, and with them the runs that their ends started; those that
        stand still though the pod is not paused go on.

        Returns whether that happened within ``seconds``. Raises PodStopped.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait_for_restored()
                while await self._has_more():
                    pass
        return not self.living

    async def _has_more(self) -> bool:
        """Whether a sub-agent, or a run of the pod, is still under way, once there is news."""
        if self._actor.stopping:
            raise self._actor.status.gone()
        state = self._actor.status.state
        if self._held and state is PodState.IDLE:
            self._go_on()
        elif self._held:  # it is paused, or about to be, or to go on
            if state is PodState.PAUSED:
                return False
            await goes_on(self._actor)
            return True
        news = self.tasks.loop.create_future()
        self._waiting.append(news)
        at_work = any(child.why is None for child in self.living.values()) or bool(self._notifying)
        if not at_work and not await goes_on(self._actor):
            return False
        await news
        return True

    def _wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def stop_all(self, seconds: float) -> None:
        """Stop all sub-agents within so many seconds, and record their ends, since the pod ends."""
        self._wake_waiting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait_for_begun()
                for child in list(self.living.values()):
                    if child.pod is not None:
                        child.pod.stop()
                for child in list(self.living.values()):
                    if child.pod is not None:
                        await child.ended
        self._gave_up = True

    async def shut_down_all(self, seconds: float) -> None:
        """End all sub-agents with their runs paused, within so many seconds, because the pod is shut down."""
        self._wake_waiting()
        if self.spawner.leaving:
            return  # it has all pods end so
        self._resting = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait_for_begun()
                living = [child.pod for child in self.living.values() if child.pod is not None]
                for ended in [self.spawner.shut_down(pod) for pod in reversed(living)]:
                    await ended
        self._gave_up = True

    async def _wait_for_begun(self) -> None:
        """Wait until none is being started any more."""
        await self.wait_for_restored()
        for began in list(self._beginning):
            with contextlib.suppress(ToolError):
                await began

    def _end_late(self, child: SubAgent) -> None:
        """End a sub-agent that was started too late to end with the others, since nobody else does."""
        if not self._gave_up or child.pod is None:
            return
        if self._resting:
            self.spawner.shut_down(child.pod)
        else:
            child.pod.stop()

    # -- after a restart -------------------------------------------------------------------------

    def take_over(self, state: Children, items: Sequence[Any]) -> None:
        """Take over what a restored session records of sub-agents: none works until the pod does."""
        for ended in output.reported_in(state.unreported, items):
            state = state.reported(ended.child_session)
        self.state, self._held = state, True
        self.charge(state.usage, state.cost, state.seconds)
        for started in state.open:
            self._add(SubAgent(started))
        if state.open:
            self._bringing_back = AsyncFuture()

    def charge(self, usage: Usage | None, cost: float | None, seconds: float) -> None:
        """Count in the pod's budget what sub-agents used up in its earlier lives."""
        if self.budget is not None:
            self.budget.carry(usage or Usage(), cost, seconds)

    async def bring_back(self) -> None:
        """Start again, with their runs paused, the sub-agents that had not ended."""
        for child in list(self.living.values()):
            try:
                await bring_back(self, child)
                self._end_late(child)
            except (SessionInUse, NameTaken) as error:
                child.why = error.message
                self._wake_waiting()
            except PolypodError as error:
                if not self._leaving:
                    child.ending = True
                    await self.record_ended(child.started, "failed", Failure.of(error))
        restored, self._bringing_back = self._bringing_back, None
        if restored is not None:
            restored.set(None)
        if not self._held:
            self._go_on()

    async def wait_for_restored(self) -> None:
        """Wait until the sub-agents of an earlier life have been started again."""
        if self._bringing_back is not None:
            await self._bringing_back

    # -- approvals -------------------------------------------------------------------------------

    def asker_of(self, approval_id: str) -> Pod | None:
        """The sub-agent, of whatever depth, that has asked for that approval."""
        for child in self.living.values():
            if child.pod is None:
                continue
            actor = actor_of(child.pod)
            if actor.approvals is not None and actor.approvals.knows(approval_id):
                return child.pod
            if actor.delegation is not None and (found := actor.delegation.asker_of(approval_id)):
                return found
        return None
