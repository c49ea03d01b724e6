"""``Supervision``: starts pods again that fail, as often as their limits allow, alone or in a group."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, Protocol

import pykka

from actors.pod.address import Kinds, Mailboxes, Since
from actors.pod.handle import Pod
from actors.pod.local import ShutDown, actor_of, lives_here
from actors.pod.pod import PodActor
from actors.pod.supervisor import Waiting
from actors.runtime.events.bus import Bus
from actors.runtime.events.subscription import Feed, Subscription
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom
from actors.runtime.on_loop import future_of
from actors.runtime.ref import stop_by
from actors.runtime.restarts import Limits
from actors.swarm.groups import Group, Member
from actors.swarm.hanging_requests import LOOKS, Watch, look_again
from protocol.commands import Command, Stop
from protocol.errors import Failure, InvalidInput, PodError, PodStopped, WatchdogExpired
from protocol.events import RestartsExhausted
from protocol.foreign import shown
from protocol.manifest import RestartSection

#: Called with whether a pod that was started lives.
Started = Callable[[BaseException | None], None]


class Respawner(Protocol):
    """Makes the actors that take the place of failed ones."""

    def replace(self, pod: Pod, started: Started, /) -> PodActor:
        """Make the actor that takes the place of a pod's that failed, not begun yet."""

    def forget(self, pod: Pod, /) -> None:
        """Forget a pod that has ended for good."""


class HasMember(Protocol):
    """A handle of what counts its own restarts: an agent's."""

    @property
    def member(self) -> Member:
        """What counts them. Raises AgentNotRunning where it has ended."""


class Supervisor(Member):
    """Counts how often one pod is started again."""

    def __init__(
        self, pod: Pod, room: Mailroom, bus: Bus, section: RestartSection, group: Group | None
    ) -> None:
        super().__init__(pod.name, room, section, group)
        self.pod = pod
        self._bus = bus

    def position(self) -> tuple[str, int]:
        """The pod's session, and its last durable entry."""
        raise NotImplementedError

    def announce(self, error: BaseException, restarts: int, stopped: tuple[str, ...] = ()) -> None:
        """Publish that the limits are exceeded."""
        head = (self.pod.name, *self.position(), time.time())
        failure = Failure.of(error)
        self._bus.publish([RestartsExhausted(*head, error=failure, restarts=restarts, stopped=stopped)])


