"""``Program``: how a program of others is started, sent to, read and ended; and the bounds of its life."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from actors.runtime.children.child import Child
    from actors.swarm.runners.program import ProgramLife
    from protocol.events import ApprovalRequested, Event


class Bounds(Struct, frozen=True):
    """How often a program may ask its model server again within a run, how many seconds it may wait for that,
    and for how many it may print nothing while no tool of it is at work and nobody is asked.
    """

    retries: int = 5
    wait: float = 60.0
    quiet: float = 1800.0


class Program(Protocol):
    """How one program is spoken to, for one life of it."""

    @property
    def session(self) -> str | None:
        """By what it knows the conversation, once that is known."""

    @property
    def is_ready(self) -> bool:
        """Whether it is up, and can be sent to where it takes words at all."""

    @property
    def stdin(self) -> Literal["pipe", "null"]:
        """What it has as its input."""

    @property
    def joins(self) -> bool:
        """Whether words that are sent within a run join it."""

    @property
    def end_signal(self) -> int | None:
        """The signal that asks it to end, None where ``ask_to_end`` does."""

    def argv(self, task: str | None) -> list[str]:
        """Its command. Raises AgentError."""

    def environment(self) -> Mapping[str, str]:
        """All its variables."""

    async def begin(self, life: ProgramLife, child: Child, task: str | None) -> None:
        """Hand over the task, where the command does not hold it."""

    async def read(self, life: ProgramLife, child: Child) -> None:
        """Publish what it prints, to the end."""

    def read_error(self, line: str) -> Iterable[Event]:
        """The events of a line of its standard error."""

    async def send(self, child: Child, text: str) -> None:
        """Hand over words. Raises ChildError, OSError."""

    async def interrupt(self, child: Child) -> bool:
        """Ask it to end its run; whether it lives on after that."""

    def ask_again(self, life: ProgramLife, requests: Iterable[ApprovalRequested]) -> None:
        """Have a person asked again what it still waits for."""

    async def ask_to_end(self, child: Child) -> None:
        """Ask it to end, by words."""

    @property
    def unrepeated(self) -> deque[str]:
        """Words that were sent to it and that it has not printed yet, where it does that."""

    def let_go(self) -> None:
        """Let go of what leads to it: it has ended."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for words, where no run is open."""
