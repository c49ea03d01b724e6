"""Whether a launcher has started a process, at whatever remove."""

from __future__ import annotations

import os

#: Stands in the command of the helper that starts children, and of the wardens that it forks.
HELPER = b"actors.runtime.children.helper"


def launcher_above(pid: int | None = None) -> int | None:
    """The number of the process that has started this one, or ``pid``, for a launcher, with all between them;
    None where there is none, or the system has no ``/proc``.
    """
    number, seen = os.getppid() if pid is None else pid, set[int]()
    while number > 0 and number not in seen:
        seen.add(number)
        try:
            with open(f"/proc/{number}/cmdline", "rb") as command:  # noqa: PTH123 - as its neighbours do
                if HELPER in command.read():
                    return number
            with open(f"/proc/{number}/stat", "rb") as stat:  # noqa: PTH123 - the same
                # Behind the program's name, which may hold anything: state, parent.
                number = int(stat.read().rpartition(b")")[2].split()[1])
        except OSError:  # it has just ended, or is another's
            return None
    return None