class PodSupervisor(Supervisor):
    """Starts one pod again, and is its address, so that the handle follows.

    What is asked while there is no actor waits for the next one. That a stop was asked for is noted before
    it is sent, so nothing starts the pod again meanwhile. All but the address is used on the loop alone.
    """

    def __init__(
        self,
        pod: Pod,
        room: Mailroom,
        bus: Bus,
        mailboxes: Mailboxes,
        spawner: Respawner,
    ) -> None:
        section = actor_of(pod).resources.template.manifest.restart
        super().__init__(pod, room, bus, section, None)
        self._mailboxes, self._spawner = mailboxes, spawner
        self._again = False
        #: What waits for the next actor; None while one lives.
        self._held: deque[tuple[Any, Any]] | None = None
        self.waiting: Waiting | None = None
        self._asked_to_stop: list[AsyncFuture[bool]] = []
        self._watch = Watch()
        self._timer: asyncio.TimerHandle | None = None
        self._look_later()

    @property
    def _actor(self) -> PodActor:
        return actor_of(self.pod)

    def position(self) -> tuple[str, int]:
        return self._actor.durable_position()

    # -- as the pod's address ----------------------------------------------------------------------

    def is_alive(self, _: Pod) -> bool:
        return not self.over and not self.room.loop.is_closed()

    def ask(self, pod: Pod, command: Command) -> AsyncFuture[Any]:
        if not self.is_alive(pod):
            return self._mailboxes.ask(pod, command)
        if type(command) is Stop:
            self._stop_asked = True
        future = future_of(self.room)
        future.caller = copy_context()
        self._actor.note_turn(command, future)
        try:
            self.room.send(self._actor, command, future)  # a dead one has it taken by ``take``
        except pykka.ActorDeadError as error:
            future.set_exception(error)
        return future

    def stop(self, pod: Pod) -> AsyncFuture[bool]:
        self._stop_asked = True
        if not self.is_alive(pod):
            return self._mailboxes.stop(pod)
        future = future_of(self.room)
        self.room.post(lambda _: self._stop_by(None, future))
        return future

    def subscribe(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Subscription:
        return self._mailboxes.subscribe(pod, kinds, since, children=children)

    def feed(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Feed:
        return self._mailboxes.feed(pod, kinds, since, children=children)

    # -- stops -------------------------------------------------------------------------------------

    def shut_down(self) -> AsyncFuture[bool]:
        """End the pod with its run paused, and start it no more."""
        self._stop_asked = True
        future: AsyncFuture[bool] = AsyncFuture()
        self._stop_by(ShutDown(), future)
        return future

    def _stop_by(self, message: Any, future: AsyncFuture[bool]) -> None:
        if self.over:
            future.set(False)
        elif self._held is not None or self._actor.ended:  # it has failed, and has no actor now
            self._asked_to_stop.append(future)
        else:
            asked = stop_by(actor_of(self.pod), message)
            asked.when_done(lambda: None if future.done() else future.set(True))

    # -- failures ----------------------------------------------------------------------------------

    def decide(self, error: BaseException) -> bool:
        self._again = not self.hold_back(error)
        return self._again

    def on_failed(self, error: BaseException) -> None:
        if self._held is None:
            self._held = deque()
        # Messages that wait behind the failure are taken before the next actor is made.
        self.room.loop.call_soon(self._go_on, error)

    def _go_on(self, error: BaseException) -> None:
        if self.over:
            return
        if not self._again or self._stop_asked:
            self._end(error)
            return
        try:
            actor = self._spawner.replace(self.pod, self._on_started)
        except Exception as raised:  # noqa: BLE001 - the system is being left, or the like
            self._end(raised)
            return
        actor.supervisor = self
        held, self._held = self._held, None
        for message, reply_to in held or ():
            actor._arrive(message, reply_to)  # noqa: SLF001 - it waits until the actor has begun
        actor.begin()

    def _on_started(self, error: BaseException | None) -> None:
        if error is not None:
            self.decide(error)
            self.on_failed(error)
            return
        if self._actor.ended:
            return  # it failed in its start: what waits is for the next one
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self._actor.take_up(waiting, resume=self._section.on_restart == "resume")

    def take(self, message: Any, reply_to: AsyncFuture[Any] | None) -> bool:
        if self.over:
            return False
        if not isinstance(message, Command) or type(message) is Stop:
            self._stop_asked = self._stop_asked or type(message) in {Stop, ShutDown}
            return False
        if self._actor.ended:
            if self._held is None:
                self._held = deque()
            self._held.append((message, reply_to))
        else:
            self._actor._arrive(message, reply_to)  # noqa: SLF001 - sent to the one before it
        return True

    def note_stop(self) -> None:
        """Note that the pod's actor has stopped, as it was asked to."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Answer all who wait, since nobody starts the pod again, and let the failure go up."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        held, self._held = self._held, None
        for message, reply_to in held or ():
            self._actor.refuse(message, reply_to)
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            text = f"pod {self.pod.name!r} has failed and is not restarted: {error}"
            gone = PodStopped(text, hint="spawn it again with resume=")
            for reply in () if waiting.queue is None else waiting.queue.replies():
                reply.set_exception(gone)
        self._spawner.forget(self.pod)
        for future in self._asked_to_stop:
            future.set(True)
        self.let_failure_go_up(error)

    # -- the watchdog --------------------------------------------------------------------------------

    def _look_later(self) -> None:
        if self._section.idle_seconds is not None and not self.over:
            self._timer = self.room.loop.call_later(self._section.idle_seconds / LOOKS, self._look)

    def _look(self) -> None:
        actor = self._actor
        client = actor.resources.template.client
        progress = None if actor.ended else actor.request_progress()
        bounded = getattr(client, "bounds_first_byte", False)
        self._watch = look_again(self._watch, progress, bounded=bounded)
        if self._watch.hangs:
            self._watch = Watch()
            idle = self._section.idle_seconds
            actor.end_by_defect(
                WatchdogExpired(f"the model of pod {self.pod.name!r} sent nothing for {idle:g} s")
            )
        self._look_later()


def check_may_join(pod: Pod) -> None:
    """Raise PodStopped for a pod that has stopped, PodError for a sub-agent."""
    if not pod.address.is_alive(pod):
        raise PodStopped(f"pod {pod.name!r} has stopped", hint="spawn it again with resume=")
    if lives_here(pod) and actor_of(pod).resources.parent is not None:
        raise PodError(f"pod {pod.name!r} is a sub-agent", hint="its parent handles its failures")


def _member_of(handle: Pod | HasMember) -> Member | None:
    """What counts its restarts; None of a pod that nobody supervises yet."""
    if isinstance(handle, Pod):
        return handle.address if isinstance(handle.address, Supervisor) else None
    if not hasattr(handle, "member"):
        raise InvalidInput(f"pods: expected pods and agents, got {shown(handle)}")
    return handle.member


class Supervision:
    """The supervised pods of one system."""

    def __init__(self, room: Mailroom, bus: Bus, mailboxes: Mailboxes, spawner: Respawner) -> None:
        self._of = (room, bus, mailboxes, spawner)

    def add(self, pod: Pod) -> Supervisor:
        """Supervise a pod from now on."""
        supervisor = pod.address
        if not isinstance(supervisor, Supervisor):
            supervisor = pod.address = actor_of(pod).supervisor = PodSupervisor(pod, *self._of)
        return supervisor

    def group(self, handles: Sequence[Pod | HasMember], limits: Limits) -> Group:
        """Supervise pods and agents together. Raises PodError for one that has stopped, or is in a group."""
        for number, handle in enumerate(handles):
            if isinstance(handle, Pod):
                check_may_join(handle)
            member = _member_of(handle)
            taken = member is not None and member.group is not None
            if taken or handle in handles[:number]:
                raise PodError(f"{handle!r} is already in a group", hint="a pod can be in only one group")
        members = (self.add(each) if isinstance(each, Pod) else each.member for each in handles)
        return Group(tuple(members), limits)

    async def close(self, pods: Sequence[Pod], seconds: float) -> None:
        """Start none of these again; those that have failed come to their end first, within ``seconds``."""
        failed = []
        for pod in pods:
            supervisor = pod.address
            if isinstance(supervisor, PodSupervisor):
                supervisor._stop_asked = True  # noqa: SLF001 - of the same module
                actor = actor_of(pod)
                if actor.ended:
                    failed.append(supervisor.shut_down())
        if failed:
            await asyncio.wait([asyncio.ensure_future(each) for each in failed], timeout=seconds)
