"""A chat's words from a pipe or a file: each line is a turn."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TextIO

from actors.cli.display.terminal import Terminal

#: Bytes of the longest line that a chat takes from a pipe.
LONGEST_LINE = 1 << 24


class Asker(Protocol):
    """Where the next words of a person come from."""

    async def ask(self, draft: str = "") -> str | None:
        """The next words, or None when the person leaves; ``draft`` is there to be changed and sent."""

    def steering(self, take: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """Have ``take`` get what is sent during the body, where a person can type then."""

    def close(self) -> None:
        """Let go of what the words come from."""


class Lines:
    """Words from a pipe or a file: each line is a turn."""

    def __init__(self, stdin: TextIO, terminal: Terminal) -> None:
        self._stdin = stdin
        self._terminal = terminal
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            os.set_blocking(self._stdin.fileno(), True)  # as whoever reads on from the pipe expects it

    @asynccontextmanager
    async def steering(self, take: Callable[[str], None]) -> AsyncIterator[None]:  # noqa: ARG002
        """Do nothing: the next line is the next turn."""
        yield

    async def ask(self, draft: str = "") -> str | None:  # noqa: ARG002 - nobody could change it
        while True:
            try:
                line = await self._read()
            except ValueError:  # the reader has dropped what it had of the line
                self._terminal.note(
                    f"polypod: a line of more than {LONGEST_LINE:,} bytes is too long for a turn", "error"
                )
                continue
            return line.decode("utf-8", "replace").strip() if line else None

    async def _read(self) -> bytes:
        """The next line; from a pipe without a thread, which a Ctrl-C would have to wait for."""
        if self._reader is None:
            if not _can_be_awaited(self._stdin.fileno()):
                return self._stdin.buffer.readline()
            reader = self._reader = asyncio.StreamReader(limit=LONGEST_LINE)
            protocol = asyncio.StreamReaderProtocol(reader)
            # A copy of the descriptor: at its end the loop closes what it reads.
            copy = os.fdopen(os.dup(self._stdin.fileno()), "rb", buffering=0)
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.connect_read_pipe(lambda: protocol, copy)
        return await self._reader.readline()


def _can_be_awaited(descriptor: int) -> bool:
    """Whether a loop can watch it: it cannot a file, and a terminal would be changed for all who use it."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
