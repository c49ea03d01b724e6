"""A chat's words from a person at a terminal that can only write line after line (TERM=dumb)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

from actors.cli.chat.lines import LONGEST_LINE
from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted, catching
from actors.cli.streams import is_lost
from protocol.text import encodable

#: Seconds within which a second Ctrl-C at the prompt leaves.
TWICE = 5.0


class PlainPrompt:
    """Words from a person, a line at a time, edited as the terminal itself lets them. What is typed during a
    turn is the next one. Ctrl-C drops what was typed; twice within a few seconds it leaves, as Ctrl-D does.
    """

    def __init__(self, stdin: TextIO, terminal: Terminal) -> None:
        self._descriptor = stdin.fileno()
        self._terminal = terminal

    def close(self) -> None:
        """Do nothing: a terminal stays open."""

    @asynccontextmanager
    async def steering(self, take: Callable[[str], None]) -> AsyncIterator[None]:  # noqa: ARG002
        """Do nothing: what is typed meanwhile waits for the next prompt."""
        yield

    async def ask(self, draft: str = "") -> str | None:  # noqa: ARG002 - nothing can be put there to be changed
        """The next line; None where the person leaves."""
        pressed: float | None = None
        while True:
            self._terminal.ask((), "> ")
            line = await self._line()
            if line is not None:
                return self._words(line)
            now = time.monotonic()
            if pressed is not None and now - pressed < TWICE:
                return None
            pressed = now
            self._terminal.note("\nCtrl-C again leaves, and so does Ctrl-D")

    def _words(self, line: bytes) -> str | None:
        if not line and is_lost(self._descriptor):
            raise Interrupted(signal.SIGHUP)
        return encodable(line.decode("utf-8", "replace")).strip() if line else None

    async def _line(self) -> bytes | None:
        """The next line, nothing at the end of the input; None where it was dropped by Ctrl-C. Raises
        Interrupted where another signal ends the chat.
        """
        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()

        def settle(_: int | None = None) -> None:
            if not there.done():
                there.set_result(None)

        loop.add_reader(self._descriptor, settle)
        try:
            with catching(settle, leaves=lambda number: number != signal.SIGINT) as caught:
                await there
        finally:
            loop.remove_reader(self._descriptor)
        if not caught:
            return self._read()
        if caught[0] != signal.SIGINT:
            raise Interrupted(caught[0])
        return None

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, LONGEST_LINE)
        except OSError:  # how a terminal reports its end
            return b""
