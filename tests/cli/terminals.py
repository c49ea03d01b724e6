"""Runs many commands, each at a pseudo-terminal of its own, from one process that has all of it imported.

Reads from standard input, and writes to standard output, as JSON: of each case its words, the number of
columns, its environment and the keys pressed at its prompt, those together that are run at once; and its
exit code and what was seen.
"""

import fcntl
import gc
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor

from warm_server import preload

from actors.cli import main

PATIENCE = 60
#: How the line editor says that it takes keys.
PROMPT = b"\x1b[?2004h"


def start(words: list[str], columns: int, env: dict[str, str]) -> tuple[int, int]:
    """The process of a command at a terminal of its own, and the other end of that."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.environ.update(env)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        sys.argv = ["polypod", *words]
        try:
            main.main()
        except SystemExit as leaving:
            sys.stdout.flush()
            os._exit(int(leaving.code or 0))
        os._exit(99)
    return pid, master


def seen_through(pid: int, master: int, keys: list[str]) -> tuple[int, str]:
    """The exit code of a command, and all that it wrote."""
    seen, waits, deadline = b"", list(keys), time.monotonic() + PATIENCE
    while select.select([master], [], [], max(deadline - time.monotonic(), 0))[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how the end of a terminal is reported
            break
        if not piece:
            break
        seen += piece
        if b"\x1b[6n" in piece:  # a terminal that is asked where its cursor is answers
            os.write(master, b"\x1b[1;1R")
        if PROMPT in piece and waits:
            os.write(master, waits.pop(0).encode())
    else:
        os.kill(pid, 9)
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode(errors="replace")


def at_once(cases: list[tuple[list[str], int, dict[str, str], list[str]]]) -> list[tuple[int, str]]:
    """What becomes of commands that do not wait for one another."""
    with ThreadPoolExecutor(len(cases)) as watching:
        started = [start(*case[:3]) for case in cases]  # before there is a thread
        seen = [watching.submit(seen_through, *at, case[3]) for at, case in zip(started, cases, strict=True)]
        return [each.result() for each in seen]


if __name__ == "__main__":
    preload()
    gc.freeze()  # else each child would walk over, and copy, what all of them share
    json.dump([seen for cases in json.load(sys.stdin) for seen in at_once(cases)], sys.stdout)
