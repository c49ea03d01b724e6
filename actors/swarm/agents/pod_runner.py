"""``PodRunner``: runs agents that are pods; what a pod publishes is recorded in its own session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from actors.pod.accounts.budget import Budget
from actors.pod.client_factory import label
from actors.pod.handle import Pod
from actors.pod.local import remote_pod, shut_down
from actors.pod.session.restore import tip
from actors.runtime.events.subscription import Subscription
from actors.sessions.answers import settled
from actors.swarm.agents.home import Home
from actors.swarm.agents.ids import pod_of
from actors.swarm.runners.base import Host, Launch
from actors.swarm.runners.stream import Recorder
from protocol.entries import SessionOpened
from protocol.errors import AgentNotRunning, Failure, NotPaused, PodStopped, PolypodError, RunFailed
from protocol.events import (
    AgentIdle,
    AgentStopped,
    AgentStopReason,
    Event,
    Lagged,
    PodEnded,
    PodFailed,
    ProcessLost,
    RunStart,
    StateChanged,
)
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest, RestartSection
from protocol.wire import decode_entry


class Given(Struct, frozen=True, eq=False):
    """What a program gives a pod besides its manifest, which no other process has."""

    client: Any = None
    tools: tuple[Any, ...] = ()
    hooks: tuple[Any, ...] = ()
    deps: Any = None
    #: What type its answers are to be of; None is text.
    output: Any = None
    #: On which it draws besides, where a pod has started it.
    budget: Budget | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given."""
        objects = (*self.tools, *self.hooks)
        return not objects and all(each is None for each in (self.client, self.deps, self.output))


class PodRunner:
    """Starts pods. ``manifest`` is None if the session that is resumed contains it."""

    one_shot = False

    def __init__(
        self, home: Home, manifest: PodManifest | None, given: Given, *, process: bool = False
    ) -> None:
        self.name = "process" if process else "pod"
        self._home, self._manifest, self._given = home, manifest, given

    def start(self, launch: Launch, _: Host, /) -> PodLife:
        """Start a pod."""
        return PodLife(self._home, self.name, self._manifest, self._given, launch)


