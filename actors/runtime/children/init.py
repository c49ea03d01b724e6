"""``Init``: the first process of a namespace of processes, with which all others of that end."""

from __future__ import annotations

import contextlib
import os
import signal

from actors.runtime.children.kernel import (
    CLOSE_RANGE,
    PR_SET_DUMPABLE,
    call,
    end_with_parent,
    forget_children,
    system_call,
)

_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000
_ALL = 0xFFFFFFFF


def leave_processes() -> None:
    """Have the children of this process live in a namespace of processes of their own from now on; in one of
    users too, where that may not be made otherwise. Raises OSError.
    """
    try:
        call("unshare", _CLONE_NEWPID)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        call("unshare", _CLONE_NEWUSER | _CLONE_NEWPID)
        # Without this the group could give up memberships that keep it from files.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")


def return_to_processes() -> bool:
    """Have the next children of this process live in its own namespace of processes again; returns whether
    that may be.
    """
    try:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("setns", own, _CLONE_NEWPID)
        finally:
            os.close(own)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


class Init:
    """The first process, made by its owner's first fork after ``leave_processes``. It ends with its owner."""

    def __init__(self) -> None:
        """Fork the first process. Raises OSError."""
        held, self._hold = os.pipe()
        #: Can be read when the first process, let go, has found that others are left.
        self.others, report = os.pipe()
        #: Its number; 0 once it has ended.
        self.pid = os.fork()
        if self.pid == 0:
            _be_first(held, report)
        os.close(held)
        os.close(report)

    def release(self) -> None:
        """Have it end with the last of the other processes, since the one that its owner made has ended."""
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1

    def close(self) -> None:
        """Let go of what it was reached by, once it has ended."""
        self.release()
        os.close(self.others)


def _be_first(held: int, report: int) -> None:
    """Be the first process; never returns."""
    try:
        end_with_parent()
        call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # a process in here sees nothing by way of it
        signal.set_wakeup_fd(-1)
        forget_children()  # also those whose own parent has ended
        os.dup2(held, 0)
        os.dup2(report, 1)
        system_call(CLOSE_RANGE, 2, _ALL, 0)
        os.read(0, 1)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            os.write(1, b"+")
            os.waitpid(-1, 0)  # comes back once there are none
    finally:
        os._exit(0)
