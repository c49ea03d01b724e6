"""``PodCommands``: what confines the commands of one pod, and those of them that are in the background."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from actors.tools.shell.command import Command
from protocol.errors import ChildNotConfined, ToolError
from protocol.text import encodable

if TYPE_CHECKING:
    from actors.runtime.children.confinement.confinement import Confinement
    from actors.tools.confinement.sandbox import Sandbox

#: How many of a pod are at work at most, and how many are kept that have ended.
MOST, KEPT = 16, 16
#: Bytes of output that the pod gets with a command's end; of more it learns that there is some.
_SHOWN = 2000


class PodCommands:
    """The commands of one pod: what confines them, and those in the background by their ids, which end with
    the pod.
    """

    def __init__(self, make_sandbox: Callable[[], Sandbox]) -> None:
        self._make_sandbox = make_sandbox
        self._sandbox: Sandbox | None = None
        #: Why commands run unconfined; None where they do not, or nobody has looked.
        self.unconfined: ChildNotConfined | None = None
        #: Whether ``look`` has nothing to find out any more.
        self.has_looked = False
        #: What people know of that.
        self._reported = ""
        #: Sends the pod words about a command that has ended; who has the pod sets it.
        self.notify: Callable[[str], object] = _ignore
        #: Begins every id, so that those of earlier lives of the pod's session are known as such.
        self._life = os.urandom(2).hex()
        self._last = 0
        self._by_id: dict[str, Command] = {}
        #: Those whose end a call of the pod will report.
        self._awaited: set[str] = set()
        self._closed = False
        #: What waits for their ends; the loop itself does not hold on to its tasks.
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def at_work(self) -> list[str]:
        """The ids of those that have not ended."""
        return [each for each, command in self._by_id.items() if not command.ended]

    async def look(self) -> str | None:
        """Look whether commands can be confined, until they can: what people should know where they cannot,
        though they should be, and do not know it yet.
        """
        await self._look()
        if self.unconfined is None or self._get_sandbox().section.mode == "off":
            return None
        words = self.unconfined.message
        if words == self._reported:
            return None
        self._reported = words
        return f"commands of this pod are not confined to its scope, so each needs approval: {words}"

    async def _look(self) -> None:
        if self.has_looked:
            return
        sandbox = self._get_sandbox()
        try:
            self.unconfined = await sandbox.why_not()
        except ChildNotConfined:  # each command is refused
            self.unconfined = None
        # What keeps them from it may end: a full disk, a folder that is not there.
        self.has_looked = self.unconfined is None or sandbox.section.mode == "off"

    async def confine(self) -> Confinement | None:
        """What confines the next command, None where it runs without. Raises ToolError where it must not."""
        await self._look()
        try:
            confinement = await self._get_sandbox().confine()
        except ChildNotConfined as error:
            raise ToolError(f"the command was not run: {error.message}", hint=error.hint) from error
        if confinement is None and self.unconfined is None:
            self.has_looked = False  # it has to be asked for from now on
            raise ToolError("the command was not run: it can no longer be confined; call it again")
        return confinement

    def _get_sandbox(self) -> Sandbox:
        if self._sandbox is None:
            self._sandbox = self._make_sandbox()
        return self._sandbox

    def check_room(self) -> None:
        """Raise ToolError where no more may be at work."""
        if self._closed:
            raise ToolError("the pod is stopping and starts no more commands")
        if len(self.at_work) >= MOST:
            raise ToolError(
                f"the limit of {MOST} background commands is reached: {', '.join(self.at_work)}",
                hint="stop one with shell_stop",
            )

    def add(self, command: Command) -> str:
        """The id of a command that goes on in the background."""
        ended = [each for each, other in self._by_id.items() if other.ended]
        for each in ended[: max(0, len(ended) - KEPT + 1)]:
            del self._by_id[each]
        self._last += 1
        name = f"{self._life}-{self._last}"
        self._by_id[name] = command
        self._begin_to_watch(name, command)
        if self._closed:
            command.ask_to_stop()
        return name

    def find(self, name: str) -> Command:
        """The command of that id. Raises ToolError."""
        if (command := self._by_id.get(name)) is not None:
            return command
        shown = encodable(name)[:80]
        known = ", ".join(self._by_id) or "none"
        life, _, number = name.partition("-")
        if life == self._life and number in map(str, range(1, self._last + 1)):
            raise ToolError(f"{shown} ended a while ago, and its output is no longer kept")
        if life != self._life and len(life) == len(self._life) and number.isdecimal():
            raise ToolError(
                f"{shown} is no longer running: it ended with the earlier process of this "
                f"session that had started it. Known commands: {known}"
            )
        raise ToolError(f"there is no background command {shown!r}; known: {known}")

    async def until(self, waiting: Awaitable[object], name: str, command: Command) -> None:
        """Wait for a command, for a call that reports its end if that has come by then."""
        self._awaited.add(name)
        try:
            await waiting
        except asyncio.CancelledError:
            self._awaited.discard(name)
            if command.ended:
                self._begin_to_watch(name, command)
            raise
        if not command.ended:
            self._awaited.discard(name)

    def begin_to_close(self) -> None:
        """Begin to end them all; nothing is added any more."""
        self._closed = True
        for each in self._by_id.values():
            each.ask_to_stop()

    async def close(self) -> None:
        """End them all."""
        self.begin_to_close()
        try:
            for each in list(self._by_id.values()):
                await each.wait()
        finally:
            if self._sandbox is not None:
                self._sandbox.close()

    def _begin_to_watch(self, name: str, command: Command) -> None:
        watching = asyncio.get_running_loop().create_task(self._watch(name, command))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch(self, name: str, command: Command) -> None:
        await command.wait()
        if self._closed or name in self._awaited:
            return
        words = f"[background command {name} has ended: {command.end}]\n$ {_first_line(command.text)}\n"
        if command.recording.news <= _SHOWN:
            words += await command.recording.look()
        else:
            words += f"(read its {command.recording.news:,} bytes of output with shell_output)"
        self.notify(words.rstrip())


def _first_line(text: str) -> str:
    first, _, rest = text.strip().partition("\n")
    return f"{first[:200]} …" if rest or len(first) > 200 else first


def _ignore(_: str) -> None:
    """Do nothing: there is no pod to notify."""
