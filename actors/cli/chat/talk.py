"""``Talk``: asks a person for words, and has a pod do a turn with them, until the person leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from actors.cli.approvals.approver import Approver
from actors.cli.chat.current import Current
from actors.cli.chat.files import with_files
from actors.cli.chat.footer import footer_line
from actors.cli.chat.lines import Asker
from actors.cli.chat.typed import Typed, Words, understand
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import View
from actors.cli.follow import Start, follow_until_signal
from actors.system import PodSystem
from protocol.errors import NotRunning, PodStopped, PolypodError, RunFailed
from protocol.items import Part, TextPart

Answering = Callable[[PodSystem], Approver]


class Talk:
    """A chat: the pod that is talked with, and what its person has said and not sent to it yet."""

    def __init__(self, current: Current, terminal: Terminal, view: View, answering: Answering) -> None:
        self.current = current
        self.terminal = terminal
        self._view = view
        self._answering = answering
        #: Lines that were sent during a turn, and are taken up after it.
        self._queue: deque[str] = deque()
        #: What goes with the next words: pictures, and what commands have written.
        self.joins: list[Part] = []
        #: What the person is to find at the prompt, to be changed and sent again.
        self.draft = ""
        self._steering: set[asyncio.Task[None]] = set()

    async def next_line(self, asker: Asker) -> Typed | None:
        """What the person says next; None where the person leaves."""
        while True:
            if self._queue:
                line: str | None = self._queue.popleft()
            else:
                draft, self.draft = self.draft, ""
                line = await asker.ask(draft)
            if line is None:
                return None
            if (typed := understand(line)) is not None:
                return typed

    async def say(self, text: str, asker: Asker) -> None:
        """Do a turn with words, the files that they name and what joins them."""
        try:
            parts = self._with_files(text)
        except PolypodError:
            self.draft = text
            raise
        parts, self.joins = (*parts, *self.joins), []
        content: str | tuple[Part, ...] = text if parts == (TextPart(text),) else parts
        await self.turn(lambda pod: pod.run(content), asker)

    def _with_files(self, text: str) -> tuple[Part, ...]:
        context = self.current.context()
        if context is None or "@" not in text:
            return (TextPart(text),)
        parts, notes = with_files(text, context)
        for note in notes:
            self.terminal.note(note)
        return parts

    async def turn(self, start: Start, asker: Asker) -> None:
        """Do one run to its end; a failure is shown, and the chat goes on."""
        current, terminal = self.current, self.terminal
        current.use()
        try:
            async with nullcontext() if self._has_own_questions() else asker.steering(self._steer):
                await follow_until_signal(
                    current.system, current.pod, start, self._view, terminal,
                    self._answering(current.system), cancels=True,
                )  # fmt: skip
        except RunFailed as error:
            terminal.note(f"polypod: the run failed: {error}", "error")
            if error.hint:
                terminal.note(f"  hint: {error.hint}", "note")
        finally:
            terminal.idle()
            await asyncio.gather(*self._steering)
        await current.look()

    def _has_own_questions(self) -> bool:
        """Whether a tool may read from the keyboard itself, which then nobody else does in a turn."""
        return any(tool.concurrency == "interactive" for tool in self.current.runner.toolbox)

    # -- during a turn -----------------------------------------------------------------------------

    def _steer(self, line: str) -> None:
        """Handle a line that was sent during a turn: words join the turn, a command of the chat waits for its
        end.
        """
        typed = understand(line)
        if typed is None:
            return
        shown = " ".join(line.split())
        if not isinstance(typed, Words):
            self.terminal.note(f"> {shown}  (after this turn)", "user")
            self._queue.append(line)
            return
        self.terminal.note(f"> {shown}", "user")
        task = asyncio.get_running_loop().create_task(self._say_to_run(typed.text))
        self._steering.add(task)
        task.add_done_callback(self._steering.discard)

    async def _say_to_run(self, text: str) -> None:
        try:
            await self.current.pod.steer(self._with_files(text))
        except NotRunning:  # the run has just ended: the next one begins with it
            self._queue.append(text if not text.startswith(("/", "!")) else f"{text[0]}{text}")
        except PolypodError as error:
            self.show_error(error)

    # -- what is shown -----------------------------------------------------------------------------

    def footer(self, columns: int) -> str:
        """The line below the prompt."""
        current = self.current
        try:
            model, home = current.model, str(Path.home())
        except (PodStopped, RuntimeError):
            return ""
        described = current.described
        pwd = current.plan.manifest.pod.pwd
        return footer_line(model, described.occupancy, described.cost, pwd, home, columns)

    def show_error(self, error: PolypodError) -> None:
        """Show an error after which the chat goes on."""
        self.terminal.note(f"polypod: {error.message}", "error")
        if error.hint:
            self.terminal.note(f"  hint: {error.hint}", "note")
