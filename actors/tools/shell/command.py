"""``Command``: a command at work in a shell: its output is recorded, and its end waited for."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.cleaning import Cleaner
from actors.runtime.signal_names import signal_name
from actors.tools.shell.recording import Recording
from protocol.errors import ChildError, ToolError

if TYPE_CHECKING:
    from actors.runtime.children.child import Child, ChildEnd
    from actors.runtime.children.confinement.confinement import Confinement
    from actors.runtime.children.launcher import Launcher
    from actors.tools.base import ToolContext

#: What programs ask that would else wait for a person, or write for a terminal.
_PLAIN = {
    "TERM": "dumb",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "PYTHONUNBUFFERED": "1",
}
#: Seconds after which new output is reported to who follows, and bytes of it that are shown at once.
_EVERY = 0.1
_MOST_SHOWN = 4096
#: What a shell adds to the number of the signal that ended a program, for its own exit code.
_BY_SIGNAL = 128
#: Characters that may be too many for a command (on Linux it has less than 128 KiB), and what is said then.
_LONG = 32_000
_SHORTER = "write the long part to a file, with write_file or piece by piece, and use the file in the command"


def shell_program() -> str:
    """The shell that runs commands: ``bash`` where the ``PATH`` of now has it, which commands get too."""
    return _shell_in(os.environ.get("PATH"))


@functools.lru_cache(maxsize=8)
def _shell_in(_: str | None) -> str:
    return "bash" if shutil.which("bash") else "/bin/sh"


class Command:
    """A command that was started. Used on the loop that started it."""

    def __init__(
        self,
        text: str,
        child: Child,
        recording: Recording,
        report: Callable[[str], object],
        *,
        confined: bool = False,
    ) -> None:
        """``report`` gets what it writes, as it comes and never all of it at once."""
        self.text = text
        self.confined = confined
        self.recording = recording
        self._child = child
        self._progress = _Progress(report)
        self._written = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        #: The seconds that it had, once they are over.
        self._late: float | None = None
        #: Ends with the last of its processes. It is nobody's who may be cancelled.
        self.task = asyncio.get_running_loop().create_task(self._follow())

    @property
    def ended(self) -> bool:
        """Whether the last of its processes has ended."""
        return self.task.done()

    @property
    def end(self) -> str:
        """How it ended, in words."""
        try:
            words = end_in_words(self.task.result())
        except ChildError as error:
            words = str(error)
        return words if self._late is None else f"not done after {self._late:g} s, so it was stopped: {words}"

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end, at most so many ``seconds``; whether it has ended."""
        await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()

    def end_after(self, seconds: float) -> None:
        """Begin to stop it where it has not ended in so many seconds."""
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._end_late, seconds)

    def _end_late(self, seconds: float) -> None:
        if not self._child.ended:
            self._late = seconds
            self.ask_to_stop()

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until it has ended, or has written something since the last look."""
        if self.recording.news or self.ended:
            return
        self._written.clear()
        news = asyncio.ensure_future(self._written.wait())
        try:
            await asyncio.wait({self.task, news}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def ask_to_stop(self, term_wait: float = 2.0) -> None:
        """Begin to end it and all that it has started: by TERM, and ``term_wait`` seconds later by KILL."""
        from actors.runtime.children.child import Ladder  # noqa: PLC0415 - it is there by now

        if not self._child.ended:
            self._child.ask_to_stop(Ladder(term_wait=term_wait))

    async def stop(self, term_wait: float = 2.0) -> None:
        """Stop the command, and wait for its end."""
        self.ask_to_stop(term_wait)
        await self.wait()

    async def _follow(self) -> ChildEnd:
        output = self._child.stdout
        assert output is not None
        try:
            while data := await output.read():
                self._progress.add(data)
                await self.recording.feed(data)
                self._written.set()
                await asyncio.sleep(0)  # one that writes without a pause leaves others their turns
            return await self._child.wait()
        finally:
            self._progress.close()
            if self._alarm is not None:
                self._alarm.cancel()


async def start(
    text: str, ctx: ToolContext, launcher: Launcher, wait: float | None, confinement: Confinement | None
) -> Command:
    """Start a command. Raises ToolError."""
    from actors.runtime.children.environment import allowed_environment  # noqa: PLC0415 - paid for by who starts

    folder = working_folder(ctx) or (ctx.pwd if confinement is None else Path(confinement.home))
    environment = allowed_environment(of=os.environ, **_PLAIN)
    try:
        child = await launcher.start(
            [shell_program(), "-c", text],
            cwd=folder,
            env=environment,
            stderr="stdout",
            wait=wait,
            confinement=confinement,
        )
    except ChildError as error:
        hint = error.hint or (_SHORTER if len(text) > _LONG else None)
        raise ToolError(f"the command was not run: {error}", hint=hint) from error
    recording = Recording(ctx.output_cap, ctx.keep_in, "shell")
    return Command(text, child, recording, ctx.progress, confined=confinement is not None)


def working_folder(ctx: ToolContext) -> Path | None:
    """Where commands begin: in the pod's folder, or else in the first that its scope allows; None where that
    allows none. Raises ToolError where none of those is there.
    """
    if ctx.scope.permits(ctx.pwd, "read"):
        return ctx.pwd
    allowed = [Path(rule.target) for rule in ctx.scope.allow if ctx.scope.permits(Path(rule.target), "read")]
    found = next((each for each in allowed if each.is_dir()), None)
    gone = None if found else next((each for each in allowed if not os.path.lexists(each)), None)
    if gone is not None:
        raise ToolError(
            f"the command was not run: its working folder no longer exists: {gone}",
            hint="create the folder, or give the pod another scope",
        )
    return found


def end_in_words(end: ChildEnd) -> str:
    """How a command ended."""
    words = f"exit code {end.code}"
    if end.code < 0:
        words = f"ended by {signal_name(-end.code)}"
    elif end.code > _BY_SIGNAL and end.code - _BY_SIGNAL in signal.valid_signals():  # as shells report it
        words += f", as of a program ended by {signal_name(end.code - _BY_SIGNAL)}"
    if end.left:
        words += f"; could not be ended: {', '.join(map(str, end.left))}"
    return words


class _Progress:
    """Reports what a command writes, now and then and bounded."""

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._cleaner = Cleaner()
        self._new = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, data: bytes) -> None:
        self._new += data[-_MOST_SHOWN:]
        del self._new[:-_MOST_SHOWN]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._report_news)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._report_news()

    def _report_news(self) -> None:
        self._timer = None
        text = self._cleaner.feed(bytes(self._new)) + self._cleaner.flush()
        self._new.clear()
        if text and not self._cleaner.is_binary:
            self._report(text)
