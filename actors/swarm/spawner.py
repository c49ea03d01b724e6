"""``Spawner``: makes the actors of a system's pods: new ones, sub-agents, and successors of failed ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from actors.llm.base import is_client
from actors.pod.address import Mailboxes
from actors.pod.handle import Pod
from actors.pod.local import actor_of, shut_down
from actors.pod.resources import Given, MakePrompt, PodResources
from actors.pod.runs.options import SystemPrompt
from actors.pod.runs.own_options import checked_prompt
from actors.pod.session.lifecycle import Resumed
from actors.runtime.events.bus import Bus
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom
from actors.sessions.head import check_session_name, composed
from actors.swarm.roster import Roster
from protocol.errors import InvalidInput, PolypodError
from protocol.foreign import shown
from protocol.manifest import PodManifest
from protocol.names import check_name
from protocol.text import encodable

if TYPE_CHECKING:
    from actors.pod.assembly import Assembly
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.idle_reaper import IdleReaper
    from actors.pod.pod import PodActor
    from actors.swarm.supervision import Started, Supervision


class Wanted(Struct, frozen=True, eq=False):
    """A pod that is to be made, as ``PodSystem.spawn`` is asked for it."""

    #: Gives its handle.
    future: AsyncFuture[Pod]
    manifest: PodManifest
    given: Given
    name: str | None
    resume: str | None
    exact: bool
    #: The name of its session, which is made where there is none; None: a new one.
    session: str | None = None


def check_manifest(manifest: object) -> None:
    """Raise InvalidInput for what is not a manifest."""
    if not isinstance(manifest, PodManifest):
        raise InvalidInput(
            f"manifest: expected a PodManifest, got {shown(manifest)}",
            hint="create one with PodManifest.of(…), or read one with PodManifest.load(path)",
        )


def check_spawn(
    manifest: object, client: object, resume: object, session: str | None, *, process: bool
) -> None:
    """Raise InvalidInput for arguments of ``PodSystem.spawn`` that nothing can be made of."""
    check_manifest(manifest)
    if resume is not None and not isinstance(resume, str):
        raise InvalidInput(f"resume: expected the id of a session, got {shown(resume)}")
    if client is not None and not process and not is_client(client):
        hint = (
            "an import path needs process=True" if isinstance(client, str) else "a client has a method stream"
        )
        raise InvalidInput(f"client: {shown(client)} is not a client", hint=hint)
    if session is not None:
        check_session_name(session)
        if resume is not None:
            raise InvalidInput("a pod has one session: pass session or resume, not both")


def with_prompt(
    manifest: PodManifest, prompt: SystemPrompt | None, *, process: bool
) -> tuple[PodManifest, MakePrompt | None]:
    """The manifest with a system prompt that is a text, or what makes the prompt of each run. Raises
    InvalidInput.
    """
    if prompt is None:
        return manifest, None
    if isinstance(prompt, str):
        return manifest.replace(pod=replace(manifest.pod, system_prompt=encodable(prompt))), None
    make_prompt = checked_prompt(prompt)
    if process:
        raise InvalidInput("system_prompt: a function cannot be sent to another process")
    return manifest, make_prompt


class Spawner:
    """Makes pods and has them live. Used on the loop of their system alone.

    ``room`` gives the mail room of a system that is entered and not being left, else it raises
    SystemNotRunning.
    """

    __slots__ = ("_bus", "_mailboxes", "_room", "_roster", "_supervision", "assembly", "leaving", "reaper")

    #: What puts the parts of a pod together.
    assembly: Assembly

    def __init__(self, room: Callable[[], Mailroom], roster: Roster, bus: Bus, mailboxes: Mailboxes) -> None:
        self._room = room
        self._roster = roster
        self._bus = bus
        self._mailboxes = mailboxes
        #: What passivates pods that are idle; None where nothing does.
        self.reaper: IdleReaper | None = None
        #: Whether the system is being left: then runs are paused, and none of them ends.
        self.leaving = False
        self._supervision: Supervision | None = None

    @property
    def supervision(self) -> Supervision | None:
        """What starts pods again that fail; None while no pod is supervised."""
        return self._supervision

    def ensure_supervision(self) -> Supervision:
        """What starts pods again that fail, which is made where there is none."""
        if self._supervision is None:
            from actors.swarm.supervision import Supervision  # noqa: PLC0415 - paid for by whoever supervises

            self._supervision = Supervision(self._room(), self._bus, self._mailboxes, self)
        return self._supervision

    # -- pods --------------------------------------------------------------------------------------

    def spawn(self, wanted: Wanted) -> bool:
        """Make a pod; the future gives its handle once it takes commands. False where that was refused."""
        manifest, resume = wanted.manifest, wanted.resume
        try:
            room = self._room()
            name = self._roster.choose_name(manifest.pod.name, wanted.name)
            session = None if wanted.session is None else composed(wanted.session)
            resources = self.assembly.resources(manifest, name, wanted.given, session_id=session)
        except Exception as error:  # noqa: BLE001 - who spawned gets it
            wanted.future.set_exception(error)
            return False
        resumed = None
        if resume is not None:  # an id that is not text is not a session's either
            resumed = Resumed(encodable(resume), wanted.exact)
        elif wanted.session is not None:
            resumed = Resumed(wanted.session, exact=False, or_new=True)
        self._begin(room, wanted.future, resources, resumed)
        return True

    def _begin(
        self, room: Mailroom, future: AsyncFuture[Pod], resources: PodResources, resumed: Resumed | None
    ) -> None:
        """Have a pod live; ``future`` gives its handle once it takes commands."""
        name, parent = resources.name, resources.parent
        actor = self._make_actor(room, resources, resumed)
        pod = self._roster.pods[name] = Pod(name, self._mailboxes, actor)
        if parent is not None:
            self._bus.adopt(name, parent)
        elif resources.template.supervised:
            self.ensure_supervision().add(pod)
        self._attach(actor)
        actor.started = partial(self._finish_start, pod, future)
        actor.begin()
        if not future.done():
            self._roster.starting[name] = future

    def _make_actor(self, room: Mailroom, resources: PodResources, resumed: Resumed | None) -> PodActor:
        from actors.pod.pod import PodActor  # noqa: PLC0415 - paid for by whoever has a pod

        return PodActor.make(room, self, resources, resumed)

    def _finish_start(self, pod: Pod, future: AsyncFuture[Pod], error: BaseException | None) -> None:
        """Note that a pod lives, or does not, since there was an ``error``."""
        self._roster.starting.pop(pod.name, None)
        if error is None:
            future.set(pod)
        else:
            if (supervisor := actor_of(pod).supervisor) is not None:  # it supervises what lives once
                supervisor.note_stop()
            future.set_exception(error)

    def _attach(self, actor: PodActor) -> None:
        sources = actor.resources.template.sources
        if sources is not None:
            sources.hold()
        if self.reaper is not None:
            actor.reaper = self.reaper
            self.reaper.watch(actor)

    # -- as the registry of their actors -----------------------------------------------------------

    def register(self, actor: PodActor, /) -> None:
        """Know a pod's actor: its handle is put in place by ``spawn``."""

    def unregister(self, actor: PodActor, /) -> None:
        """Forget a pod that has stopped."""
        resources, pods = actor.resources, self._roster.pods
        pod = pods.get(resources.name)
        if pod is not None and actor_of(pod) is actor:
            if actor.supervisor is None:
                del pods[resources.name]
            if resources.template.sources is not None:
                resources.template.sources.release()
            if resources.parent is not None:
                self._bus.disown(resources.name)

    # -- sub-agents, as their parents have them ----------------------------------------------------

    def prepare(self, manifest: PodManifest, name: str, parent: Delegation) -> PodResources:
        """What a sub-agent is to work with. Raises NameTaken, ManifestError, ModelError, BudgetError."""
        self._room()
        check_name(name, "the name of a sub-agent")
        self._roster.check_free(name)
        return self.assembly.resources(manifest, name, parent.given, parent)

    def start(self, resources: PodResources, resumed: Resumed | None) -> AsyncFuture[Pod]:
        """Have a sub-agent live. The future raises as that of ``spawn``."""
        future: AsyncFuture[Pod] = AsyncFuture()
        try:
            self._roster.check_free(resources.name)
            self._begin(self._room(), future, resources, resumed)
        except PolypodError as error:
            future.set_exception(error)
        return future

    def shut_down(self, pod: Pod) -> AsyncFuture[bool]:
        """End a sub-agent with its run paused."""
        return shut_down(pod)

    # -- pods that failed, as their supervisors have them ------------------------------------------

    def replace(self, pod: Pod, started: Started, /) -> PodActor:
        """Make the actor that takes the place of a pod's that failed; its supervisor begins it."""
        room, roster = self._room(), self._roster
        failed = actor_of(pod)
        resources = self.assembly.renewed(failed.resources)
        starting = roster.starting[pod.name] = AsyncFuture()

        def finish_start(error: BaseException | None) -> None:
            roster.starting.pop(pod.name, None)
            starting.set(pod)
            started(error)

        resumed = Resumed(failed.durable_position()[0], exact=False)
        actor = self._make_actor(room, resources, resumed)
        actor.started = finish_start
        pod._actor = actor  # noqa: SLF001 - the handle follows
        self._attach(actor)
        return actor

    def forget(self, pod: Pod, /) -> None:
        """Forget a supervised pod that has ended for good."""
        self._roster.forget(pod)
