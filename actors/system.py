"""``PodSystem``: composes the rest and holds the pods; the one object that programs and entry points use."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec
import pykka

from actors.llm.base import LLMClient
from actors.llm.prices import Prices, load_prices, standard_prices
from actors.llm.scripted import ScriptedClient
from actors.pod.address import Mailboxes
from actors.pod.assembly import Assembly
from actors.pod.budget import Totals
from actors.pod.handle import Pod
from actors.pod.lifecycle import Resumed
from actors.pod.pod import PodActor, ShutDown
from actors.pod.resources import PodResources
from actors.pod.restore import interrupted
from actors.runtime.bus import Bus
from actors.runtime.fork import let_be
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import LoopThread, Mailroom, mailroom_here
from actors.runtime.ref import AsyncActorRef
from actors.runtime.subscription import EncodedSubscription, Feed, Subscription
from actors.sessions.answers import discard_answer, settled, wait_for_releases
from actors.sessions.store import SessionInfo, SessionStore
from actors.sessions.urls import open_store
from actors.tools.pool import ToolThreads
from protocol import commands
from protocol.errors import (
    NameTaken,
    PodNotFound,
    PolypodError,
    SessionError,
    SystemNotRunning,
    SystemOfParent,
    UnknownApproval,
)
from protocol.events import ApprovalRequested, EventKind
from protocol.manifest import BudgetSection, PodManifest
from protocol.names import check_name
from protocol.results import BudgetUse
from protocol.text import encodable

if TYPE_CHECKING:
    from actors.pod.delegation import Delegation
    from actors.pod.idle_reaper import IdleReaper
    from actors.swarm.supervision import Group, Started, Supervision

T = TypeVar("T")
S = TypeVar("S", Subscription, Feed)


class PodSystem:
    """Where pods live. Enter it with ``async with`` (pods run on the running loop) or with ``with``
    (on a loop in a thread of its own, also inside a running loop). Leaving it pauses what runs: see ``stop``.

    ``store`` is where sessions are kept: ``memory:``, ``jsonl:DIR``, ``sqlite:FILE`` (with
    ``?durability=process`` or ``power``), or a SessionStore, which its giver closes. ``on_conflict``
    says what a pod does that finds its session taken while it holds unsaved entries: ``fork`` or
    ``refuse``. ``outputs`` is the folder where tool output too long for a model is kept whole (by
    default one of the user's in the system's folder for temporary files), ``memory``
    the one for what pods keep of their histories (by default ``memory`` beside the sessions' files, or
    where there are none one like that of ``outputs``). ``prices``
    is a TOML file with prices of models, over those that polypod knows. ``passivate_after`` is the number
    of seconds after which an idle or paused pod leaves its history to the store, until a message needs it;
    None is never. ``budget`` limits what all pods together use up while the system is entered; a pod draws
    on it besides its own, and of ``seconds``, which is the time of all runs, each run may take what is left
    when it begins. ``grace`` is how many seconds a model's client or a tool has to end once it is cancelled,
    and a source of tools to close; one that takes longer is left to itself. ``memory_grace`` is how many
    seconds a stop and a compaction wait for memory jobs to finish; a stop then cancels them.
    ``store_grace`` is how many seconds the end of a pod
    waits for a store that does not answer. ``tool_threads`` is how many plain functions may be
    at work at once as tools of this system; by default all systems of a process share 32 threads.
    ``processes`` is how many child processes (commands, servers of tools) its pods may have at work at once:
    who wants to start one more waits for a place; None is any number. ``hooks`` are asked by every pod,
    before those that it is given itself.
    """

    def __init__(
        self,
        store: str | SessionStore = "memory:",
        *,
        on_conflict: Literal["fork", "refuse"] = "fork",
        outputs: str | Path | None = None,
        memory: str | Path | None = None,
        prices: str | Path | Prices | None = None,
        passivate_after: float | None = None,
        budget: BudgetSection | Mapping[str, float] | None = None,
        grace: float = 1.0,
        memory_grace: float = 5.0,
        store_grace: float = 5.0,
        tool_threads: int | None = None,
        processes: int | None = 64,
        hooks: Iterable[Any] = (),
    ) -> None:
        self._prices = prices if isinstance(prices, Prices) else _prices(prices)
        self._memory = None if memory is None else Path(memory)
        self._outputs = _folder("outputs") if outputs is None else Path(outputs)
        self._store_given = store
        if on_conflict not in {"fork", "refuse"}:
            raise ValueError(f"on_conflict is 'fork' or 'refuse', not {on_conflict!r}")
        if passivate_after is not None and not 0 < passivate_after < math.inf:
            raise ValueError(
                f"passivate_after is a number of seconds above 0, or None, not {passivate_after}"
            )
        graces = {"grace": grace, "memory_grace": memory_grace, "store_grace": store_grace}
        for name, seconds in graces.items():
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{name} is a number of seconds, 0 or more, not {seconds}")
        self._graces = graces
        self._tool_threads = None if tool_threads is None else ToolThreads(tool_threads)
        if processes is not None and processes < 1:
            raise ValueError(f"processes is a number of child processes, 1 or more, not {processes}")
        self._processes = processes
        self._hooks = tuple(hooks)
        self._limits = None if budget is None else _limits(budget)
        self.on_conflict = on_conflict
        self.passivate_after = passivate_after
        self._reaper: IdleReaper | None = None
        #: Who starts pods again that fail; None until one is to be.
        self._supervision: Supervision | None = None
        self._bus = Bus()
        self._mailboxes = Mailboxes(self._subscription, self._feed)
        self._pods: dict[str, Pod] = {}
        #: Those among them that are not there yet, since the store has to be waited for.
        self._starting: dict[str, AsyncFuture[Pod]] = {}
        self._next_number: dict[str, int] = {}
        self._mailroom: Mailroom | None = None
        self._thread: LoopThread | None = None
        self._entered_by: asyncio.Task[Any] | None = None
        self._store: SessionStore | None = None
        self._assembly: Assembly | None = None
        #: In order of their first pod; each is there once.
        self._scripts: dict[ScriptedClient, None] = {}
        #: Two threads that stop a system must wait for one stop.
        self._stop_lock = threading.RLock()  # reentrant: a signal's handler may stop it as well
        _systems.add(self)
        self._stopping: AsyncFuture[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped" if self._stopping else "not entered"
        return f"<PodSystem {state}, {len(self._pods)} pods>"

    # -- life ----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether pods can be spawned."""
        return self._mailroom is not None and self._stopping is None

    @property
    def store(self) -> SessionStore:
        """Where the sessions are kept. Raises SystemNotRunning."""
        self._room()
        assert self._store is not None
        return self._store

    def _open(self, mailroom: Mailroom) -> None:
        if self._of_parent:
            raise SystemOfParent
        if self._mailroom is not None:
            raise SystemNotRunning("a PodSystem can be entered once", hint="make a new one")
        for system in list(_systems):
            system.let_go_if_dead()
        given = self._store_given
        self._store = open_store(given) if isinstance(given, str) else given
        memory = self._memory or _memory_of(self._store)
        self._assembly = Assembly(
            self._store,
            self._bus,
            self._outputs,
            self.on_conflict,
            self._prices,
            memory,
            self._limits,
            **self._graces,
            closing=self._loop_closes,
            threads=self._tool_threads,
            processes=self._processes,
            nursery=self,
        )
        if self.passivate_after is not None:
            from actors.pod.idle_reaper import IdleReaper  # noqa: PLC0415 - paid for by systems that passivate

            self._reaper = IdleReaper(self.passivate_after, mailroom.loop)
        self._mailroom = mailroom
        self._bus.loop = mailroom.loop

    async def __aenter__(self) -> Self:
        self._open(mailroom_here())
        self._entered_by = asyncio.current_task()
        return self

    def _loop_closes(self) -> bool:
        """Whether who entered the system has ended without leaving it: then its loop ends as well."""
        return self._entered_by is not None and self._entered_by.done() and self._stopping is None

    async def __aexit__(self, kind: object, *_: object) -> None:
        if self._left_in_child(kind):
            return
        await _to_its_end(self.stop())
        self._check_scripts(kind)

    def __enter__(self) -> Self:
        thread = LoopThread("polypod-system")
        try:
            self._open(thread.mailroom)
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._left_in_child(kind):
            return
        assert self._thread is not None
        try:
            self.stop().get()
        finally:
            self._thread.stop()
        self._check_scripts(kind)

    @property
    def _of_parent(self) -> bool:
        left = self._stopping is not None and self._stopping.done()
        return self._mailroom is not None and self._mailroom.of_parent and not left

    def _left_in_child(self, kind: object) -> bool:
        """Whether a forked child leaves its parent's system, which it lets be. Raises SystemOfParent, unless
        an exception is under way, such as that of ``sys.exit``.
        """
        if self._of_parent and kind is None:
            raise SystemOfParent
        return self._of_parent

    def let_go_if_dead(self) -> None:
        """Let go of the store where the event loop was closed before the system was left: its pods can do
        nothing any more, and their sessions would be taken for as long as this process lives.
        """
        room, store = self._mailroom, self._store
        if room is None or store is None or room.of_parent or not room.loop.is_closed():
            return
        _systems.discard(self)
        if self._assembly is not None:
            self._assembly.abandon_launcher()
        if store is not self._store_given:
            discard_answer(store.close)
            return
        for pod in self._pods.values():
            discard_answer(partial(store.release, _actor(pod).durable_position()[0]))

    def after_fork_in_child(self) -> None:
        """Be what a forked child may ask: one that was entered answers with SystemOfParent."""
        self._stop_lock = threading.RLock()
        if self._mailroom is not None:
            let_be(self)

    def _check_scripts(self, kind: object) -> None:
        if kind is None:
            for script in self._scripts:
                script.check()

    def stop(self) -> AsyncFuture[None]:
        """Shut down: stop all pods, the last started first, and let go of the store. Idempotent.

        What runs is paused, within ``grace``: its future resolves with outcome ``paused``, and its session
        can be resumed, as ``interrupted`` shows. Runs that wait behind it fail with PodStopped.
        """
        if self._of_parent:
            raise SystemOfParent
        with self._stop_lock:
            if self._stopping is None:
                self._stopping = AsyncFuture()
                if self._mailroom is None:
                    self._stopping.set(None)
                else:
                    self._stopping._loop = self._mailroom.loop  # noqa: SLF001
                    self._mailroom.post(self._begin_stop)
            return self._stopping

    def _begin_stop(self, _: object) -> None:
        assert self._mailroom is not None
        self._stop_task = self._mailroom.loop.create_task(self._stop_all())

    async def _stop_all(self) -> None:
        stopping = self._stopping
        assert stopping is not None
        assert self._assembly is not None
        assert self._store is not None
        try:
            async with contextlib.AsyncExitStack() as rest:  # what comes later is done though this fails
                if self._store is not self._store_given:
                    rest.push_async_callback(_close, self._store)
                rest.callback(self._bus.close)
                if self._tool_threads is not None:
                    rest.callback(self._tool_threads.close)
                rest.push_async_callback(self._assembly.models.aclose)
                rest.push_async_callback(self._assembly.close_launcher)
                rest.push_async_callback(self._assembly.close_sources)
                if self._reaper is not None:
                    rest.callback(self._reaper.stop)
                rest.push_async_callback(wait_for_releases, self._graces["store_grace"])
                if self._supervision is not None:
                    await self._supervision.close(self.pods(), sum(self._graces.values()))
                for stopped in [_shut_down(pod) for pod in reversed(list(self._pods.values()))]:
                    await stopped
        except BaseException as error:  # noqa: BLE001 - who waits for the stop gets it
            stopping.set_exception(error)
        else:
            stopping.set(None)

    # -- pods ----------------------------------------------------------------------------------

    def spawn(
        self,
        manifest: PodManifest,
        *,
        client: LLMClient | None = None,
        tools: Iterable[Any] = (),
        name: str | None = None,
        resume: str | None = None,
        exact: bool = False,
        deps: Any = None,
        hooks: Iterable[Any] = (),
    ) -> AsyncFuture[Pod]:
        """Make a pod; the future gives its handle once it takes commands.

        ``client`` answers instead of the manifest's model; ``tools`` are added to its built-in ones, and find
        ``deps`` (a database, a client, whatever they work with) as ``ctx.deps``. Among them may be a
        ``ToolSource``, whose tools come and go; pods that are given the same one share it. ``hooks`` are
        objects that are asked before each request and about each call of a tool, and notified of each run's
        end, behind those of the system. ``resume`` is the id of a session to go on with: the tip of its
        compactions, or with ``exact`` that very one. Raises NameTaken for an explicit ``name`` that is in use
        (a manifest's name gets a number), ManifestError (also for a name that no pod can have), InvalidInput
        for what is no hook, SystemNotRunning, SessionNotFound, SessionInUse, SessionCorrupt.
        """
        mailroom = self._room()
        future: AsyncFuture[Pod] = AsyncFuture()
        options = (manifest, client, tuple(tools), name, resume, exact, deps, (*self._hooks, *hooks))
        if mailroom.here():
            self._spawn(future, *options)
        else:
            future._loop = mailroom.loop  # noqa: SLF001
            mailroom.post(lambda _: self._spawn(future, *options))
        return future

    def _spawn(
        self,
        future: AsyncFuture[Pod],
        manifest: PodManifest,
        client: LLMClient | None,
        tools: tuple[Any, ...],
        explicit: str | None,
        resume: str | None,
        exact: bool,
        deps: Any,
        hooks: tuple[Any, ...],
    ) -> None:
        try:
            self._room()
            assert self._assembly is not None
            assert self._store is not None
            name = self._name(manifest, explicit)
            resources = self._assembly.resources(manifest, name, client, tools, deps, hooks)
        except Exception as error:  # noqa: BLE001 - who spawned gets it
            future.set_exception(error)
            return
        if isinstance(client, ScriptedClient):
            self._scripts[client] = None
        # An id that is no text is no session's either.
        self._begin(future, resources, None if resume is None else Resumed(encodable(resume), exact))

    def _begin(self, future: AsyncFuture[Pod], resources: PodResources, resumed: Resumed | None) -> None:
        """Have a pod live; ``future`` gives its handle once it takes commands."""
        mailroom, name = self._room(), resources.name

        def finish_start(error: BaseException | None) -> None:
            self._starting.pop(name, None)
            if error is None:
                future.set(pod)
            else:
                if actor.supervisor is not None:  # it supervises what lives once
                    actor.supervisor.note_stop()
                future.set_exception(error)

        actor = PodActor.make(mailroom, self, resources, resumed, finish_start)
        pod = self._pods[name] = Pod(name, self._mailboxes, actor.actor_ref)
        if resources.parent is None and resources.template.manifest.restart.is_supervised:
            self._supervised().add(pod)
        if resources.template.sources is not None:
            resources.template.sources.hold()
        if self._reaper is not None:
            actor.reaper = self._reaper
            self._reaper.watch(actor)
        if resources.parent is not None:
            self._bus.adopt(name, resources.parent)
        actor.begin()
        if not future.done():
            self._starting[name] = future

    def _name(self, manifest: PodManifest, explicit: str | None) -> str:
        check_name(manifest.pod.name if explicit is None else explicit, "the name of a pod")
        if explicit is not None:
            self._check_free(explicit)
            return explicit
        base = manifest.pod.name
        if base not in self._pods:
            return base
        number = self._next_number.get(base, 2)
        while f"{base}-{number}" in self._pods:
            number += 1
        self._next_number[base] = number + 1
        return f"{base}-{number}"

    # -- sub-agents, as their parents have them ------------------------------------------------------

    @property
    def leaving(self) -> bool:
        """Whether the system is being left: then runs are paused, and none of them ends."""
        return self._stopping is not None

    def prepare(self, manifest: PodManifest, name: str, parent: Delegation) -> PodResources:
        """What a sub-agent is to work with. Raises NameTaken, ManifestError, ModelError, BudgetError."""
        self._room()
        assert self._assembly is not None
        own = parent.inherited
        check_name(name, "the name of a sub-agent")
        self._check_free(name)
        return self._assembly.resources(manifest, name, own.client, own.tools, own.deps, own.hooks, parent)

    def start(self, resources: PodResources, resumed: Resumed | None) -> AsyncFuture[Pod]:
        """Have a sub-agent live. The future raises as that of ``spawn``."""
        future: AsyncFuture[Pod] = AsyncFuture()
        try:
            self._check_free(resources.name)
            self._begin(future, resources, resumed)
        except PolypodError as error:
            future.set_exception(error)
        return future

    def shut_down(self, pod: Pod) -> AsyncFuture[bool]:
        """End a sub-agent with its run paused."""
        return _shut_down(pod)

    def _check_free(self, name: str) -> None:
        if name in self._pods:
            raise NameTaken(f"there is a pod named {name!r}", hint="stop it or choose another")

    def interrupted(self, pod: str | None = None, limit: int = 100) -> AsyncFuture[list[SessionInfo]]:
        """The sessions (of one pod) whose last run waits to be resumed: it was paused, by hand or by the end
        of its system, or cut off by a crash. The last changed one first, of the last ``limit`` that changed.
        Those that a living pod holds, here or in another process, are not among them. ``spawn(resume=…)`` of
        their ids, then ``pod.resume()``. Raises SystemNotRunning, StoreError.
        """
        store = self.store
        return self._ask_on_loop(lambda: interrupted(store, pod, limit))

    def register(self, actor_ref: pykka.ActorRef[Any], /) -> None:
        """Know a pod's actor: its handle is put in place by ``spawn``."""

    def unregister(self, actor_ref: pykka.ActorRef[Any], /) -> None:
        """Forget a pod that has stopped."""
        resources = actor_ref.actor.resources  # type: ignore[attr-defined] # it is an AsyncActorRef
        pod = self._pods.get(resources.name)
        if pod is not None and pod.ref is actor_ref:
            if actor_ref.actor.supervisor is None:  # type: ignore[attr-defined] # the same
                del self._pods[resources.name]
            if resources.template.sources is not None:
                resources.template.sources.release()
            if resources.parent is not None:
                self._bus.disown(resources.name)

    def pods(self) -> list[Pod]:
        """The pods that live, in order of their start."""
        return list(self._pods.values())

    def get(self, name: str) -> Pod:
        """The living pod of that name. Raises PodNotFound."""
        try:
            return self._pods[name]
        except KeyError:
            raise PodNotFound(f"no pod named {name!r}", hint="see pods()") from None

    # -- supervision ---------------------------------------------------------------------------

    def supervise(self, pods: Iterable[Pod], *, max_restarts: int = 3, window_seconds: float = 60.0) -> Group:
        """Supervise living pods together: one that fails is started again alone, on its session. Their
        limits are the group's: of all together at most ``max_restarts`` within ``window_seconds``. One more,
        and the others are stopped, the last first, with their runs paused: ``RestartsExhausted`` says so, and
        the group's ``wait()`` raises. Raises PodStopped, PodError for a pod that is in a group, ValueError,
        SystemNotRunning.
        """
        self._room()
        if max_restarts < 0 or not 0 < window_seconds < math.inf:
            raise ValueError("max_restarts is 0 or more, and window_seconds a number of seconds above 0")
        from actors.runtime.restarts import Limits  # noqa: PLC0415 - paid for by who supervises

        members, limits = tuple(pods), Limits(max_restarts, window_seconds)
        return self._on_loop(lambda: self._supervised().group(members, limits))

    def _supervised(self) -> Supervision:
        from actors.swarm.supervision import Supervision  # noqa: PLC0415 - the same

        if self._supervision is None:
            self._supervision = Supervision(self._room(), self._bus, self._mailboxes, self)
        return self._supervision

    def replace(self, pod: Pod, started: Started, /) -> PodActor:
        """Make the actor that takes the place of a pod's that failed; its supervisor begins it."""
        mailroom = self._room()
        assert self._assembly is not None
        failed = _actor(pod)
        resources = self._assembly.renewed(failed.resources)
        starting = self._starting[pod.name] = AsyncFuture()

        def finish_start(error: BaseException | None) -> None:
            self._starting.pop(pod.name, None)
            starting.set(pod)
            started(error)

        resumed = Resumed(failed.durable_position()[0], exact=False)
        actor = PodActor.make(mailroom, self, resources, resumed, finish_start)
        pod._ref = actor.actor_ref  # noqa: SLF001 - the handle follows
        if resources.template.sources is not None:
            resources.template.sources.hold()
        if self._reaper is not None:
            actor.reaper = self._reaper
            self._reaper.watch(actor)
        return actor

    def forget(self, pod: Pod, /) -> None:
        """A supervised pod has ended for good."""
        if self._pods.get(pod.name) is pod:
            del self._pods[pod.name]

    # -- approvals -----------------------------------------------------------------------------

    def approvals(self) -> AsyncFuture[list[ApprovalRequested]]:
        """The calls of all living pods that wait for a person's word, the oldest first. Raises
        SystemNotRunning.
        """
        return self._ask_on_loop(self._find_waiting)

    async def _find_waiting(self) -> list[ApprovalRequested]:
        found = [request for pod in self._pods.values() for request in self._open_approvals(pod)]
        if found and self.store.keeps_answers:
            with contextlib.suppress(SessionError):  # then who answers gets AlreadyResolved
                answers = await settled(self.store.answers([each.approval_id for each in found]))
                answered = {(each.approval_id, each.session_id) for each in answers}
                found = [each for each in found if (each.approval_id, each.session_id) not in answered]
        return sorted(found, key=lambda request: request.at)

    def approve(
        self,
        approval_id: str,
        *,
        always: bool = False,
        arguments: dict[str, Any] | None = None,
        note: str | None = None,
    ) -> AsyncFuture[None]:
        """As ``Pod.approve``, of whichever living pod has asked."""
        return self._answered(approval_id, commands.Approve(approval_id, always, arguments, note))

    def deny(
        self, approval_id: str, *, note: str | None = None, by: Literal["person", "nobody"] = "person"
    ) -> AsyncFuture[None]:
        """As ``Pod.deny``, of whichever living pod has asked."""
        return self._answered(approval_id, commands.Disapprove(approval_id, note, by))

    def _open_approvals(self, pod: Pod) -> tuple[ApprovalRequested, ...]:
        approvals = None if pod.name in self._starting else _actor(pod).approvals
        return () if approvals is None else approvals.durable_open()

    def _has_asked(self, pod: Pod, approval_id: str) -> bool:
        approvals = None if pod.name in self._starting else _actor(pod).approvals
        return approvals is not None and approvals.knows(approval_id)

    def _answered(self, approval_id: str, command: commands.Command) -> AsyncFuture[None]:
        mailroom = self._room()
        future: AsyncFuture[None] = AsyncFuture()
        future._loop = mailroom.loop  # noqa: SLF001

        def ask(_: object) -> None:
            pod = next((each for each in self._pods.values() if self._has_asked(each, approval_id)), None)
            if pod is None:
                unknown = UnknownApproval(f"no pod has asked for an approval {encodable(approval_id)!r:.80}")
                future.set_exception(unknown)
                return
            answer = self._mailboxes.ask(pod, command)
            answer.when_done(lambda: _settle(future, answer.get))

        mailroom.post(ask)
        return future

    def _ask_on_loop(self, look: Callable[[], Coroutine[Any, Any, T]]) -> AsyncFuture[T]:
        """What ``look`` comes to on the system's loop."""
        mailroom = self._room()
        future: AsyncFuture[T] = AsyncFuture()
        future._loop = mailroom.loop  # noqa: SLF001

        async def answer() -> None:
            try:
                future.set(await look())
            except Exception as error:  # noqa: BLE001 - goes to who asked
                future.set_exception(error)

        def start(_: object) -> None:
            task = mailroom.loop.create_task(answer())
            future.when_done(lambda: task)  # the loop itself does not hold on to its tasks

        mailroom.post(start)
        return future

    # -- events --------------------------------------------------------------------------------

    def subscribe(
        self,
        pod: str | Pod | None = None,
        kinds: Collection[EventKind] | EventKind | None = None,
        since: int | Mapping[str, int] | None = None,
        *,
        children: bool = False,
    ) -> Subscription:
        """Events from now on: of one pod (by name) or all, of some kinds or all; with ``children`` also of
        the pod's sub-agents and theirs, whenever they begin.

        With ``since`` every durable event numbered above it comes first, also those of the sessions
        that the pod's session was compacted or forked from; what of these was deleted is reported by a
        ``Lagged`` in its place. Of all pods, ``since`` may map names to
        numbers. A pod that does not live is looked for in the store. Raises SessionNotFound,
        SystemNotRunning.
        """
        self._room()
        return self._subscription(pod, kinds, since, children=children)

    def subscribe_encoded(self) -> EncodedSubscription:
        """Events of all pods from now on, each with the bytes that the log keeps of it, for who writes them
        somewhere. Raises SystemNotRunning.
        """
        self._room()
        return self._bus.subscribe_encoded()

    def _subscription(
        self,
        pod: str | Pod | None,
        kinds: Collection[EventKind] | EventKind | None,
        since: int | Mapping[str, int] | None,
        *,
        children: bool = False,
    ) -> Subscription:
        """The same, also for the handle of a pod whose system has been left: then it is at its end."""
        if self._of_parent:
            raise SystemOfParent
        if not isinstance(since, int | Mapping | None):
            raise TypeError(f"since: expected the number of an entry, or names with such, got {since!r}")
        name = pod.name if isinstance(pod, Pod) else pod
        subscription = self._bus.subscribe(name, kinds, children=children)
        return self._from(since, name, subscription, children=children)

    def _feed(self, pod: str, kinds: Collection[EventKind] | EventKind | None, since: int | None) -> Feed:
        """The same for who sends the events of one pod on, as bytes."""
        if self._of_parent:
            raise SystemOfParent
        return self._from(since, pod, self._bus.feed(pod, kinds))

    def _from(
        self,
        since: int | Mapping[str, int] | None,
        name: str | None,
        subscription: S,
        *,
        children: bool = False,
    ) -> S:
        """The subscription, with what is to come first."""
        if since is not None:
            try:
                self._replay(subscription, self._named(name, children=children), since)
            except BaseException:
                subscription.close()
                raise
        return subscription

    def _named(self, name: str | None, *, children: bool) -> list[str]:
        """The pods whose past is asked for."""
        if name is None:
            return list(self._pods)
        return [name, *self._bus.below(name)] if children else [name]

    def _replay(
        self, subscription: Subscription | Feed, names: list[str], since: int | Mapping[str, int]
    ) -> None:
        after = {each: since if isinstance(since, int) else since.get(each, 0) for each in names}
        assert self._store is not None
        from actors.pod.past_events import PastEvents  # noqa: PLC0415 - paid for by who asks for the past

        past = PastEvents(self._store, after, self._wait_until_started, self._position)
        subscription.replay(past, self._on_loop)

    async def _wait_until_started(self, name: str) -> None:
        """Wait for a pod that is being started."""
        if (starting := self._starting.get(name)) is not None:
            await asyncio.wait((asyncio.ensure_future(starting),))

    def _position(self, name: str) -> tuple[str, int] | None:
        """The session of a pod that lives, and its last durable entry."""
        pod = None if name in self._starting else self._pods.get(name)
        return None if pod is None else _actor(pod).durable_position()

    @property
    def totals(self) -> Totals:
        """What all pods have consumed together: calls, tokens and US dollars."""
        self._room()
        assert self._assembly is not None
        return self._assembly.totals

    @property
    def budget(self) -> BudgetUse | None:
        """What all pods have used of the system's budget; None where it has none."""
        self._room()
        assert self._assembly is not None
        shared = self._assembly.budget
        return None if shared is None else shared.use()

    def statistics(self) -> dict[str, int]:
        """How many pods live, how many of them are passive, and what waits on the bus."""
        pods = self.pods()
        return {
            "pods": len(pods),
            "passive": sum(_actor(pod).passive for pod in pods),
            **self._bus.statistics(),
        }

    # -- helpers -------------------------------------------------------------------------------

    def _room(self) -> Mailroom:
        if self._of_parent:
            raise SystemOfParent
        if self._mailroom is None or self._stopping is not None:
            what = "has been left" if self._stopping is not None else "was not entered"
            raise SystemNotRunning(f"the PodSystem {what}", hint="use it inside `with` or `async with`")
        return self._mailroom

    def _on_loop(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done on the system's loop; waits where the caller is elsewhere."""
        mailroom = self._mailroom
        if mailroom is None:
            raise SystemNotRunning("the PodSystem was not entered")
        if mailroom.here():
            return work()
        future: AsyncFuture[T] = AsyncFuture()
        future._loop = mailroom.loop  # noqa: SLF001
        mailroom.post(lambda _: _settle(future, work))
        return future.get()


async def _close(store: SessionStore) -> None:
    await settled(await asyncio.to_thread(store.close))


def _actor(pod: Pod) -> PodActor:
    actor: PodActor = pod.ref.actor  # type: ignore[attr-defined] # it is an AsyncActorRef
    return actor


def _shut_down(pod: Pod) -> AsyncFuture[bool]:
    ref: AsyncActorRef[PodActor] = pod.ref  # type: ignore[assignment]
    return ref.stop_by(ShutDown())


async def _to_its_end(stop: AsyncFuture[None]) -> None:
    """Wait for a stop, which is bounded, also where who waits is cancelled meanwhile, and only then."""
    cancelled: asyncio.CancelledError | None = None
    while not stop.done():
        try:
            await stop
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    await stop


def _prices(path: str | Path | None) -> Prices:
    return standard_prices() if path is None else load_prices(path)


def _limits(budget: BudgetSection | Mapping[str, float]) -> BudgetSection:
    """The limits, as a manifest's ``[budget]`` would have them. Raises ManifestError."""
    asked = msgspec.structs.asdict(budget) if isinstance(budget, BudgetSection) else dict(budget)
    return PodManifest.of(budget=asked).budget


def _memory_of(store: SessionStore) -> Path:
    """Memory lasts as long as the sessions that it was taken from."""
    return _folder("memory") if store.folder is None else store.folder / "memory"


def _folder(name: str) -> Path:
    import tempfile  # noqa: PLC0415 - loads what unpacks archives too

    return Path(tempfile.gettempdir(), f"polypod-{os.getuid()}", name)


def _settle(future: AsyncFuture[T], work: Callable[[], T]) -> None:
    try:
        future.set(work())
    except Exception as error:  # noqa: BLE001 - goes to who waits
        future.set_exception(error)


_systems: weakref.WeakSet[PodSystem] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for system in list(_systems):
        system.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
