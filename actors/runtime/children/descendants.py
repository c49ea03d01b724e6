"""Finds and signals all descendants of a process, including those that have left its session or changed
parents.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection
from typing import NamedTuple

#: Seconds after which a process that survives SIGKILL is given up: it hangs in the kernel, or is another
#: user's.
KILL_WAIT = 5.0
#: Rounds of looking for new processes while the known ones are stopped: whatever forks is stopped by then.
_ROUNDS = 50
#: More bytes than ``/proc/PID/stat`` has.
_STAT = 4096
_NOTHING: frozenset[int] = frozenset()


class Process(NamedTuple):
    """A process, identified by pid and start time (in ticks since boot)."""

    pid: int
    began: int


def this_process() -> Process | None:
    """The current process; None on a system that does not say."""
    return find_process(os.getpid())


def find_process(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none, or the system does not say."""
    found = _look(str(pid))
    return None if found is None else found[1]


def descendants(*, of: Collection[int] = _NOTHING, but: Collection[int] = _NOTHING) -> list[Process]:
    """All living processes below the pids ``of``, by default below this process, parents first. Those with
    the pids ``but``, and everything below them, are left out.
    """
    below: dict[int, list[Process]] = {}
    for name in _numbers():
        found = _look(name)
        if found is not None:
            parent, process = found
            below.setdefault(parent, []).append(process)
    known: list[Process] = []
    parents = list(of or (os.getpid(),))
    for parent in parents:
        mine = [each for each in below.get(parent, ()) if each.pid not in but]
        known += mine
        parents += [each.pid for each in mine]
    return known


def in_session(leader: int) -> list[Process]:
    """The processes of the session that the process ``leader`` began; the leader itself may have ended."""
    found = []
    for name in _numbers():
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == leader and (seen := _look(name)) is not None:
                found.append(seen[1])
    return found


def with_variable(entry: str) -> list[Process]:
    """The user's processes that were started with a variable (as ``NAME=value``), or inherited it
    unchanged.
    """
    found, wanted = [], os.fsencode(entry)
    for name in _numbers():
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123 - as below
            if wanted in file.read().split(b"\0") and (seen := _look(name)) is not None:
                found.append(seen[1])
    return found


def send(process: Process, number: int) -> None:
    """Signal a process, but not another that has its pid by now. Does nothing if that is not permitted."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(process.pid, number)
            return
        handle = os.pidfd_open(process.pid)
        try:
            found = _look(str(process.pid))
            if found is not None and found[1] == process:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def kill_all(*, but: Collection[int] = _NOTHING) -> list[Process]:
    """Kill all descendants, including those forked meanwhile. Returns which they were."""
    stopped: dict[Process, None] = {}
    for _ in range(_ROUNDS):
        fresh = [each for each in descendants(but=but) if each not in stopped]
        if not fresh:
            break
        for each in fresh:
            send(each, signal.SIGSTOP)  # a stopped process forks no more
        stopped.update(dict.fromkeys(fresh))
    for each in stopped:
        send(each, signal.SIGKILL)
    return list(stopped)


def _numbers() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - a helper has no use for pathlib
    except OSError:
        return []  # a system without /proc: only the process group is signalled


def _look(name: str) -> tuple[int, Process] | None:
    """The parent's pid, and the process; None if it has ended."""
    try:
        # No file object, which would touch much more memory in a fork.
        file = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(file, _STAT)
        finally:
            os.close(file)
    except OSError:
        return None
    # After the program's name, which may contain anything: state, parent, later threads and start.
    fields = data.rpartition(b")")[2].split()
    has_ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1  # otherwise only its first thread has
    return None if has_ended else (int(fields[1]), Process(int(name), int(fields[19])))
