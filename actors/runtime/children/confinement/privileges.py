"""Drops the privileges of a process for good: capabilities, new privileges, unlimited resources."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct

from actors.runtime.children.kernel import (
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECUREBITS,
    call,
)

_CLONE_NEWNS, _CLONE_NEWIPC = 0x20000, 0x08000000
#: No capabilities by being root, by changing user, or by keeping them across that; all of it locked.
_NO_ROOT = 0b1110_1111
_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_V3 = 0x20080522
_LAST_CAPABILITY = 63
#: Only with exactly this limit no core dump goes to a program that collects them.
_NO_CORE = 1

#: Memory in bytes, processor time in seconds, number of processes, size of a file in bytes.
Limits = tuple[int | None, int | None, int | None, int | None]


def leave_shared() -> None:
    """Stop sharing mounts and System V IPC with other processes. Raises OSError."""
    call("unshare", _CLONE_NEWNS | _CLONE_NEWIPC)


def drop_bounds() -> None:
    """Have what this thread starts gain no capability from executing a file; the thread keeps its own."""
    with contextlib.suppress(OSError):  # there are no more, or this process has none
        for number in range(_LAST_CAPABILITY + 1):
            call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)


def drop_capabilities() -> None:
    """Drop all capabilities, and gain none from executing a file: set-user-id programs run as their
    caller.
    """
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    with contextlib.suppress(OSError):  # this process has none
        call("prctl", PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0)
    call("capset", struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24))


def limit(limits: Limits, *, is_bounded: bool) -> None:
    """Limit the resources of each process from here on. ``is_bounded`` says that the namespace bounds the
    number of root's processes, since root is exempt from that limit. Raises OSError.
    """
    if limits[2] is not None and not is_bounded and os.geteuid() == 0:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    memory, cpu, processes, file_size = limits
    of_kind = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: _NO_CORE,
    }
    for kind, most in of_kind.items():
        if most is not None:
            _, hard = resource.getrlimit(kind)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, least))
