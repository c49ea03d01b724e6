"""``polypod swarm serve``: the one process that looks after the agents of a folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.cli.peers import why_no_person_at
from actors.cli.swarm.environment import digests_of
from actors.cli.swarm.rows import Row
from actors.cli.swarm.wire import LONGEST, Asked, Said, decode_asked, line_of, lock_of, socket_of
from actors.runtime.user_folders import make_private
from actors.swarm.agents.agent import Agent
from actors.swarm.agents.inboxes import make_socket_folder
from actors.swarm.agents.swarm import Swarm
from actors.system import PodSystem
from actors.version import __version__
from protocol.errors import AgentError, Failure, PolypodError, UnknownApproval
from protocol.events import Event
from protocol.text import UNDECODABLE, unshortened
from protocol.wire import encode_recordable

#: What is asked of an agent without more words, and its method.
_PLAIN = {"cancel": "cancel", "stop": "stop", "resume": "resume", "wait": "wait", "rm": "remove"}
#: Seconds between two looks whether anybody needs the service.
_LOOK = 0.5
_log = logging.getLogger("polypod.swarm")


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[bool]:
    """Take the lock that makes this process the one service of a folder; False where there is one. The kernel
    frees the lock with the process.
    """
    make_private(root)
    descriptor = os.open(lock_of(root), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


async def serve(store: str, root: Path, idle_seconds: float) -> None:
    """Look after the agents of ``root`` until a signal, or until nobody has needed that for so long."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    async with PodSystem(store=store) as system:
        swarm = Swarm(system, root)
        await swarm.open()
        service = Service(swarm, store)
        path = socket_of(root)
        async with _listening(path, service.answer):
            lock_of(root).write_bytes(os.fsencode(path))
            await service.wait_until_unneeded(ended, idle_seconds)


