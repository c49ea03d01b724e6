"""Finds out whether a process was started by a ``Launcher``, directly or through other processes."""

from __future__ import annotations

import os

#: Part of the command line of the helper that starts children, and of the wardens that it forks.
HELPER = b"actors.runtime.children.helper"


def launcher_above(pid: int | None = None) -> int | None:
    """The pid of the process whose launcher started this process (or ``pid``), directly or not. None if there
    is none, or if the system has no ``/proc``.
    """
    number, seen = os.getppid() if pid is None else pid, set[int]()
    while number > 0 and number not in seen:
        seen.add(number)
        try:
            with open(f"/proc/{number}/cmdline", "rb") as command:  # noqa: PTH123 - as its neighbours do
                if HELPER in command.read():
                    return number
            with open(f"/proc/{number}/stat", "rb") as stat:  # noqa: PTH123 - the same
                # After the program's name, which may contain anything: state, parent.
                number = int(stat.read().rpartition(b")")[2].split()[1])
        except OSError:  # it has just ended, or belongs to another user
            return None
    return None
