"""``ProcessPod``: the address of a pod that is a process, which it starts, and restarts when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import pykka
from msgspec.structs import replace

from actors.pod.accounts.budget import Budget, Totals
from actors.pod.address import Kinds, Mailboxes, Since
from actors.pod.handle import Pod
from actors.pod.remote_pod import RemotePod
from actors.pod.runs.run_state import RunHere, new_run_id
from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.inherited import socket_pair
from actors.runtime.events.bus import Bus
from actors.runtime.events.subscription import Feed, Subscription
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom
from actors.runtime.on_loop import future_of
from actors.sessions.store import Holder, SessionStore, in_use, process_of_pod
from actors.swarm.processes.asked_commands import Asked, AskedCommands
from actors.swarm.processes.channel import ProcessChannel
from actors.swarm.processes.lease import Lease
from actors.swarm.processes.process_events import ProcessEvents
from actors.swarm.supervision import Supervisor
from protocol.commands import Command, Describe, Resume, Run, Stop
from protocol.error_of import error_of
from protocol.errors import (
    ChildLost,
    Failure,
    PodError,
    PodLost,
    PodStopped,
    PodUnreachable,
    PolypodError,
    SessionInUse,
    WatchdogExpired,
)
from protocol.events import ApprovalRequested, ProcessLost
from protocol.pod_process import BeginPod

if TYPE_CHECKING:
    from actors.swarm.processes.shared_servers import SharedServers

#: Seconds that a process has to end by itself besides the graces of its system.
_GRACE = 2.0

#: Starts the process of a pod, on its two sockets.
StartProcess = Callable[[socket.socket, socket.socket, str, Ladder], Coroutine[Any, Any, Child]]


class Surroundings(NamedTuple):
    """What the pods of a system that are processes share."""

    room: Mailroom
    bus: Bus
    store: SessionStore
    mailboxes: Mailboxes
    start_process: StartProcess
    budget: Budget | None
    totals: Totals
    #: Seconds that the pod itself may take to end.
    grace: float
    #: Called with a pod that has ended for good.
    forget: Callable[[Pod], None]
    #: Gives a process the MCP servers of the system, over the socket of which it is handed one end.
    share_servers: Callable[[socket.socket], SharedServers]


class ProcessPod(Supervisor, RemotePod):
    """Reaches one pod that is a process. All but the address is used on the loop alone.

    What is asked before the pod has begun, or while another process takes its place, waits for it.
    """

    def __init__(self, begin: BeginPod, around: Surroundings) -> None:
        section = begin.manifest.restart
        super().__init__(Pod(begin.name, self), around.room, around.bus, section, None)
        self._begin = begin
        self._around = around
        self._channel: ProcessChannel | None = None
        self._child: Child | None = None
        self._lease: Lease | None = None
        self._commands = AskedCommands(self.pod, lambda: self._stop_asked, self._read_lease)
        self._events = ProcessEvents(begin.name, around.bus, around.store, self._commands.note_run)
        #: How the last process ended.
        self._exit = ""
        #: Why the process is ended, where that is decided here.
        self._reason: PolypodError | None = None
        self._stops: list[AsyncFuture[bool]] = []
        self._cause: AsyncFuture[Failure | None] = AsyncFuture()
        self._life: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._heartbeat: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The number of its process; None while there is none."""
        return None if self._child is None else self._child.pid

    # -- as the pod's address ----------------------------------------------------------------------

    def is_alive(self, _: Pod) -> bool:
        return not self.over and not self.room.loop.is_closed()

    def ask(self, _: Pod, command: Command) -> AsyncFuture[Any]:
        future = future_of(self.room)
        if isinstance(command, Run | RunHere) and command.run_id is None:
            command = replace(command, run_id=new_run_id())
        self._on_loop(self._send, Asked(command, future))
        return future

    def stop(self, _: Pod) -> AsyncFuture[bool]:
        self._stop_asked = True
        future = future_of(self.room)
        self._on_loop(self._stop_by_command, Asked(Stop(), future))
        return future

    def subscribe(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Subscription:
        return self._around.mailboxes.subscribe(pod, kinds, since, children=children)

    def feed(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Feed:
        return self._around.mailboxes.feed(pod, kinds, since, children=children)

    def _on_loop(self, work: Callable[[Asked], None], asked: Asked) -> None:
        if self.room.here():
            work(asked)
            return
        try:
            self.room.post(work, asked)
        except pykka.ActorDeadError as error:
            asked.future.set_exception(error)

    # -- as its system asks it ---------------------------------------------------------------------

    def why_ended(self) -> AsyncFuture[Failure | None]:
        return self._cause

    def durable_position(self) -> tuple[str, int] | None:
        return self._events.position if self._events.session_id else None

    def position(self) -> tuple[str, int]:
        return self._events.position

    def open_approvals(self) -> Iterable[ApprovalRequested]:
        return self._events.open_approvals()

    def has_asked(self, approval_id: str) -> bool:
        return self._events.has_asked(approval_id)

    def shut_down(self) -> AsyncFuture[bool]:
        self._stop_asked = True
        future: AsyncFuture[bool] = AsyncFuture()
        if self._begin_stop(future) and self._channel is not None:
            self._channel.leave()
        return future

    # -- commands ------------------------------------------------------------------------------------

    def _send(self, asked: Asked) -> None:
        if self.over:
            asked.future.set_exception(self._stopped())
        elif type(asked.command) is Stop:
            self._stop_asked = True
            self._stop_by_command(asked)
        else:
            self._commands.send(asked)

    def _read_lease(self) -> None:
        """Count what a run took before its end is known."""
        if self._lease is not None:
            self._lease.read()

    def _stopped(self) -> PodStopped:
        return PodStopped(f"pod {self.pod.name!r} has stopped", hint="spawn it again with resume=")

    # -- stops -----------------------------------------------------------------------------------------

    def _stop_by_command(self, asked: Asked) -> None:
        if self._begin_stop(asked.future) and self._channel is not None:
            self._channel.ask(self.pod, Stop())

    def _begin_stop(self, future: AsyncFuture[bool]) -> bool:
        """Bound how long the end may take, at which ``future`` resolves; returns whether there is a pod that
        can be asked to end.
        """
        if self.over:
            future.set(False)
            return False
        self._stops.append(future)
        if not self._commands.are_taken:  # it has not begun, or is between two processes
            self._kill(Ladder(term_wait=_GRACE))
            if self._life is not None and self._child is None and self._lease is not None:
                self._life.cancel()  # one that has not begun sees by itself that it should not
            return False
        self._timers.append(self.room.loop.call_later(self._around.grace + _GRACE, self._kill))
        return True

    def _kill(self, ladder: Ladder | None = None) -> None:
        if self._child is not None:
            self._child.ask_to_stop(ladder)

    # -- its life --------------------------------------------------------------------------------------

    def live(self, started: AsyncFuture[Pod]) -> None:
        """Have the process begin; ``started`` gives the pod's handle once it takes commands."""
        self._life = self.room.loop.create_task(self._live(started))

    async def _live(self, started: AsyncFuture[Pod]) -> None:
        first: AsyncFuture[Pod] | None = started
        error: BaseException | None = None
        while True:
            try:
                await self._be(first)
                first, error = None, self._why()
            except asyncio.CancelledError:
                error = self._stopped()
            except Exception as raised:  # noqa: BLE001 - of a start: goes to who spawned, or counts as a failure
                error = raised
            if first is not None:  # what never lived is not started again
                self._end(None if self._stops else error, first)
                return
            again = error is not None and not self.hold_back(error)
            self._commands.sort_orphans(self._gone(error), again=again)
            if error is not None and not self._stop_asked:
                self._announce_loss(error, again=again)
            if not again:
                self._end(error, None)
                return
            self._begin = replace(self._begin, resume=self._events.session_id, exact=False, session=None)

    async def _be(self, started: AsyncFuture[Pod] | None) -> None:
        """Start a process, and wait for its end. Raises what kept it from starting."""
        if self._stops:
            raise self._stopped()
        self._events.failure = self._reason = None
        lost = asyncio.Event()
        near, far = socket_pair()
        accounts, accounts_far = socket_pair()
        self._lease = lease = Lease(accounts, self._around.budget, self._around.totals)
        servers = None
        try:
            ladder = Ladder(signal.SIGTERM, self._around.grace, _GRACE)
            try:
                if self._begin.manifest.tools.mcp:
                    servers = self._share_servers(lease)
                self._child = child = await self._around.start_process(
                    far, accounts_far, os.fsdecode(self._begin.folder), ladder
                )
            except BaseException:
                near.close()
                raise
            finally:
                far.close()
                accounts_far.close()
            with process_of_pod(child.pid, self.pod.name):
                streams = await asyncio.open_connection(sock=near)
                channel = self._channel = self._connect(*streams, lost)
                try:
                    channel.begin(self._begin)
                    await self._wait_until_begun(channel, started)
                    await lost.wait()
                finally:
                    await self._bury(child, channel)
        finally:
            lease.close()
            self._channel = self._lease = None
            self._commands.hold()
            try:
                if servers is not None:
                    await servers.close(self._around.grace)
            finally:
                self._child = None  # from here on a stop ends this life at once

    def _share_servers(self, lease: Lease) -> SharedServers:
        """Have the process reach the MCP servers of this one, by a socket that it is sent."""
        near, far = socket_pair()
        try:
            with far:
                lease.send_socket(far)
            return self._around.share_servers(near)
        except BaseException:
            near.close()
            raise

    def _connect(self, reader: StreamReader, writer: StreamWriter, lost: asyncio.Event) -> ProcessChannel:
        return ProcessChannel(reader, writer, self._events.take, lambda _: lost.set())

    async def _wait_until_begun(self, channel: ProcessChannel, started: AsyncFuture[Pod] | None) -> None:
        try:
            begun = await channel.begun
        except PodUnreachable as error:
            raise self._reason or await self._lost_by(str(error)) from None
        except SessionInUse as error:  # it cannot know which processes are of this program
            holder = Holder(error.pid, error.host, error.since, error.pod)
            raise in_use(error.session_id, holder) from None
        self._events.begin(begun)
        self._commands.open(channel)
        if started is not None:
            started.set(self.pod)
        elif begun.paused and self._section.on_restart == "resume":
            channel.ask(self.pod, Resume()).when_done(lambda: None)
        self._commands.send_held()
        self._listen_for_heart()

    async def _bury(self, child: Child, channel: ProcessChannel) -> None:
        """Wait until nothing is left of the process, and publish what it had committed."""
        self._commands.hold()
        for timer in (*self._timers, self._heartbeat):
            if timer is not None:
                timer.cancel()
        self._timers, self._heartbeat = [], None
        if not channel.is_lost:
            child.ask_to_stop()
        else:
            child.ask_to_stop(Ladder(request_wait=_GRACE, term_wait=_GRACE))
        self._exit = await _end_of(child)
        await channel.close()
        await self._events.catch_up()

    def _why(self) -> BaseException | None:
        """Why the process has ended; None where it was asked to."""
        if self._reason is not None:
            return self._reason
        if self._events.failure is not None:
            return error_of(self._events.failure)
        if self._stop_asked and self._exit == "code 0":
            return None
        return self._lost(f"it ended with {self._exit}")

    async def _lost_by(self, why: str) -> PodLost:
        if self._child is not None:
            self._child.ask_to_stop(Ladder(request_wait=_GRACE, term_wait=_GRACE))
            why = f"it ended with {await _end_of(self._child)}"
        return self._lost(why)

    def _lost(self, why: str) -> PodLost:
        return PodLost(
            f"the process of pod {self.pod.name!r} is gone: {why}",
            hint="the command may have been carried out: resume its session",
        )

    def _gone(self, error: BaseException | None) -> PodError:
        """What the commands fail by that waited in a process that has ended so."""
        if isinstance(error, PodLost):
            return error
        return self._lost(error.message) if isinstance(error, WatchdogExpired) else self._stopped()

    def _announce_loss(self, error: BaseException, *, again: bool) -> None:
        head = (self.pod.name, *self.position(), time.time())
        self._bus.publish([ProcessLost(*head, error=Failure.of(error), restarts=again)])

    def _end(self, error: BaseException | None, started: AsyncFuture[Pod] | None) -> None:
        """Note that the pod has ended for good, and answer all who wait."""
        self.over = True
        self._cause.set(None if error is None or self._stop_asked else Failure.of(error))
        self._around.forget(self.pod)
        if started is not None:
            started.set_exception(error or self._stopped())
        self._commands.fail_held(self._stopped())
        for future in self._stops:
            future.set(True)
        self.let_failure_go_up(error)

    # -- its heart -------------------------------------------------------------------------------------

    def _listen_for_heart(self) -> None:
        seconds, channel = self._section.heartbeat_seconds, self._channel
        if seconds is None or channel is None:
            return
        answer = channel.ask(self.pod, Describe())

        def look() -> None:
            if answer.done():
                self._listen_for_heart()
                return
            text = f"the process of pod {self.pod.name!r} did not answer for {seconds:g} s"
            self._reason = WatchdogExpired(text)
            self._kill(Ladder(term_wait=0.0))

        self._heartbeat = self.room.loop.call_later(seconds, look)


async def _end_of(child: Child) -> str:
    """How a process ended, in words."""
    with contextlib.suppress(ChildLost):
        code = (await child.wait()).code
        return f"code {code}" if code >= 0 else f"signal {-code}"
    return "its warden process"
