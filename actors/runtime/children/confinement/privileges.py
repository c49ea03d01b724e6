"""Gives up what a confined program must not have: capabilities, new privileges, unbounded use."""

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
#: Running as root, changing one's user and keeping capabilities by that give none; all of it locked.
_NO_ROOT = 0b1110_1111
_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_V3 = 0x20080522
_LAST_CAPABILITY = 63
#: With this limit, and only with this one, a core dump also goes to no program that takes them.
_NO_CORE = 1

#: Memory in bytes, processor seconds, processes, bytes of a file.
Limits = tuple[int | None, int | None, int | None, int | None]


def leave_shared() -> None:
    """Share mounts and shared memory with no other process. Raises OSError."""
    call("unshare", _CLONE_NEWNS | _CLONE_NEWIPC)


def drop_bounds() -> None:
    """Have what this thread starts get no capability by executing; it keeps those that it has."""
    with contextlib.suppress(OSError):  # there are no more of them, or this process has none
        for number in range(_LAST_CAPABILITY + 1):
            call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)


def drop_capabilities() -> None:
    """Drop all capabilities and get none by executing; set-user-id programs run as whoever starts them."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    with contextlib.suppress(OSError):  # this process has none
        call("prctl", PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0)
    call("capset", struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24))


def limit(limits: Limits, *, is_bounded: bool) -> None:
    """Bound what each process uses from here on; ``is_bounded`` where the namespace bounds how many root has,
    who is exempt from that limit. Raises OSError.
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
