"""Programs that print our lines and listen on an inbox, as ``polypod agent`` does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

from actors.runtime.children.child import Child
from actors.swarm.runners.agent_format import AgentTranslator
from actors.swarm.runners.base import APPROVED, DENIED, Launch, Permission
from actors.swarm.runners.lines import Ask, inner, text_of
from actors.swarm.runners.piped import PipedProgram
from actors.swarm.runners.program import ProgramLife
from actors.swarm.runners.stream import Recorder
from protocol.commands import Approve, Command, Disapprove
from protocol.errors import AgentError
from protocol.events import ApprovalRequested
from protocol.wire import encode_recordable

#: What such a program has of our variables besides those that its runner lists.
_ENV = ("PATH", "HOME", "LANG", "TMPDIR")
#: The variable that names the file of the agent's events, and of no other agent's.
AGENT_LOG = "POLYPOD_AGENT_LOG"
#: Bytes that the path of a socket may have everywhere.
_LONGEST_PATH = 100


class ListeningProgram(PipedProgram):
    """A command, which gets the flags of ``polypod agent``."""

    stdin: Literal["pipe", "null"] = "null"
    end_signal: int | None = None
    _translator: AgentTranslator

    def __init__(
        self, launch: Launch, recorder: Recorder, command: tuple[str, ...], env: tuple[str, ...]
    ) -> None:
        super().__init__(launch, AgentTranslator(recorder), env)
        self._command = command
        self._inbox: asyncio.StreamWriter | None = None
        self._lock = asyncio.Lock()
        #: What it waits for a person to allow.
        self._asked: dict[str, asyncio.Task[None]] = {}
        #: Whether the program has ended.
        self._over = False

    def argv(self, task: str | None) -> list[str]:
        """Its command; behind ``--`` comes the task, which may look like a flag. Raises AgentError."""
        launch = self.launch
        if len(os.fsencode(launch.inbox)) > _LONGEST_PATH:
            raise AgentError(f"the path of the inbox is longer than {_LONGEST_PATH} bytes: {launch.inbox}")
        flags = ["--inbox", str(launch.inbox)]
        for name, value in (
            ("--session", launch.session),
            ("--cwd", str(launch.cwd)),
            ("--model", launch.model),
            ("--provider", launch.provider),
        ):
            flags += [name, value] if value else []
        if task:
            self._translator.sent.append(task)
        return [*self._command, *flags, *(["--", task] if task else [])]

    def environment(self) -> dict[str, str]:
        """Its variables: what every program needs, what it was given by name, and where it finds
        its agent.
        """
        names = (*_ENV, *self._env)
        known = {name: os.environ[name] for name in names if name in os.environ}
        launch = self.launch
        return {**known, "POLYPOD_AGENT_ID": launch.agent_id, AGENT_LOG: str(launch.log)}

    async def begin(self, life: ProgramLife, child: Child, task: str | None) -> None:
        """Do nothing: the task is in its command."""

    async def send(self, child: Child, text: str) -> None:  # noqa: ARG002
        """Send words of a user, on one line however many they have. Raises OSError."""
        self._translator.sent.append(text)
        plain = "\n" not in text and "\r" not in text and text == text.strip()
        await self._write(f"user {text}" if plain else f"user-json {msgspec.json.encode(text).decode()}")

    async def interrupt(self, child: Child) -> bool:  # noqa: ARG002
        """Ask it to end its run. Raises OSError."""
        await self._write("cancel")
        return True

    async def take(self, life: ProgramLife, data: bytes) -> None:
        """Publish what it printed, and have a person asked what it asks."""
        await super().take(life, data)
        for ask in self._translator.take_asked():
            if text_of(ask.question, "type") == "approval_requested":
                self._ask(life, ask.id, _permission(ask))
            elif (task := self._asked.pop(ask.id, None)) is not None:  # by us, or elsewhere
                task.cancel(APPROVED if ask.question.get("approved") is True else DENIED)

    def ask_again(self, life: ProgramLife, requests: Iterable[ApprovalRequested]) -> None:
        """Have a person asked again what it still waits for."""
        for each in requests:
            key = each.approval_id.partition("-")[2]
            self._ask(
                life,
                key,
                Permission(
                    tool=each.tool, key=key, call_id=each.call_id, arguments=each.arguments, why=each.why
                ),
            )

    def _ask(self, life: ProgramLife, key: str, permission: Permission) -> None:
        if key not in self._asked:
            self._asked[key] = life.spawn(self._answer(life, key, permission))

    async def _answer(self, life: ProgramLife, key: str, permission: Permission) -> None:
        """Ask a person, and send the program the answer."""
        answer = await life.ask(permission)
        command: Command = Disapprove(key, note=answer.note)
        if answer.approved:
            command = Approve(key, always=answer.always, arguments=answer.arguments, note=answer.note)
        with contextlib.suppress(OSError):  # it has ended
            await self._write(encode_recordable(command).decode())

    async def ask_to_end(self, child: Child) -> None:  # noqa: ARG002
        """Ask it to end. Raises OSError."""
        await self._write("shutdown")

    async def _write(self, line: str) -> None:
        async with self._lock:
            for again in (True, False):  # it may have closed a connection that was left idle
                if self._inbox is None:
                    self._inbox = await self._connect()
                self._inbox.write(line.encode("utf-8", "replace") + b"\n")
                try:
                    await self._inbox.drain()
                except ConnectionError:
                    self._inbox.close()
                    self._inbox = None
                    if not again:
                        raise
                else:
                    return

    async def _connect(self) -> asyncio.StreamWriter:
        """Raises OSError, also where the program has ended meanwhile."""
        writer = (await asyncio.open_unix_connection(self.launch.inbox))[1]
        if self._over:
            writer.close()
            raise ConnectionResetError("it has ended")
        return writer

    @property
    def unrepeated(self) -> deque[str]:
        """The words that were sent to it and that it has not printed yet."""
        return self._translator.sent

    def let_go(self) -> None:
        """Close the connection to its inbox."""
        self._over = True
        if self._inbox is not None:
            with contextlib.suppress(OSError):
                self._inbox.close()


def _permission(ask: Ask) -> Permission:
    line = ask.question
    return Permission(
        tool=text_of(line, "tool"),
        key=ask.id,
        call_id=text_of(line, "call_id"),
        arguments=inner(line, "arguments"),
        why=text_of(line, "why") or None,
        form=inner(line, "form") or None,
    )
