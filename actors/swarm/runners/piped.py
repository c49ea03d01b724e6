"""``PipedProgram``: a program that prints lines to its standard output, which a translator reads."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal

from actors.runtime.children.child import Child
from actors.runtime.children.environment import allowed_environment
from actors.swarm.runners.base import Launch
from actors.swarm.runners.lines import LineTranslator
from actors.swarm.runners.program import ProgramLife
from protocol.errors import AgentBusy, AgentError
from protocol.events import ApprovalRequested, Event


class PipedProgram:
    """The base of such programs: one that does one task, which it reads from its standard input."""

    stdin: Literal["pipe", "null"] = "pipe"
    joins = False
    end_signal: int | None = signal.SIGINT

    def __init__(self, launch: Launch, translator: LineTranslator, env: Iterable[str] = ()) -> None:
        """``env`` are variables that the program may have besides those that every child has."""
        self.launch = launch
        self._translator = translator
        self._env = (*env, *launch.env)

    def refuse_provider(self, program: str) -> None:
        """Raise AgentError where a provider is wanted, of which the program knows nothing."""
        if self.launch.provider:
            raise AgentError(
                f"{program} does not take a provider: {self.launch.provider!r} would have no effect",
                hint="omit the provider; the program's own settings say where its models are",
            )

    @property
    def session(self) -> str | None:
        """By what the program knows the conversation."""
        return self._translator.session or self.launch.session

    @property
    def is_ready(self) -> bool:
        """Whether it has said so."""
        return self._translator.is_ready

    @property
    def unrepeated(self) -> deque[str]:
        """Nothing: it prints no words that it was sent."""
        return deque()

    def let_go(self) -> None:
        """Do nothing: its pipes end with it."""

    @property
    def is_idle(self) -> bool:
        """Always: behind each run it waits for words."""
        return True

    def argv(self, task: str | None) -> list[str]:
        """Its command."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What every child may have, and what this one was given by name."""
        return allowed_environment(self._env)

    async def begin(self, life: ProgramLife, child: Child, task: str | None) -> None:  # noqa: ARG002
        """Write the task to its input and close that, since it would wait for more."""
        assert child.stdin is not None
        await child.stdin.write((task or "").encode("utf-8", "replace"))
        child.stdin.close()

    async def read(self, life: ProgramLife, child: Child) -> None:
        """Publish what it prints."""
        assert child.stdout is not None
        while data := await child.stdout.read():
            await self.take(life, data)
        await life.publish(self._translator.finish())

    async def take(self, life: ProgramLife, data: bytes) -> None:
        """Publish what it printed next."""
        await life.publish(self._translator.feed(data))

    def read_error(self, line: str) -> Iterable[Event]:
        """A line of its standard error."""
        return self._translator.feed_errors(line)

    async def send(self, child: Child, text: str) -> None:  # noqa: ARG002
        """Raise AgentBusy: it reads nothing behind its task."""
        raise AgentBusy(f"{child.program} accepts no messages while it works on a task")

    async def interrupt(self, child: Child) -> bool:  # noqa: ARG002
        """Do nothing; returns False, since it can end its task only by ending."""
        return False

    def ask_again(self, life: ProgramLife, requests: Iterable[ApprovalRequested]) -> None:
        """Do nothing: it ends with whoever looked after it."""

    async def ask_to_end(self, child: Child) -> None:
        """Do nothing: a signal ends it."""
