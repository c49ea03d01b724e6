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

from actors.tools.shell.cleaning import Cleaner
from actors.tools.shell.recording import Recording
from protocol.errors import ChildError, ToolError

if TYPE_CHECKING:
    from actors.runtime.children.child import Child, ChildEnd
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


@functools.cache
def shell_program() -> str:
    """The shell that runs commands."""
    return "bash" if shutil.which("bash") else "sh"


class Command:
    """A command that was started. Used on the loop that started it."""

    def __init__(
        self, text: str, child: Child, recording: Recording, report: Callable[[str], object]
    ) -> None:
        """``report`` gets what it writes, as it comes and never all of it at once."""
        self.text = text
        self.recording = recording
        self._child = child
        self._progress = _Progress(report)
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
            return end_in_words(self.task.result())
        except ChildError as error:
            return str(error)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end, at most so many ``seconds``; whether it has ended."""
        await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()

    async def stop(self, term_wait: float = 2.0) -> None:
        """End it and all that it has started: by TERM, and ``term_wait`` seconds later by KILL."""
        from actors.runtime.children.child import Ladder  # noqa: PLC0415 - it is there by now

        if not self._child.ended:
            self._child.ask_to_stop(Ladder(term_wait=term_wait))
        await self.wait()

    async def _follow(self) -> ChildEnd:
        output = self._child.stdout
        assert output is not None
        try:
            while data := await output.read():
                self._progress.add(data)
                await self.recording.feed(data)
                await asyncio.sleep(0)  # one that writes without a pause leaves others their turns
            return await self._child.wait()
        finally:
            self._progress.close()


async def start(text: str, ctx: ToolContext, launcher: Launcher, wait: float | None) -> Command:
    """Start a command. Raises ToolError."""
    from actors.runtime.children.environment import allowed_environment  # noqa: PLC0415 - paid for by who starts

    folder = working_folder(ctx)
    environment = allowed_environment(of=os.environ, **_PLAIN)
    try:
        child = await launcher.start(
            [shell_program(), "-c", text], cwd=folder, env=environment, stderr="stdout", wait=wait
        )
    except ChildError as error:
        raise ToolError(f"the command was not run: {error}", hint=error.hint) from error
    return Command(text, child, Recording(ctx.output_cap, ctx.keep_in, "shell"), ctx.progress)


def working_folder(ctx: ToolContext) -> Path:
    """Where commands begin: in the pod's folder, or else in the first that its scope names."""
    if ctx.scope.permits(ctx.pwd, "read"):
        return ctx.pwd
    folders = (Path(rule.target) for rule in ctx.scope.allow)
    return next((each for each in folders if each.is_dir()), ctx.pwd)


def end_in_words(end: ChildEnd) -> str:
    """How a command ended."""
    words = f"exit code {end.code}"
    if end.code < 0:
        words = f"ended by {_signal_name(-end.code)}"
    elif end.code - 128 in signal.valid_signals():  # as shells report it
        words += f", as of a program that {_signal_name(end.code - 128)} has ended"
    if end.left:
        words += f"; could not be ended: {', '.join(map(str, end.left))}"
    return words


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
