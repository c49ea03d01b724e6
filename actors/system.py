"""``PodSystem``: composes the rest; the one object that programs and entry points enter, use and leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar, Unpack, overload

from actors.llm.base import LLMClient
from actors.llm.prices import Prices
from actors.llm.scripted import ScriptedClient
from actors.pod.accounts.budget import Totals
from actors.pod.address import Kinds, Mailboxes, Since
from actors.pod.assembly import Assembly
from actors.pod.handle import Pod
from actors.pod.local import actor_of, lives_here, shut_down
from actors.pod.resources import Given
from actors.pod.runs.options import Content, RunOptions, SystemPrompt, run_command
from actors.pod.runs.run_state import new_run_id
from actors.pod.session.restore import interrupted
from actors.runtime.arguments import check_count, check_seconds, several, table_of, text_of
from actors.runtime.events.bus import Bus
from actors.runtime.events.subscription import EncodedSubscription, Feed, Subscription
from actors.runtime.fork import let_be
from actors.runtime.future import AsyncFuture
from actors.runtime.in_thread import in_thread
from actors.runtime.loop import LoopThread, Mailroom, mailroom_here
from actors.runtime.on_loop import ask_on, call_on, future_of
from actors.runtime.weak import members_of
from actors.sessions.answers import discard_answer, settled, wait_for_releases
from actors.sessions.head import composed
from actors.sessions.store import SessionInfo, SessionStore
from actors.sessions.urls import open_store
from actors.swarm.approvals import WaitingCalls
from actors.swarm.roster import Roster
from actors.swarm.settings import settings_of
from actors.swarm.spawner import Spawner, Wanted, check_spawn, with_prompt
from actors.swarm.subscriptions import Subscriptions
from actors.tools.thread_pool import ToolThreads
from protocol import commands
from protocol.errors import InvalidInput, SystemNotRunning, SystemOfParent
from protocol.events import ApprovalRequested, EventKind
from protocol.foreign import shown
from protocol.manifest import BudgetSection, PodManifest
from protocol.results import BudgetUse, RunResult

if TYPE_CHECKING:
    from actors.runtime.closing import Closing
    from actors.swarm.agents.home import Home
    from actors.swarm.groups import Group
    from actors.swarm.processes.process_pods import ProcessPods
    from actors.swarm.supervision import HasMember


T = TypeVar("T")


class _Entered(NamedTuple):
    """What a system has while it is entered."""

    mailroom: Mailroom
    store: SessionStore
    assembly: Assembly
    spawner: Spawner


class PodSystem:
    """Where pods live. Enter it with ``async with`` (pods run on the running loop) or with ``with``
    (on a loop in a thread of its own, also inside a running loop). Leaving it pauses what runs: see ``stop``.

    ``store`` is where sessions are kept: ``memory:``, ``jsonl:DIR``, ``sqlite:FILE`` (with
    ``?durability=process`` or ``power``), or a SessionStore, which you close yourself. ``on_conflict`` says
    what a pod does when it finds its session taken by another process while it holds unsaved entries:
    ``fork`` or ``refuse``. ``outputs`` is the folder where tool output too long for a model is kept whole (by
    default one of the user's in the system's folder for temporary files), ``memory`` the folder of lasting
    notes (by default ``memory`` beside the sessions' files, or, for a store without files, a folder like that
    of ``outputs``). ``prices`` is a TOML file with prices of models, over those that polypod knows.
    ``passivate_after`` is the number of seconds after which an idle or paused pod drops its history from
    memory, until a message needs it again; None means never. ``budget`` limits what all pods together use
    while the system is entered, in addition to the budget of each pod. Its ``seconds`` count the time of all
    runs, and a run may take what is left when it begins. ``grace`` is how many seconds a model's client or a
    tool has to end once it is cancelled, and a source of tools to close; what takes longer is abandoned.
    ``memory_grace`` is how many seconds a stop and a compaction wait for memory jobs to finish; a stop then
    cancels them. ``store_grace`` is how many seconds the end of a pod waits for a store that does not answer.
    ``tool_threads`` is how many tools of this system that are plain functions may run at once, not counting
    those that wait for other pods; by default all systems of a process share 32 threads. ``processes`` is how
    many child processes (commands, servers of tools) its pods may run at once: one more waits until another
    has ended; None means any number. ``hooks`` are asked by every pod, before those that it is given itself.
    ``chains`` are the escalation chains by name, for pods whose model is ``chain/NAME``; other names are
    looked up in the ``polypod.toml`` of the folder that a pod works in.
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
        chains: Mapping[str, LLMClient] | None = None,
    ) -> None:
        # Here, on the thread that may fork as well: a process that is forked while another thread imports
        # a module can never import it.
        import_module("actors.pod.pod")
        self._settings = settings_of(
            on_conflict,
            outputs,
            memory,
            prices,
            passivate_after,
            budget,
            processes,
            grace=grace,
            memory_grace=memory_grace,
            store_grace=store_grace,
        )
        if not isinstance(store, str) and not hasattr(store, "claim"):
            hint = "use memory:, sqlite:FILE or jsonl:DIR"
            raise InvalidInput(f"store: expected a URL or a SessionStore, got {shown(store)}", hint=hint)
        if tool_threads is not None:
            check_count("tool_threads", tool_threads, 1, "threads")
        self._store_given = store
        self._tool_threads = None if tool_threads is None else ToolThreads(tool_threads)
        self._hooks = several("hooks", hooks)
        self._chains = {} if chains is None else table_of("chains", chains)
        self._bus = Bus()
        self._roster = Roster()
        self._subscriptions = Subscriptions(self._bus, self._roster)
        self._mailboxes = Mailboxes(self._subscribe, self._feed)
        self._entered: _Entered | None = None
        #: What starts pods that are processes; None while there was none.
        self._process_pods: ProcessPods | None = None
        self._thread: LoopThread | None = None
        #: Whether a stop is the end of that thread too, since nothing is left after it.
        self._ends_thread = False
        self._entered_by: asyncio.Task[Any] | None = None
        #: In order of their first pod; each is there once.
        self._scripts: dict[ScriptedClient, None] = {}
        #: What ends before the pods do.
        self._close_first: list[Closing] = []
        #: Held where a stop begins: two threads that stop a system wait for one stop. Reentrant, since a
        #: signal's handler may stop it as well.
        self._stop_lock = threading.RLock()
        _systems.add(self)
        self._stopping: AsyncFuture[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped" if self._stopping else "not entered"
        return f"<PodSystem {state}, {len(self._roster.pods)} pods>"

    # -- life ----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether pods can be spawned."""
        return self._entered is not None and self._stopping is None

    @property
    def on_conflict(self) -> Literal["fork", "refuse"]:
        """What a pod does that finds its session taken."""
        return self._settings.on_conflict

    @property
    def passivate_after(self) -> float | None:
        """Seconds after which an idle pod drops its history from memory; None means never."""
        return self._settings.passivate_after

    @property
    def store(self) -> SessionStore:
        """Where the sessions are kept. Raises SystemNotRunning."""
        return self._here().store

    def _open(self, mailroom: Mailroom) -> None:
        if self._of_parent:
            raise SystemOfParent
        if self._entered is not None:
            raise SystemNotRunning("a PodSystem can be entered only once", hint="create a new one")
        for system in members_of(_systems):
            system.let_go_if_dead()
        given, settings = self._store_given, self._settings
        store = open_store(given) if isinstance(given, str) else given
        spawner = Spawner(self._room, self._roster, self._bus, self._mailboxes)
        assembly = spawner.assembly = Assembly(
            store,
            self._bus,
            settings.outputs,
            settings.on_conflict,
            settings.prices,
            settings.memory_beside(store),
            settings.limits,
            **settings.graces,
            closing=self._loop_closes,
            threads=self._tool_threads,
            processes=settings.processes,
            spawner=spawner,
            chains=self._chains,
            find_chain=_find_chain,
        )
        if settings.passivate_after is not None:
            from actors.pod.idle_reaper import IdleReaper  # noqa: PLC0415 - paid for by systems that passivate

            spawner.reaper = IdleReaper(settings.passivate_after, mailroom.loop)
        self._entered = _Entered(mailroom, store, assembly, spawner)
        self._subscriptions.mailroom, self._subscriptions.store = mailroom, store
        self._bus.loop = mailroom.loop

    async def __aenter__(self) -> Self:
        self._open(mailroom_here())
        self._entered_by = asyncio.current_task()
        return self

    def _loop_closes(self) -> bool:
        """Whether the code that entered the system has ended without leaving it: then its loop
        ends as well.
        """
        return self._entered_by is not None and self._entered_by.done() and self._stopping is None

    async def __aexit__(self, kind: object, *_: object) -> None:
        if self._left_in_child(kind):
            return
        await _to_its_end(self.stop())
        self._check_scripts(kind)

    def start(self) -> Self:
        """Enter the system without ``with``, for notebooks and consoles, where it is used from one cell to
        the next. Its pods run on the running loop, or, if there is none, on a loop in a thread of its own.
        ``stop()`` leaves it.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.__enter__()
            self._ends_thread = True
        else:
            self._open(mailroom_here())
        return self

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
        return self._entered is not None and self._entered.mailroom.of_parent and not left

    def _left_in_child(self, kind: object) -> bool:
        """Whether a forked child leaves its parent's system, which must be left alone. Raises SystemOfParent,
        unless an exception is under way, such as that of ``sys.exit``.
        """
        if self._of_parent and kind is None:
            raise SystemOfParent
        return self._of_parent

    def let_go_if_dead(self) -> None:
        """Release the store if the event loop was closed before the system was left: its pods can do nothing
        any more, and would hold their sessions for as long as this process lives.
        """
        if (entered := self._entered) is None:
            return
        room, store = entered.mailroom, entered.store
        if room.of_parent or not room.loop.is_closed():
            return
        _systems.discard(self)
        entered.assembly.launchers.abandon()
        if store is not self._store_given:
            discard_answer(store.close)
            return
        for pod in filter(lives_here, self._roster.pods.values()):
            discard_answer(partial(store.release, actor_of(pod).durable_position()[0]))

    def after_fork_in_child(self) -> None:
        """Make this copy safe in a forked child: if the system was entered, all use of it raises
        SystemOfParent.
        """
        self._stop_lock = threading.RLock()
        if self._entered is not None:
            let_be(self)

    def _check_scripts(self, kind: object) -> None:
        if kind is None:
            for script in self._scripts:
                script.check()

    def stop(self) -> AsyncFuture[None]:
        """Shut down: stop all pods, the last started first, and close the store. Idempotent.

        A run that is under way is paused, within ``grace``: its future resolves with outcome ``paused``, and
        its session can be resumed, as ``interrupted`` shows. Runs that wait behind it fail with PodStopped.
        """
        if self._of_parent:
            raise SystemOfParent
        with self._stop_lock:
            if self._stopping is None:
                if (entered := self._entered) is None:
                    self._stopping = AsyncFuture()
                    self._stopping.set(None)
                else:
                    self._stopping = future_of(entered.mailroom)
                    entered.spawner.leaving = True
                    entered.mailroom.post(self._begin_stop)
                    if self._ends_thread and self._thread is not None:
                        self._stopping.when_done(self._thread.stop)
            return self._stopping

    def _begin_stop(self, _: object) -> None:
        assert self._entered is not None
        assert self._stopping is not None
        self._stop_task = self._entered.mailroom.loop.create_task(
            self._stop_all(self._entered, self._stopping)
        )

    async def _stop_all(self, entered: _Entered, stopping: AsyncFuture[None]) -> None:
        store, assembly, spawner = entered.store, entered.assembly, entered.spawner
        try:
            async with contextlib.AsyncExitStack() as rest:  # what comes later is done though this fails
                if store is not self._store_given:
                    rest.push_async_callback(_close, store)
                rest.callback(self._bus.close)
                if self._tool_threads is not None:
                    rest.callback(self._tool_threads.close)
                rest.push_async_callback(assembly.clients.aclose)
                rest.push_async_callback(assembly.launchers.aclose)
                rest.push_async_callback(assembly.tools.close_sources)
                if spawner.reaper is not None:
                    rest.callback(spawner.reaper.stop)
                rest.push_async_callback(wait_for_releases, self._settings.graces["store_grace"])
                for guest in reversed(self._close_first):
                    await guest.aclose()
                if spawner.supervision is not None:
                    await spawner.supervision.close(self.pods(), self._settings.grace)
                for stopped in [shut_down(pod) for pod in reversed(self.pods())]:
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
        client: LLMClient | str | None = None,
        tools: Iterable[Any] = (),
        name: str | None = None,
        resume: str | None = None,
        exact: bool = False,
        session: str | None = None,
        deps: Any = None,
        hooks: Iterable[Any] = (),
        system_prompt: SystemPrompt | None = None,
        process: bool = False,
    ) -> AsyncFuture[Pod]:
        """Make a pod; the future gives its handle once it takes commands.

        ``client`` answers instead of the manifest's model; ``tools`` are added to its built-in ones, and find
        ``deps`` (a database, a client, whatever they work with) as ``ctx.deps``. Among them may be a
        ``ToolSource``, whose tools come and go; pods that are given the same one share it. ``hooks`` are
        objects that are asked before each request and about each call of a tool, and notified of each run's
        end, behind those of the system. ``resume`` is the id of a session to go on with: the newest that
        compactions have made of it, or with ``exact`` that one itself. ``session`` is a name of your own for
        one (a user's, a ticket's): the pod goes on with the session of that name, or makes it where there is
        none. ``system_prompt`` replaces the manifest's: a text, or a function that makes the prompt of each
        run and may take a ToolContext.

        With ``process`` the pod is a process of its own, behind the same handle. Client, tools and hooks are
        then named by where they can be imported from, as ``"module:name"``, and the store is one that
        processes share. Where the process dies the open run raises PodLost, and ``[restart]`` says what
        becomes of the pod. Raises NotImportable for objects, StoreError for a store that only this process
        has.

        Raises NameTaken for an explicit ``name`` that is in use
        (a manifest's name gets a number), ManifestError (also for a name that no pod can have), InvalidInput
        for what is not a hook and for a name that no session can have, SystemNotRunning, SessionNotFound,
        SessionInUse, SessionCorrupt.
        """
        mailroom = self._room()
        check_spawn(manifest, client, resume, session, process=process)
        manifest, make_prompt = with_prompt(manifest, system_prompt, process=process)
        given = Given(
            client,
            several("tools", tools),
            deps,
            (*self._hooks, *several("hooks", hooks)),
            make_prompt,
        )
        here = mailroom.here()
        future: AsyncFuture[Pod] = AsyncFuture() if here else future_of(mailroom)
        spawn = self._spawn_process if process else self._spawn
        wanted = Wanted(future, manifest, given, name, resume, exact, session)
        work = partial(_begin, spawn)
        if here:
            work(wanted)
        else:
            mailroom.post(work, wanted)
        return future

    def _spawn(self, wanted: Wanted) -> None:
        assert self._entered is not None
        client = wanted.given.client
        if self._entered.spawner.spawn(wanted) and isinstance(client, ScriptedClient):
            self._scripts[client] = None

    def _spawn_process(self, wanted: Wanted) -> None:
        try:
            mailroom, store, assembly, _ = self._here()
            if self._process_pods is None:
                from actors.swarm.processes.process_pods import ProcessPods  # noqa: PLC0415 - paid for by whoever has any

                threads = None if self._tool_threads is None else self._tool_threads.limit
                self._process_pods = ProcessPods(
                    mailroom,
                    self._bus,
                    store,
                    self._roster,
                    self._mailboxes,
                    assembly,
                    self._settings,
                    threads,
                )
        except SystemNotRunning as error:
            wanted.future.set_exception(error)
            return
        self._process_pods.spawn(wanted)

    @overload
    def run(
        self,
        manifest: PodManifest,
        content: Content,
        *,
        output: None = None,
        client: LLMClient | None = None,
        session: str | None = None,
        hooks: Iterable[Any] = (),
        **options: Unpack[RunOptions],
    ) -> AsyncFuture[RunResult[None]]: ...

    @overload
    def run(
        self,
        manifest: PodManifest,
        content: Content,
        *,
        output: type[T],
        client: LLMClient | None = None,
        session: str | None = None,
        hooks: Iterable[Any] = (),
        **options: Unpack[RunOptions],
    ) -> AsyncFuture[RunResult[T]]: ...

    @overload  # what no ``type[T]`` is, a union or an annotated type
    def run(
        self,
        manifest: PodManifest,
        content: Content,
        *,
        output: Any,
        client: LLMClient | None = None,
        session: str | None = None,
        hooks: Iterable[Any] = (),
        **options: Unpack[RunOptions],
    ) -> AsyncFuture[RunResult[Any]]: ...

    def run(
        self,
        manifest: PodManifest,
        content: Content,
        *,
        output: Any = None,
        client: LLMClient | None = None,
        session: str | None = None,
        hooks: Iterable[Any] = (),
        **options: Unpack[RunOptions],
    ) -> AsyncFuture[RunResult[Any]]:
        """Make a pod for one run, and stop it afterwards; its session stays.

        With ``session`` the next call of that name continues where this one ended. The other parameters are
        those of ``spawn`` and ``Pod.run``, which say what it raises.
        """
        from actors.pod.single_run import SingleRun  # noqa: PLC0415 - paid for by whoever has such runs

        mailroom, tools = self._room(), several("tools", options.pop("tools", ()))
        command = run_command(content, output, options, new_run_id())
        spawning = self.spawn(manifest, client=client, tools=tools, session=session, hooks=hooks)
        single = SingleRun(spawning, command)
        future = ask_on(mailroom, single.play, copy_context())
        if options.get("cancel_on_abandon"):
            future.on_abandon = lambda: mailroom.post(lambda _: single.cancel())
        return future

    def interrupted(self, pod: str | None = None, limit: int = 100) -> AsyncFuture[list[SessionInfo]]:
        """The sessions (of one pod) whose last run waits to be resumed: it was paused, by hand or by the end
        of its system, or cut off by a crash.

        The most recently changed come first, out of the ``limit`` sessions that changed last. Those that a
        living pod holds, here or in another process, are not among them. Pass their ids to
        ``spawn(resume=…)``, then call ``pod.resume()``. Raises SystemNotRunning, StoreError.
        """
        store = self.store
        pod = None if pod is None else composed(text_of("pod", pod))
        check_count("limit", limit, 0, "sessions")
        return ask_on(self._room(), lambda: interrupted(store, pod, limit))

    def pods(self) -> list[Pod]:
        """The living pods, in the order in which they were started."""
        return list(self._roster.pods.values())

    def get(self, name: str) -> Pod:
        """The living pod of that name. Raises PodNotFound."""
        return self._roster.get(name)

    # -- supervision ---------------------------------------------------------------------------

    def supervise(
        self, pods: Iterable[Pod | HasMember], *, max_restarts: int = 3, window_seconds: float = 60.0
    ) -> Group:
        """Supervise living pods and agents as a group: a member that fails is restarted, alone, on its
        session.

        The group counts the restarts of all its members together: at most ``max_restarts`` within
        ``window_seconds``. At one failure more the others are stopped, the last first, with their runs
        paused: ``RestartsExhausted`` is published, and the group's ``wait()`` raises. Raises PodStopped,
        PodError for a member of another group, AgentNotRunning, ValueError, SystemNotRunning.
        """
        mailroom, _, _, spawner = self._here()
        check_count("max_restarts", max_restarts, 0, "restarts")
        check_seconds("window_seconds", window_seconds, zero=False)
        from actors.runtime.restarts import Limits  # noqa: PLC0415 - paid for by whoever supervises

        members, limits = several("pods", pods), Limits(max_restarts, window_seconds)
        return call_on(mailroom, lambda: spawner.ensure_supervision().group(members, limits))

    # -- approvals -----------------------------------------------------------------------------

    def approvals(self) -> AsyncFuture[list[ApprovalRequested]]:
        """The calls of all living pods that wait for a person's approval, oldest first. Raises
        SystemNotRunning.
        """
        return ask_on(self._room(), self._waiting_calls().find_all)

    def approve(
        self,
        approval_id: str,
        *,
        always: bool = False,
        arguments: dict[str, Any] | None = None,
        note: str | None = None,
    ) -> AsyncFuture[None]:
        """As ``Pod.approve``, for whichever living pod has asked."""
        return self._waiting_calls().answer(
            approval_id, commands.Approve(approval_id, always, arguments, note)
        )

    def deny(
        self, approval_id: str, *, note: str | None = None, by: Literal["person", "nobody"] = "person"
    ) -> AsyncFuture[None]:
        """As ``Pod.deny``, for whichever living pod has asked."""
        return self._waiting_calls().answer(approval_id, commands.Disapprove(approval_id, note, by))

    def _waiting_calls(self) -> WaitingCalls:
        mailroom, store, assembly, _ = self._here()
        return WaitingCalls(mailroom, store, self._roster, assembly.answers.askers)

    # -- events --------------------------------------------------------------------------------

    def subscribe(
        self,
        pod: str | Pod | None = None,
        kinds: Collection[EventKind] | EventKind | None = None,
        since: Since | None = None,
        *,
        children: bool = False,
    ) -> Subscription:
        """Events from now on: of one pod (by name) or all, of some kinds or all; with ``children`` also of
        the pod's sub-agents and theirs, whenever they begin.

        With ``since`` every durable event numbered above it comes first, also those of the sessions that the
        pod's session was compacted or forked from; where some of these were deleted, a ``Lagged`` stands in
        their place. For several pods, ``since`` may be a dict of numbers by pod name. With ``children`` the
        number counts in the pod's own log: sub-agents that had not ended by then, or began later, are
        replayed whole, each between its beginning and its end. A pod that is not alive is looked up in the
        store. Raises SessionNotFound, SystemNotRunning.
        """
        self._room()
        name = pod.name if isinstance(pod, Pod) else None if pod is None else composed(text_of("pod", pod))
        return self._subscriptions.subscribe(name, kinds, since, children=children)

    def subscribe_encoded(self) -> EncodedSubscription:
        """Events of all pods from now on, each with the bytes that the log keeps of it, for those who write
        them elsewhere. Raises SystemNotRunning.
        """
        self._room()
        return self._bus.subscribe_encoded()

    def _subscribe(self, pod: str, kinds: Kinds, since: Since | None, *, children: bool) -> Subscription:
        """Subscribe on behalf of a pod's handle, even if its system has been left."""
        if self._of_parent:
            raise SystemOfParent
        return self._subscriptions.subscribe(pod, kinds, since, children=children)

    def _feed(self, pod: str, kinds: Kinds, since: Since | None, *, children: bool) -> Feed:
        """A feed of a pod's events as bytes, on behalf of its handle."""
        if self._of_parent:
            raise SystemOfParent
        return self._subscriptions.feed(pod, kinds, since, children=children)

    def home(self) -> Home:
        """What a ``Swarm`` needs of the system. Raises SystemNotRunning."""
        from actors.swarm.agents.home import Home  # noqa: PLC0415 - paid for by whoever has agents

        entered = self._here()
        return Home(
            mailroom=entered.mailroom,
            store=entered.store,
            bus=self._bus,
            roster=self._roster,
            answers=entered.assembly.answers,
            launcher=entered.assembly.launchers.of_programs,
            hold=entered.assembly.launchers.hold,
            drop_held=entered.assembly.launchers.drop_held,
            spawn=self.spawn,
            protect=entered.assembly.protect,
            close_first=self._close_first.append,
            offer_agents=partial(setattr, entered.assembly.tools, "spawn_agent"),
            draw_on=entered.assembly.draw_on,
            system=self,
        )

    # -- figures -------------------------------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """What all pods have consumed together: calls, tokens and US dollars."""
        return self._here().assembly.totals

    @property
    def budget(self) -> BudgetUse | None:
        """What all pods have used of the system's budget; None if it has none."""
        shared = self._here().assembly.budget
        return None if shared is None else shared.use()

    def statistics(self) -> dict[str, int]:
        """How many pods live, how many of them are passive, and what waits on the bus."""
        pods = self.pods()
        return {
            "pods": len(pods),
            "passive": sum(actor_of(pod).passive for pod in pods if lives_here(pod)),
            **self._bus.statistics(),
        }

    # -- helpers -------------------------------------------------------------------------------

    def _here(self) -> _Entered:
        """The parts that exist while the system is entered. Raises SystemNotRunning, SystemOfParent."""
        entered = self._entered
        if entered is None or self._stopping is not None or entered.mailroom.of_parent:
            if self._of_parent:
                raise SystemOfParent
            what = "was not entered" if self._stopping is None else "has been left"
            raise SystemNotRunning(f"the PodSystem {what}", hint="use it inside `with` or `async with`")
        return entered

    def _room(self) -> Mailroom:
        return self._here().mailroom


def _begin(spawn: Callable[[Wanted], None], wanted: Wanted) -> None:
    """Begin to start a pod; an error goes to whoever waits for it."""
    try:
        spawn(wanted)
    except Exception as error:  # noqa: BLE001 - the same
        wanted.future.set_exception(error)


async def _close(store: SessionStore) -> None:
    await settled(await in_thread(store.close))


async def _to_its_end(stop: AsyncFuture[None]) -> None:
    """Wait for a stop, which is bounded; if the waiter is cancelled meanwhile, raise that only afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not stop.done():
        try:
            await stop
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    await stop


def _find_chain(name: str, folder: str, assembly: Assembly) -> LLMClient:
    """The chain that a pod's manifest names, from ``polypod.toml``. Raises ConfigError, NotTrusted."""
    from actors.routing.chain.named import make_chain  # noqa: PLC0415 - paid for by pods that name one

    client_of = partial(assembly.clients.client, folder=folder)
    return make_chain(name, folder, client_of, assembly.launchers.of_programs, assembly.pricing.prices)


_systems: weakref.WeakSet[PodSystem] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for system in list(_systems):
        system.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