class PodLife:
    """A pod at work. It yields the pod's own events as they were published, and the agent's between them."""

    def __init__(
        self, home: Home, runner: str, manifest: PodManifest | None, given: Given, launch: Launch
    ) -> None:
        self._home, self._runner, self._given, self._launch = home, runner, given, launch
        self._manifest = manifest
        self._recorder = Recorder(launch.agent_id)
        self._pod_name = pod_of(launch.agent_id)
        self._pod: Pod | None = None
        self.session = launch.session
        self._reason: AgentStopReason = "exit"
        self._failure: Failure | None = None
        self._paused = False
        self._stopping = self._leaving = False
        self._events = self._play()
        self._runs: set[asyncio.Future[Any]] = set()
        #: What its events are read from.
        self._reading: Subscription | None = None
        #: Set once a run that was resumed is seen to go on, or will not.
        self._goes_on = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The number of the process that the pod is, None where it is in ours."""
        process = None if self._pod is None else remote_pod(self._pod)
        return None if process is None else process.pid

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def _play(self) -> AsyncIterator[Event]:
        home, agent_id = self._home, self._launch.agent_id
        home.bus.adopt(self._pod_name, agent_id)
        subscription = self._reading = home.bus.subscribe(self._pod_name)
        try:
            async for event in self._live():
                yield event
            yield self._recorder.make(AgentStopped, reason=self._reason, error=self._failure)
        finally:
            subscription.close()
            home.bus.disown(self._pod_name)

    async def _live(self) -> AsyncIterator[Event]:
        try:
            pod = self._pod = await self._spawn()
            described = await pod.describe()
        except Exception as error:  # noqa: BLE001 - the agent's end says it
            self._failure = None if self._stopping else Failure.of(error)
            return
        self.session, self._paused = described.session_id, described.state is PodState.PAUSED
        if self._stopping:
            await self._end(pod)
        yield self._started()
        task = self._launch.task
        if task is not None and not self._stopping:
            self._run(pod, task)
        elif self._paused and self._launch.go_on and not self._stopping:
            self._resume(pod)
        elif not self._stopping:
            yield self._recorder.make(AgentIdle)
        async for event in self._follow(pod):
            yield event

    async def _follow(self, pod: Pod) -> AsyncIterator[Event]:
        """The pod's events to its end, and the points at which it has no task any more."""
        seq = 0
        while self._reading is not None:
            async for event in self._reading:
                if isinstance(event, Lagged):
                    self._reading = pod.subscribe(since=seq)  # which has every durable one of what was missed
                    break
                seq = event.seq if event.durable else seq
                yield event
                if isinstance(event, RunStart):
                    self._goes_on.set()
                if isinstance(event, StateChanged) and event.new in {PodState.IDLE, PodState.PAUSED}:
                    self._paused = event.new is PodState.PAUSED
                    if event.old in {PodState.RUNNING, PodState.WAITING, PodState.PAUSED}:
                        yield self._recorder.make(AgentIdle)
                if isinstance(event, PodFailed | ProcessLost):
                    self._failure = self._failure or event.error
                if isinstance(event, PodEnded) and not self._stopping:
                    await self._note_why_ended(pod)
                if isinstance(event, PodFailed | ProcessLost | PodEnded):
                    return
            else:
                return

    async def _note_why_ended(self, pod: Pod) -> None:
        """Note why the pod's process was ended: that ends the pod first, as if it had been asked."""
        if (process := remote_pod(pod)) is not None:
            self._failure = self._failure or await process.why_ended()

    async def _spawn(self) -> Pod:
        """Start the pod. Raises PolypodError."""
        launch, given = self._launch, self._given
        manifest = self._manifest or await self._recorded_manifest()
        # The agent is what is started again: its limits are those of the manifest.
        manifest = replace(manifest, restart=RestartSection(idle_seconds=manifest.restart.idle_seconds))
        if given.budget is not None and self._runner == "pod":
            self._home.draw_on(self._pod_name, given.budget)
        return await self._home.spawn(
            manifest,
            client=given.client,
            tools=given.tools,
            hooks=given.hooks,
            deps=given.deps,
            name=self._pod_name,
            resume=launch.session,
            process=self._runner == "process",
        )

    async def _recorded_manifest(self) -> PodManifest:
        """What the pod was asked to be when its session was opened."""
        store = self._home.store
        assert self._launch.session is not None
        session_id = await tip(store, self._launch.session)
        [first] = await settled(store.read(session_id, limit=1))
        opened = decode_entry(first.body)
        assert isinstance(opened, SessionOpened)
        return msgspec.json.decode(opened.manifest, type=PodManifest)

    def _started(self) -> Event:
        manifest = self._manifest
        model = None if manifest is None or self._given.client is not None else label(manifest.model)
        return self._recorder.make_started(self._runner, self._launch, session=self.session, model=model)

    def _run(self, pod: Pod, task: str) -> None:
        self._watch(asyncio.ensure_future(pod.run(task, output=self._given.output)))

    def _resume(self, pod: Pod) -> None:
        """Continue the run that was paused."""
        self._paused = False
        self._goes_on.clear()
        self._watch(asyncio.ensure_future(pod.resume()))

    def _watch(self, run: asyncio.Future[Any]) -> None:
        """A run that never began ends the agent; one that failed has said so in its end, and one that was no
        more paused goes on.
        """
        harmless = (RunFailed, PodStopped, NotPaused)

        def look(done: asyncio.Future[Any]) -> None:
            self._runs.discard(done)
            self._goes_on.set()
            error = None if done.cancelled() else done.exception()
            if error is not None and not isinstance(error, harmless) and not self._stopping:
                self._failure = Failure.of(error)
                if self._pod is not None:
                    self._pod.stop()

        self._runs.add(run)
        run.add_done_callback(look)

    # -- commands ------------------------------------------------------------------------------------

    async def send(self, text: str, /) -> None:
        """Add words to the open run, or start one; returns once they are recorded."""
        pod = self._living()
        try:
            await pod.notify(text)
            if self._paused:
                self._resume(pod)
                await self._goes_on.wait()  # else who waits for its end finds it paused
        except PodStopped as error:
            raise AgentNotRunning(str(error)) from error

    async def cancel(self) -> None:
        """Cancel the current run."""
        with contextlib.suppress(PodStopped):
            await self._living().cancel()

    async def stop(self) -> None:
        """End the pod; its run ends as cancelled."""
        self._stopping, self._reason = True, "shutdown"
        if self._pod is not None:
            await self._end(self._pod)

    async def leave(self) -> None:
        """End the pod with its run paused, because its system is left."""
        self._leaving = True
        await self.stop()

    async def _end(self, pod: Pod) -> None:
        with contextlib.suppress(PolypodError):
            await (shut_down(pod) if self._leaving else pod.stop())
        if self._reading is not None:  # its end is not an event where the store keeps nothing
            self._reading.close()

    def _living(self) -> Pod:
        if self._pod is None or not self._pod.address.is_alive(self._pod):
            raise AgentNotRunning(f"the pod of agent {self._launch.agent_id} is not running")
        return self._pod


def pod_manifest(
    manifest: PodManifest | None, cwd: Path, model: str | None, provider: str | None
) -> PodManifest:
    """The manifest of a pod: the one that is given, at work where the agent is. Raises ManifestError."""
    if manifest is None:
        named = "/".join(each for each in (provider, model) if each) or None
        return PodManifest.of(model=named, pwd=str(cwd))
    if manifest.pod.pwd:
        return manifest
    return replace(manifest, pod=replace(manifest.pod, pwd=str(cwd)))
