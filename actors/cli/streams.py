"""The standard streams of a command, whatever it was started with."""

from __future__ import annotations

import errno
import io
import os
import sys
import termios
from typing import TextIO


def open_closed() -> None:
    """Open /dev/null in the place of any standard stream that is closed.

    One that was closed (``>&-``) would give its number to the next file that is opened, a database maybe,
    and whatever then writes to "standard output" would write into that. An answer that was written there
    would be lost without a word: writing to a standard output that was closed fails. So it would to one that
    does not block, as a program left it from which this command has it, once its reader is slow.
    """
    for descriptor in range(3):
        try:
            os.set_blocking(descriptor, True)
        except OSError:
            # takes the lowest number that is free: this one
            os.open(os.devnull, os.O_RDONLY if descriptor == 1 else os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _text_of(number, "r" if number == 0 else "w"))
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what cannot be shown, or read, is another character


def is_lost(descriptor: int) -> bool:
    """Whether the stream leads to a terminal that was closed."""
    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False


def let_go_of_lost_terminal() -> bool:
    """Redirect standard streams of a closed terminal to /dev/null; whether there was one, now or before.

    Writing to one fails, which would end what has still to be done.
    """
    for descriptor in range(3):
        if is_lost(descriptor):
            _lost.add(descriptor)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor)
            os.close(nothing)
    return bool(_lost)


#: The standard streams whose terminal was closed.
_lost: set[int] = set()


def private_stdin() -> TextIO:
    """Take standard input for this command alone, and return it: processes that tools start find nothing.

    Else the first of them would eat what is meant for another, the list that a shell loop reads from. At
    a terminal ``sys.stdin`` stays a person's, for tools that ask something; elsewhere it is at its end.
    """
    ours = _text_of(os.dup(0), "r")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = ours if ours.isatty() else _text_of(0, "r")
    return ours


def _text_of(descriptor: int, mode: str) -> TextIO:
    # Never closed by us: at its end the process closes it.
    raw = os.fdopen(descriptor, f"{mode}b", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="replace", line_buffering=mode == "w")
