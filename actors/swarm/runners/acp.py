"""Programs that speak the Agent Client Protocol, by its official SDK. Imported only to start one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, cast

import msgspec
from acp import PROTOCOL_VERSION, RequestError, text_block
from acp.client.connection import ClientSideConnection
from acp.interfaces import Client
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    Implementation,
    InitializeResponse,
    PermissionOption,
    RequestPermissionResponse,
    ToolCallUpdate,
)

from actors.runtime.children.child import Child
from actors.swarm.runners.acp_format import AcpTranslator, arguments_of, tool_of
from actors.swarm.runners.acp_models import find_model, models_of, names_of
from actors.swarm.runners.base import Answer, Launch, Permission
from actors.swarm.runners.lines import LONGEST_LINE, LineTranslator, failure_of, inner, object_of
from actors.swarm.runners.piped import PipedProgram
from actors.swarm.runners.program import ProgramLife
from actors.swarm.runners.stream import Recorder
from actors.version import __version__
from protocol.errors import AgentFailed, AgentNotRunning, ChildNotListening, LineTooLong
from protocol.events import Event

#: Seconds for a program to say what it can do, and to begin or load a conversation.
_START_SECONDS = 60.0
_AUTH_REQUIRED = -32000


class AcpProgram(PipedProgram):
    """A command that is an agent of the protocol. It does one turn at a time, so words do not join one."""

    end_signal: int | None = None

    def __init__(
        self, launch: Launch, recorder: Recorder, command: tuple[str, ...], env: tuple[str, ...]
    ) -> None:
        super().__init__(launch, LineTranslator(recorder), env)
        self._command = command
        self._turns = AcpTranslator(recorder)
        self._life: ProgramLife | None = None
        self._connection: ClientSideConnection | None = None
        self._session: str | None = None
        #: Questions for permission that are open.
        self._asked: set[asyncio.Task[Answer]] = set()

    @property
    def session(self) -> str | None:
        """The id of its session."""
        return self._session or self.launch.session

    @property
    def is_ready(self) -> bool:
        """Whether it has a session."""
        return self._session is not None

    def argv(self, task: str | None) -> list[str]:  # noqa: ARG002 - it goes by the protocol
        """Its command. Raises AgentError."""
        self.refuse_provider(self._command[0])
        return list(self._command)

    async def begin(self, life: ProgramLife, child: Child, task: str | None) -> None:
        """What begins it is part of ``read``, which has the connection."""

    async def read(self, life: ProgramLife, child: Child) -> None:
        """Begin a session, and follow it to the end of the program. Raises AgentFailed."""
        transport = _Transport(self, life, child)
        self._life = life
        connection = self._connection = ClientSideConnection(cast("Client", _Client(self)), transport)
        try:
            await self._open(connection, transport)
            await life.publish([])
            if self.launch.task is not None:
                await self.send(child, self.launch.task)
            await transport.ended.wait()
        finally:
            await connection.close()

    async def _open(self, connection: ClientSideConnection, transport: _Transport) -> None:
        """Raises AgentFailed."""
        program = self._command[0]
        try:
            async with asyncio.timeout(_START_SECONDS):
                about = Implementation(name="polypod", version=__version__)
                can = await connection.initialize(PROTOCOL_VERSION, ClientCapabilities(), about)
                session = await self._begin_session(connection, can, transport)
                await self._choose_model(connection, session, transport.answered)
                self._session = session
        except TimeoutError:
            words = f"{program} did not begin a session within {_START_SECONDS:g} seconds"
            raise AgentFailed(words, kind="timeout") from None
        except ConnectionError:
            raise AgentFailed(f"{program} ended before it had a session") from None
        except RequestError as error:
            raise _refused(program, error) from error
        except ValueError as error:  # what it answered is none of the protocol's
            raise AgentFailed(f"{program} does not speak the Agent Client Protocol: {error}") from error

    async def _begin_session(
        self, connection: ClientSideConnection, can: InitializeResponse, transport: _Transport
    ) -> str:
        cwd, session = str(self.launch.cwd), self.launch.session
        if session is None:
            return (await connection.new_session(cwd)).session_id
        capabilities = can.agent_capabilities
        if capabilities is not None and capabilities.load_session:
            transport.replays = True  # all that was said before, which is recorded
            await connection.load_session(cwd, session)
            transport.replays = False
            return session
        sessions = None if capabilities is None else capabilities.session_capabilities
        if sessions is not None and sessions.resume is not None:
            await connection.resume_session(session, cwd)
            return session
        raise AgentFailed(f"{self._command[0]} cannot continue a session", hint="start a new agent")

    async def _choose_model(
        self, connection: ClientSideConnection, session: str, opened: dict[str, Any]
    ) -> None:
        """Have the session use the model that is wanted. Raises AgentFailed, RequestError."""
        if (wanted := self.launch.model) is None:
            return
        program, models = self._command[0], models_of(opened)
        if not models:
            words = f"{program} does not offer a choice of models over the protocol"
            raise AgentFailed(words, hint="omit the model, or name it in the program's command")
        if (model := find_model(models, wanted)) is None:
            raise AgentFailed(f"{program} has no model {wanted!r}", hint=f"it has {names_of(models)}")
        if model.option is not None:
            await connection.set_config_option(model.option, session, model.id)
        else:  # of older agents: the SDK knows it no more
            request = {"sessionId": session, "modelId": model.id}
            await connection._conn.send_request("session/set_model", request)  # noqa: SLF001

    # -- turns -----------------------------------------------------------------------------------

    async def send(self, child: Child, text: str) -> None:
        """Begin a turn. Raises AgentNotRunning."""
        if self._life is None or self._connection is None or child.ended:
            raise AgentNotRunning("it is not running yet")
        self._life.spawn(self._prompt(self._life, self._connection, text))

    async def _prompt(self, life: ProgramLife, connection: ClientSideConnection, text: str) -> None:
        await life.publish([self._turns.begin()])
        try:
            answer = await connection.prompt(self._session or "", [text_block(text)])
        except RequestError as error:
            await life.publish(self._turns.fail(failure_of(_words_of(error))))
        except ConnectionError:
            pass  # how the program ended says why
        except ValueError as error:
            words = f"its answer is not valid in the protocol: {error}"
            await life.publish(self._turns.fail(failure_of(words)))
        else:
            await life.publish(self._turns.end(answer.stop_reason, answer.model_dump(by_alias=True)))

    def stray(self, line: bytes) -> list[Event]:
        """A line that is not a message of the protocol."""
        return [self._translator.stray("stdout", line.decode("utf-8", "replace").rstrip("\n"))]

    async def take_update(self, life: ProgramLife, update: dict[str, Any]) -> None:
        """Publish an update of the session."""
        await life.publish(self._turns.translate(update))

    async def interrupt(self, child: Child) -> bool:  # noqa: ARG002
        """Ask it to end its turn; what it asked is answered as cancelled."""
        for task in self._asked:
            task.cancel()
        if self._connection is None or self._session is None:
            return False
        with contextlib.suppress(ConnectionError):
            await self._connection.cancel(self._session)
        return True

    async def ask_to_end(self, child: Child) -> None:
        """Close its input, which ends it."""
        if child.stdin is not None:
            child.stdin.close()

    async def ask(self, call: ToolCallUpdate, options: list[PermissionOption]) -> RequestPermissionResponse:
        """Ask a person for a permission; cancelled where the turn is."""
        if self._life is None:
            return _cancelled()
        shown = call.model_dump(by_alias=True, exclude_none=True)
        await self._life.publish(self._turns.translate({**shown, "sessionUpdate": "tool_call"}))
        permission = Permission(
            tool=tool_of(shown), call_id=call.tool_call_id, arguments=arguments_of(shown), why=call.title
        )
        task = self._life.spawn(self._life.ask(permission))
        self._asked.add(task)
        try:
            answer: Answer = await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return _cancelled()
        finally:
            self._asked.discard(task)
        return _chosen(options, answer)


def _chosen(options: Iterable[PermissionOption], answer: Answer) -> RequestPermissionResponse:
    """The option that an answer means. The protocol cannot change arguments, so who changed them has not
    approved what would run.
    """
    approved = answer.approved and answer.arguments is None
    always = "always" if answer.always else "once"
    kind = "allow" if approved else "reject"
    wanted = [f"{kind}_{always}", f"{kind}_once", *([] if approved else [f"{kind}_always"])]
    by_kind = {option.kind: option.option_id for option in reversed(list(options))}
    found = next((by_kind[each] for each in wanted if each in by_kind), None)
    if found is None:
        return _cancelled()
    return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=found))


def _cancelled() -> RequestPermissionResponse:
    return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))


def _words_of(error: RequestError) -> str:
    """The words of an error, with what its data adds to them."""
    data = error.data if isinstance(error.data, dict) else {}
    more = next((str(data[name]) for name in ("details", "message", "error") if data.get(name)), "")
    return f"{error}: {more}" if more and more not in str(error) else str(error)


def _refused(program: str, error: RequestError) -> AgentFailed:
    words = f"{program} did not begin a session: {_words_of(error)}"
    if error.code == _AUTH_REQUIRED:
        return AgentFailed(
            words, kind="auth", hint="log in with that program first, or pass its key to its runner"
        )
    return AgentFailed(words)


class _Client:
    """What the program may ask: permissions, and no files or terminals, which it has itself."""

    def __init__(self, program: AcpProgram) -> None:
        self._program = program

    async def request_permission(
        self,
        session_id: str,  # noqa: ARG002 - there is one
        tool_call: ToolCallUpdate,
        options: list[PermissionOption],
        **_: Any,
    ) -> RequestPermissionResponse:
        """Ask a person."""
        return await self._program.ask(tool_call, options)


class _Transport:
    """The streams of our launcher, as the SDK reads and writes messages.

    Updates of the session are taken here: in their order, before the answer that ends their turn, and
    whatever the SDK knows of them. It never raises where the SDK would write that to a terminal.
    """

    def __init__(self, program: AcpProgram, life: ProgramLife, child: Child) -> None:
        self._program, self._life, self._child = program, life, child
        #: Whether the updates that come are of what was said before.
        self.replays = False
        #: What the program answered last.
        self.answered: dict[str, Any] = {}
        self.ended = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        """Write a message. What cannot be written is answered by the end of what the program prints."""
        assert self._child.stdin is not None
        with contextlib.suppress(ChildNotListening):
            await self._child.stdin.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message that is for the SDK; None at the end."""
        assert self._child.stdout is not None
        while True:
            try:
                line = await self._child.stdout.readline(LONGEST_LINE)
            except LineTooLong as error:
                line = f"[{error} was skipped]\n".encode()
            if not line:
                self.ended.set()
                return None
            if not line.strip():
                continue
            message = object_of(line)
            if message.get("method") == "session/update":
                if not self.replays:
                    await self._program.take_update(self._life, inner(message, "params", "update"))
            elif "id" in message or "method" in message:
                self.answered = inner(message, "result") or self.answered
                return message
            else:
                await self._life.publish(self._program.stray(line))

    async def close(self) -> None:
        """Write no more."""
        self.ended.set()
