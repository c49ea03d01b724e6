"""Where the input of a chat comes from: a person at a line editor, or the lines of a pipe or file."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from actors.cli.config import state_folder
from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted
from actors.cli.streams import is_lost
from protocol.errors import StoreError
from protocol.text import encodable

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: Bytes of the longest line that a chat takes from a pipe.
LONGEST_LINE = 1 << 24
#: Seconds within which a second Ctrl-C at an empty prompt leaves.
TWICE = 5.0


class Asker(Protocol):
    """Where the next words of a person come from."""

    async def ask(self) -> str | None:
        """The next words, or None when the person leaves."""

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

    async def ask(self) -> str | None:
        while True:
            try:
                line = await self._read()
            except ValueError:  # the reader has dropped what it had of the line
                self._terminal.note(f"polypod: a line of over {LONGEST_LINE:,} bytes is no turn", "error")
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


class Prompt:
    """Words from a person: a line editor with a history of its own.

    Ctrl-C drops what was typed; at an empty line, twice within a few seconds, it leaves, as Ctrl-D does.
    """

    def __init__(self, stdin: TextIO, terminal: Terminal) -> None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - only a chat at a terminal pays for it
        from prompt_toolkit.input import create_input  # noqa: PLC0415
        from prompt_toolkit.output import create_output  # noqa: PLC0415

        self._stdin = stdin
        self._terminal = terminal
        self._session: PromptSession[str] = PromptSession(
            history=_history(),
            input=create_input(stdin),
            output=create_output(always_prefer_tty=True),  # standard output may be a file
            key_bindings=_newline_keys(),
        )

    def close(self) -> None:
        """A terminal stays open."""

    async def ask(self) -> str | None:
        pressed: float | None = None
        while True:
            try:
                with _enter_distinct_from_newline(self._stdin.fileno()):
                    words = self._typed_ahead()
                    if words is None:
                        words = await self._session.prompt_async("> ")
                return encodable(words).strip()
            except EOFError:
                if is_lost(self._stdin.fileno()):
                    raise Interrupted(signal.SIGHUP) from None
                return None
            except KeyboardInterrupt:
                now = time.monotonic()
                if self._session.default_buffer.text:
                    pressed = None
                elif pressed is not None and now - pressed < TWICE:
                    return None
                else:
                    pressed = now
                    self._terminal.note("Ctrl-C again leaves, and so does Ctrl-D")

    def _typed_ahead(self) -> str | None:
        """A line that was sent while nobody asked: the terminal has ended it with a newline, which the line
        editor would take for Ctrl-J. Raises EOFError where it was Ctrl-D.
        """
        from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead  # noqa: PLC0415

        earlier = get_typeahead(self._session.input)
        store_typeahead(self._session.input, earlier)
        descriptor = self._stdin.fileno()
        if earlier or not select.select([descriptor], [], [], 0)[0]:
            return None
        line = os.read(descriptor, LONGEST_LINE).decode("utf-8", "replace")
        if not line:
            raise EOFError
        self._terminal.note(f"> {line.rstrip()}", "user")
        return line


def _newline_keys() -> KeyBindings:
    """Alt-Enter and Ctrl-J begin a new line; Enter alone sends what was written."""
    from prompt_toolkit.key_binding import KeyBindings  # noqa: PLC0415

    keys = KeyBindings()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


@contextmanager
def _enter_distinct_from_newline(descriptor: int) -> Iterator[None]:
    """Have Enter come as a carriage return also where it was pressed before the line editor listens: a
    terminal makes a newline of it, which is what Ctrl-J sends.
    """
    before = termios.tcgetattr(descriptor)
    distinct = [before[0] & ~termios.ICRNL, *before[1:]]
    termios.tcsetattr(descriptor, termios.TCSANOW, distinct)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _history() -> History:
    """What was typed in this chat and those before, kept for its owner alone; in memory if it cannot be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415

    class Kept(FileHistory):
        """A line that cannot be kept is no reason to end a chat."""

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(encodable(string))

    try:
        path = state_folder() / "chat-history"
        path.touch(mode=0o600)
        path.open("rb").close()
    except (OSError, StoreError):
        return InMemoryHistory()
    return Kept(str(path))
