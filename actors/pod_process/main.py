"""What a process runs that is one pod: its parent says which; it ends with the pod, or with the parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import Raw

from actors.llm.prices import Prices
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.pod.service import Service
from actors.pod_process.leased_budget import LeasedBudget, ParentAccounts, ReportedTotals
from actors.runtime.events.subscription import Feed
from actors.runtime.importable import load
from actors.runtime.lasting_loop import run_on_own_loop
from actors.swarm.supervision import PodSupervisor
from actors.system import PodSystem
from actors.tools.loading import load_tools
from protocol import channel
from protocol.channel import Refusal, Reply
from protocol.errors import Failure, WireError
from protocol.lifecycle import PodState
from protocol.pod_process import OWN, BeginPod, PodBegun, begin_pod
from protocol.wire import encode

#: The signals that end a pod, its run paused.
ENDING = (signal.SIGTERM, signal.SIGINT)


class _Supervisor(PodSupervisor):
    """Leaves it to the parent to start the pod again: notes that it has ended."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()

    def hold_back(self, error: BaseException) -> bool:
        self.failure = error
        return True

    def _end(self, error: BaseException | None) -> None:
        super()._end(error)
        self.ended.set()


def main() -> NoReturn:
    """Be the pod that the parent names; standard input and output are the sockets to it."""
    commands, accounts = _take_sockets()
    code = 1
    try:
        begin = receive_begin(commands)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # else asyncio.run would handle it until we do
        code = run_on_own_loop(serve(begin, commands, accounts))
    except (EOFError, OSError, WireError) as error:
        sys.stderr.write(f"polypod: the parent process of this pod: {error}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)  # a tool that was left to itself may hold a thread for ever


def _take_sockets() -> tuple[socket.socket, socket.socket]:
    """The two sockets; what prints does not write to them, and what reads is at the end."""
    commands, accounts = (os.dup(number) for number in (1, 0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return socket.socket(fileno=commands), socket.socket(fileno=accounts)


def receive_begin(commands: socket.socket) -> BeginPod:
    """What the parent says first. Raises EOFError, OSError, WireError."""
    body = _read(commands, channel.frame_length(_read(commands, channel.HEAD)))
    try:
        begin: BeginPod = begin_pod.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"not a valid start of a pod: {error}") from error
    for name, value in begin.environment:
        os.environb[name] = value
    time.tzset()  # which an interpreter does as it starts
    return begin


def _read(commands: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if not (data := commands.recv(size - len(parts))):
            raise EOFError("it is gone")
        parts += data
    return bytes(parts)


async def serve(begin: BeginPod, commands: socket.socket, accounts: socket.socket) -> int:
    """Be that pod until it ends, or its parent or a signal ends it: the exit code of its process."""
    asked_to_leave = asyncio.Event()
    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, asked_to_leave.set)
    reader, writer = await asyncio.open_connection(sock=commands)
    system = _system(begin)
    try:
        await system.__aenter__()  # its exit would look for replies that nobody asked for
        parent = ParentAccounts(accounts)
        feed = _prepare(system, begin, parent)
        if begin.manifest.tools.mcp:
            await _share_servers(system, parent)
        pod = await _spawn(system, begin)
    except Exception as error:  # noqa: BLE001 - the parent gets it
        writer.write(channel.frame(Refusal(OWN, Failure.of(error))))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()
        await system.stop()
        return 0
    supervisor = _supervised(system, pod)
    service = Service(pod, writer)
    service.send_events(OWN, feed)
    await service.send(Reply(OWN, Raw(encode(_begun(pod)))))
    reading = asyncio.create_task(service.serve(reader))
    waits = {reading, *map(asyncio.create_task, (supervisor.ended.wait(), asked_to_leave.wait()))}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await system.stop()  # what runs is paused; its answers and events are sent
    await service.finish()
    for each in waits:
        each.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await service.close()
    return 0 if supervisor.failure is None else 1


def _prepare(system: PodSystem, begin: BeginPod, parent: ParentAccounts) -> Feed:
    """Have the system account to the parent; the events of all its pods, of sub-agents as well."""
    assembly = system._here().assembly  # noqa: SLF001 - this process is that system
    assembly.leaves_restarts = True
    assembly.totals = ReportedTotals(parent)
    if begin.budget is not None:
        assembly.budget = LeasedBudget(begin.budget, parent)
    return system._bus.feed(drops_durable=False)  # noqa: SLF001 - the same


async def _share_servers(system: PodSystem, parent: ParentAccounts) -> None:
    """Have the system reach MCP servers by way of the parent."""
    from actors.pod_process.parent_servers import ParentServers  # noqa: PLC0415 - paid for by pods that have any

    connections = await ParentServers.over(parent.receive_socket())
    system._here().assembly.tools.connections = connections  # noqa: SLF001 - this process is that system


def _system(begin: BeginPod) -> PodSystem:
    graces: dict[str, Any] = dict(begin.graces)
    return PodSystem(
        begin.store,
        on_conflict=begin.on_conflict,
        outputs=begin.outputs,
        memory=begin.memory,
        prices=None if begin.prices is None else msgspec.json.decode(begin.prices, type=Prices),
        passivate_after=begin.passivate_after,
        tool_threads=begin.tool_threads,
        processes=begin.processes,
        **graces,
    )


async def _spawn(system: PodSystem, begin: BeginPod) -> Pod:
    given: dict[str, Any] = {
        "session": begin.session,
        "client": None if begin.client is None else load(begin.client, "client"),
        "tools": load_tools(begin.tools, Path(os.fsdecode(begin.folder))),
        "hooks": [load(each, "hooks") for each in begin.hooks],
    }
    return await system.spawn(
        begin.manifest,
        name=begin.name,
        resume=begin.resume,
        exact=begin.exact,
        **given,
    )


def _supervised(system: PodSystem, pod: Pod) -> _Supervisor:
    entered = system._here()  # noqa: SLF001 - the same
    supervisor = _Supervisor(pod, entered.mailroom, system._bus, system._mailboxes, entered.spawner)  # noqa: SLF001
    pod.address = actor_of(pod).supervisor = supervisor
    return supervisor


def _begun(pod: Pod) -> PodBegun:
    actor = actor_of(pod)
    paused = actor.status.state is PodState.PAUSED
    approvals = () if actor.approvals is None else actor.approvals.durable_open()
    return PodBegun(*actor.durable_position(), paused, approvals)