@contextlib.asynccontextmanager
async def _listening(
    path: Path, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """Listen on a socket that nobody else can reach; one that a dead service left is replaced."""
    make_socket_folder(path.parent)
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - nothing else is done yet
    server = await asyncio.start_unix_server(answer, path, limit=LONGEST)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - nothing else is left to do
        server.close()


class Service:
    """Answers what commands ask."""

    def __init__(self, swarm: Swarm, store: str) -> None:
        self._swarm, self._store = swarm, store
        self._connections = 0
        self._asked_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def wait_until_unneeded(self, ended: asyncio.Event, idle_seconds: float) -> None:
        """Wait until ``ended``, or until nobody needs the service any more."""
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), min(_LOOK, idle_seconds))
            living = self._connections or self._swarm.has_living()
            if living:
                self._asked_at = loop.time()
            elif loop.time() - self._asked_at >= idle_seconds:
                return

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection; what it asked for goes on where it is closed."""
        self._connections += 1
        self._asked_at = asyncio.get_running_loop().time()
        try:
            with contextlib.suppress(ConnectionError):
                line = b""
                with contextlib.suppress(ValueError):  # it is too long
                    line = await reader.readline()
                if line:
                    await self._answer(line, writer)
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            asked = decode_asked(line)
            self._check_store(asked.store)
            if asked.do in {"approve", "deny"}:
                _check_person(writer)
            if asked.do == "events":
                await self._send_events(asked, writer)
                said = Said(done=True)
            else:
                said = await self._do(asked)
        except UNDECODABLE as error:
            said = Said(error=Failure("AgentError", f"invalid request: {error}"))
        except ConnectionError:  # it is there no more
            raise
        except PolypodError as error:
            said = Said(error=Failure.of(error))
        except Exception as error:  # noqa: BLE001 - who asks has its answer, and so have all others
            _log.exception("the request %s failed", asked.do)
            said = Said(error=Failure("AgentError", f"internal error: {type(error).__name__}: {error}"))
        writer.write(line_of(said))
        await writer.drain()

    def _check_store(self, store: str) -> None:
        """Raise AgentError where the agents are kept in another store than that which is asked for."""
        if store not in {"", self._store}:
            raise AgentError(
                f"the sessions of the agents of {self._swarm.root} are kept in {self._store}, not in {store}",
                hint="choose another folder with --root; the agents of a folder use one store",
            )

    async def _do(self, asked: Asked) -> Said:
        """Raises PolypodError."""
        match asked.do:
            case "ping":
                return Said(
                    done=True,
                    store=self._store,
                    pid=os.getpid(),
                    version=__version__,
                    environment=digests_of(os.environ),
                )
            case "start":
                return self._row(await self._start(asked))
            case "ls":
                rows = tuple(row_of(each) for each in await self._swarm.agents())
                return Said(done=True, rows=rows, problems=tuple(self._swarm.problems))
            case "approve" | "deny":
                return await self._answer_approval(asked)
        return await self._do_to(await self._swarm.get(asked.id), asked)

    async def _do_to(self, agent: Agent, asked: Asked) -> Said:
        """Raises PolypodError."""
        row = self._row(agent)
        if asked.do == "send":
            await agent.send(asked.text)
        elif asked.do in _PLAIN:
            await getattr(agent, _PLAIN[asked.do])()
        elif asked.do != "show":
            raise AgentError(f"the swarm's service does not know the request {asked.do!r}")
        return row if asked.do == "rm" else self._row(agent)

    def _row(self, agent: Agent) -> Said:
        return Said(done=True, rows=(row_of(agent),))

    async def _start(self, asked: Asked) -> Agent:
        return await self._swarm.start(
            asked.text,
            asked.runner,
            name=asked.name,
            cwd=asked.cwd or None,
            model=asked.model,
            provider=asked.provider,
            keep=asked.keep,
            restart=asked.restart,
            manifest=asked.manifest,
        )

    async def _answer_approval(self, asked: Asked) -> Said:
        said: dict[str, Any] = {"note": asked.note, **({"always": True} if asked.always else {})}
        agents = await self._swarm.agents()
        waiting = {each.approval_id: agent for agent in agents for each in agent.approvals}
        found = [each for each in waiting if each == asked.id] or [
            each for each in waiting if asked.id and each.startswith(unshortened(asked.id))
        ]
        if not found:
            raise _unknown(asked.id, [key for key, agent in waiting.items() if agent.id.startswith(asked.id)])
        if len(found) > 1:
            text = f"{len(found)} approvals match {asked.id!r}: {', '.join(found)}"
            raise UnknownApproval(text, hint="give more of the id")
        agent = waiting[found[0]]
        await getattr(agent, asked.do)(found[0], **said)
        return self._row(agent)

    async def _send_events(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        agent = await self._swarm.get(asked.id)
        events = agent.events(asked.since)
        if not asked.follow:
            for event in await events.recorded():
                await _send_event(event, writer)
            return
        async with events:
            async for event in events:
                await _send_event(event, writer)


def _unknown(said: str, of_agents: Sequence[str]) -> UnknownApproval:
    """The error for what is no approval's id: ``of_agents`` wait at agents whose ids begin like this."""
    if said and of_agents:
        hint = f"waiting at this agent: {', '.join(of_agents)}; polypod swarm attach {said} shows the calls"
        return UnknownApproval(f"{said!r} is an agent, not the id of an approval", hint=hint)
    return UnknownApproval(
        f"no approval waits under {said!r}", hint="polypod swarm ls shows the waiting approvals"
    )


async def _send_event(event: Event, writer: asyncio.StreamWriter) -> None:
    writer.write(line_of(Said(event=encode_recordable(event).decode())))
    await writer.drain()


def _check_person(writer: asyncio.StreamWriter) -> None:
    """Raise AgentError where it is a program that an agent has started that asks."""
    if (why := why_no_person_at(writer.get_extra_info("socket"))) is not None:
        raise AgentError(why)


def row_of(agent: Agent) -> Row:
    """What a list shows of an agent."""
    spec, result = agent.spec, agent.result
    runner = spec.runner if isinstance(spec.runner, str) else " ".join(spec.runner)
    return Row(
        id=agent.id,
        status=agent.status,
        activity=agent.activity,
        task=spec.task,
        runner=runner,
        cwd=spec.cwd,
        created_at=spec.created_at,
        session_id=agent.session_id,
        pid=agent.pid,
        result=agent.task_result.status,
        is_paused=agent.is_paused,
        is_cut_off=agent.is_cut_off,
        text=result.text,
        error=result.error,
        usage=result.usage,
        cost=result.cost,
        seconds=result.seconds,
        approvals=tuple(agent.approvals),
    )
