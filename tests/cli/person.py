"""Somebody at a terminal, who presses keys and waits for words."""

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

from command_kit import COMMAND, Home
from warm import Popen

CTRL_C, CTRL_D, CTRL_J, UP, ENTER, ALT_ENTER = "\x03", "\x04", "\n", "\x1b[A", "\r", "\x1b\r"
#: How the line editor says that it takes keys.
PROMPT = "\x1b[?2004h"
PATIENCE = 60
#: Takes the terminal for its own, so that Ctrl-C is a signal, and goes on as the command, or becomes ``through``,
#: which starts it.
_AT_TERMINAL = """
import fcntl, os, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
through, *command = sys.argv[1:]
if through:
    os.execv(through, [through, *command])
del sys.argv[1:5]
runpy._run_module_as_main("polypod")
"""


class Person:
    """Somebody at a terminal: presses keys, and waits until words are seen."""

    def __init__(self, home: Home, *arguments: str, through: str = "", columns: int = 100) -> None:
        self._master, slave = os.openpty()
        self.resize(columns)
        env = {"TERM": "xterm-256color"} | home.env
        self.process = Popen(
            [sys.executable, "-c", _AT_TERMINAL, through, *COMMAND, *arguments], cwd=home.folder, env=env,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = self.before = self.written = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def press(self, keys: str) -> None:
        self.press_bytes(keys.encode())

    def press_bytes(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def sees(self, words: str) -> None:
        """Wait until ``words`` are on the screen; what came with them counts as seen, ``before`` is the last of it."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{words!r} never came: {self.seen[-2000:]!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    came = os.read(self._master, 65536).decode(errors="replace")
                    self.seen += came
                    self.written += came
                except OSError:
                    raise AssertionError(f"it ended before {words!r}: {self.seen[-2000:]!r}") from None
                if "\x1b[6n" in self.seen:  # a terminal that is asked where its cursor is answers
                    self.seen = self.seen.replace("\x1b[6n", "")
                    self.press("\x1b[1;1R")
        self.before, _, self.seen = self.seen.partition(words)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._master)
        self._master = -1

    def takes_lines(self) -> bool:
        """Whether the terminal is as it is for programs that edit no lines themselves: it echoes, line by line."""
        flags = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ICANON and flags & termios.ECHO)

    def leaves_with(self) -> int:
        with contextlib.suppress(OSError):
            while piece := os.read(self._master, 65536):
                self.written += piece.decode(errors="replace")
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            os.close(self._master)


@contextlib.contextmanager
def person(home: Home, *arguments: str, **options: Any) -> Iterator[Person]:
    somebody = Person(home, *arguments, **options)
    try:
        yield somebody
    finally:
        somebody.close()
