"""Who answers for approvals while a command follows a run: the person at its terminal, or nobody."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import termios
import time
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol, TextIO

from actors.cli.approvals.form import FORM_PROMPT, Filled, Unreadable, fields_of, form_lines, read_value
from actors.cli.approvals.question import PROMPT, Said, not_understood_lines, question_lines, understood
from actors.cli.display.event_format import Line
from actors.cli.display.format import visible
from actors.cli.display.terminal import Terminal
from actors.cli.places import store_option
from actors.cli.streams import is_lost
from actors.system import PodSystem
from protocol.approval import A_RULE
from protocol.errors import AlreadyResolved, PodStopped, PolypodError, UnknownApproval
from protocol.events import ApprovalRequested, ApprovalResolved
from protocol.manifest import PodManifest

#: What a model reads where a call has to be asked for.
_NOBODY = "nobody can be asked here; continue without it, or say what you need"
#: What it reads where the person's input has ended.
_ENDED = "the person's input has ended; continue without it, or say what you need"
#: What has become of a call that was not answered elsewhere, by who has resolved it.
_GONE = {"run": "no longer needed", "timeout": "not answered in time"}
#: Bytes of a line, which a terminal gives whole.
_LINE = 1 << 16
#: An answer that somebody else was faster with, or that nobody waits for any more.
_TOO_LATE = (AlreadyResolved, UnknownApproval, PodStopped)


class Approver(Protocol):
    """Answers the calls of one run that wait for approval."""

    #: Whether it shows a question by itself.
    shows: bool

    async def ask(self, request: ApprovalRequested) -> None:
        """Have the call answered; one that is asked about already is ignored."""

    def drop(self, resolved: ApprovalResolved) -> None:
        """Ask no more about a call that waits no longer, whoever has answered."""

    def leave(self) -> None:
        """Ask no more, since the run is about to end."""

    async def finish(self) -> None:
        """Ask no more, since the run has ended, and show what was said meanwhile."""


def approver(
    system: PodSystem, manifest: PodManifest, terminal: Terminal, stdin: TextIO, *, as_json: bool
) -> Approver:
    """The approver of a run that is about to begin: the person, where there is one at the terminal."""
    if not as_json and terminal.interactive and _in_foreground(stdin):
        return AtTerminal(system, terminal, stdin)
    if manifest.approvals.headless == "wait" and system.store.keeps_answers:
        return Elsewhere(system, terminal)
    return Nobody(system, terminal)


def _in_foreground(stdin: TextIO) -> bool:
    """Whether a person can answer there: who reads from the background is stopped by the terminal."""
    try:
        return stdin.isatty() and os.tcgetpgrp(stdin.fileno()) == os.getpgrp()
    except OSError:  # it is not the terminal of this process
        return False


class _Asks:
    """Asks nobody here."""

    shows = False

    def __init__(self, system: PodSystem, terminal: Terminal) -> None:
        self._system = system
        self._terminal = terminal

    def drop(self, resolved: ApprovalResolved) -> None:
        """Do nothing: no question is shown."""

    def leave(self) -> None:
        """Do nothing: no question is shown."""

    async def finish(self) -> None:
        """Do nothing: no question is shown."""


class Nobody(_Asks):
    """Denies each call with words, and says once for each reason what a person could do about that."""

    def __init__(self, system: PodSystem, terminal: Terminal) -> None:
        super().__init__(system, terminal)
        #: The tools that were denied, with the reasons.
        self._said: set[tuple[str, str]] = set()

    async def ask(self, request: ApprovalRequested) -> None:
        with suppress(*_TOO_LATE):
            why = f" ({request.why})" if request.why else ""
            await self._system.deny(request.approval_id, note=f"{_NOBODY}{why}", by="nobody")
            if (request.tool, why) in self._said:
                return
            self._said.add((request.tool, why))
            self._terminal.note(
                f"{request.tool} was denied: it needs approval{why}, and nobody can be asked here"
            )
            allowed = request.hint or A_RULE
            self._terminal.note(
                f'  hint: run it at a terminal; {allowed}; or set headless = "wait" in '
                "[approvals], so that it waits for polypod approve",
                "note",
            )


class Elsewhere(_Asks):
    """Leaves each call to whoever answers in another process, and says how."""

    async def ask(self, request: ApprovalRequested) -> None:
        where = store_option(self._system.store.url)
        self._terminal.note(f"to allow it: polypod approve {shlex.quote(request.approval_id)}{where}", "note")


class AtTerminal:
    """Asks the person, one call after the other; what is said meanwhile is shown behind the answer.

    The terminal keeps its mode, so that Ctrl-C, Ctrl-Z and the keys that edit a line are as always.
    """

    shows = True

    def __init__(self, system: PodSystem, terminal: Terminal, stdin: TextIO) -> None:
        self._system = system
        self._terminal = terminal
        self._descriptor = stdin.fileno()
        #: The calls that wait, the one that is asked for first, in the order in which they came.
        self._waiting: dict[str, ApprovalRequested] = {}
        #: Resolves with whether there is input, or none is wanted any more.
        self._input: asyncio.Future[bool] | None = None
        self._task: asyncio.Task[None] | None = None
        #: What has become of the call that was asked for, in a word.
        self._gone = ""
        self._left = False

    async def ask(self, request: ApprovalRequested) -> None:
        if self._left:
            return
        self._waiting.setdefault(request.approval_id, request)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._ask_all())

    def drop(self, resolved: ApprovalResolved) -> None:
        asked = next(iter(self._waiting), None)
        if self._waiting.pop(resolved.approval_id, None) is not None and asked == resolved.approval_id:
            self._gone = _GONE.get(resolved.by or "", "answered elsewhere")
            self._wake(there=False)

    def leave(self) -> None:
        self._left = True
        self._waiting.clear()
        self._wake(there=False)

    async def finish(self) -> None:
        self.leave()
        if self._task is not None:
            await self._task

    async def _ask_all(self) -> None:
        while self._waiting:
            request = next(iter(self._waiting.values()))
            try:
                said = await self._answer(request)
                if said is not None:
                    await self._resolve(request, said)
            except PolypodError as error:
                self._terminal.note(f"polypod: the answer was not accepted: {error.message}", "error")
                continue  # it is asked for again, while it waits
            self._waiting.pop(request.approval_id, None)

    async def _resolve(self, request: ApprovalRequested, said: Said | Filled) -> None:
        try:
            if isinstance(said, Filled):
                await self._system.approve(request.approval_id, arguments=said.arguments)
            elif said.answer in {"no", "ended"}:
                by: Literal["person", "nobody"] = "person" if said.answer == "no" else "nobody"
                await self._system.deny(request.approval_id, note=said.note, by=by)
            else:
                always = said.answer == "always"
                await self._system.approve(request.approval_id, always=always, note=said.note)
        except _TOO_LATE:
            self._terminal.note("too late: that call no longer waits", "note")

    async def _answer(self, request: ApprovalRequested) -> Said | Filled | None:
        """What the person says of a call; None where it waits no more, or nobody is there any more."""
        async with self._terminal.keyboard():
            return await self._ask_at_keyboard(request)

    async def _ask_at_keyboard(self, request: ApprovalRequested) -> Said | Filled | None:
        with self._terminal.asking():
            self._forget_typed()  # what was typed before is not an answer to it
            self._gone = ""
            self._show(request, whole=False)
            while (line := await self._read_line()) is not None:
                if not line:
                    self._terminal.ask((), "\n")
                    return Said("ended", _ENDED) if self._is_there() else None
                text = line.decode("utf-8", "replace")
                said = understood(text)
                if said is not None and said.answer == "yes" and request.form is not None:
                    return await self._fill(request.form)
                if said is not None and said.answer != "whole":
                    return said
                if said is not None:
                    self._show(request, whole=True)
                else:
                    prompt = PROMPT if request.form is None else FORM_PROMPT
                    self._terminal.ask(not_understood_lines(text, self._terminal.width), prompt)
            self._forget_typed()  # half an answer
            self._terminal.ask((), f"\n{self._gone}\n" if self._gone else "\n")
        return None

    async def _fill(self, form: dict[str, Any]) -> Said | Filled | None:
        """What a person fills a form in with; None where it waits no more, or nobody is there any more."""
        answer: dict[str, Any] = {}
        for field in fields_of(form):
            self._terminal.ask((), field.prompt)
            while (line := await self._read_line()) is not None:
                text = line.decode("utf-8", "replace")
                if not line:
                    return Said("ended", _ENDED) if self._is_there() else None
                try:
                    value = read_value(text, field)
                except Unreadable as expected:
                    self._terminal.ask((Line("note", f"expected {visible(str(expected))}"),), field.prompt)
                else:
                    if value is not None:
                        answer[field.name] = value
                    break
            if line is None:
                return None
        return Filled(answer)

    def _show(self, request: ApprovalRequested, *, whole: bool) -> None:
        behind = len(self._waiting) - 1
        if request.form is not None:
            self._terminal.ask(form_lines(request, self._terminal.width, behind=behind), FORM_PROMPT)
            return
        lines = question_lines(request, self._terminal.width, time.time(), behind=behind, whole=whole)
        self._terminal.ask(lines, PROMPT)

    def _forget_typed(self) -> None:
        with suppress(termios.error):  # the terminal is gone
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    async def _read_line(self) -> bytes | None:
        """Wait for the next line: nothing at the end of the input, also within a line, and None where none is
        wanted any more.
        """
        loop = asyncio.get_running_loop()
        self._input = loop.create_future()
        loop.add_reader(self._descriptor, partial(self._wake, there=True))
        try:
            if not await self._input:
                return None
        finally:
            self._input = None
            loop.remove_reader(self._descriptor)
        try:
            line = os.read(self._descriptor, _LINE)
        except OSError:  # how a terminal reports its end
            return b""
        return line if line.endswith(b"\n") else b""  # Ctrl-D behind words that Enter has not sent

    def _wake(self, *, there: bool) -> None:
        if self._input is not None and not self._input.done():
            self._input.set_result(there)

    def _is_there(self) -> bool:
        """Whether nobody has closed the terminal. That pauses the run, by a signal that may come later, or
        not at all where a shell keeps it; so it is sent here. With ``nohup`` the run goes on.
        """
        if not is_lost(self._descriptor) or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return True
        signal.raise_signal(signal.SIGHUP)
        return False
